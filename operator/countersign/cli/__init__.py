"""The console: ``countersign …`` and, through kubectl's plugin lookup, ``kubectl countersign …``.

Every process and tool adds its command by the entry-point group ``countersign.commands``; only the one that is asked for
is imported, so that ``countersign signer`` pays for no Kubernetes client. This room never contains what a command does.
"""

from countersign.cli.main import complete, main

__all__ = ["complete", "main"]
