"""Countersign: every tool call an agent makes is countersigned by the hardware it runs on."""

__version__ = "0.1.0"
