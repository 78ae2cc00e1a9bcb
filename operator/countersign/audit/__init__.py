"""One record for each decision: its shape, its chain, its proof.

The webhook and the authority open one :class:`AuditLog` at start and ``await append(decision_record(…))`` before they answer:
no record, no yes (wire.md 9). ``countersign audit verify`` and ``countersign audit query`` read the logs back;
:func:`verify_log` finds any line that was edited, removed, added or moved, within a log and from one log to the next.

A record never holds a token, a proof, a key or an argument (digests only, unless the ToolServer lists a pointer to record).
This room never decides anything, and after the first error of the disk it never accepts another record.
"""

from countersign.audit.ids import new_decision_id
from countersign.audit.log import AuditLog
from countersign.audit.query import Filters, Row, query, row_of
from countersign.audit.record import DecisionFacts, Mark, decision_record
from countersign.audit.verify import Fault, LogReport, VerifyReport, verify_log

__all__ = [
    "AuditLog",
    "DecisionFacts",
    "Fault",
    "Filters",
    "LogReport",
    "Mark",
    "Row",
    "VerifyReport",
    "decision_record",
    "new_decision_id",
    "query",
    "row_of",
    "verify_log",
]
