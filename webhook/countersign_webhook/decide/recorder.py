"""Audit records of this process (wire.md 9): durable before the answer, or there is another answer."""
