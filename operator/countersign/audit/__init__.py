"""One record for each decision: its shape, its chain, its proof.

The webhook and the authority open one :class:`AuditLog` at start and ``await append(decision_record(…))`` before they answer:
no record, no yes (wire.md 9). ``countersign audit verify``, ``query`` and ``tail`` read the logs back;
:func:`verify_log` finds any line that was edited, removed, added or moved, within a log and from one log to the next, and
:class:`HeadKeeper` has the issuer's key sign where the log stands, so that a cut end is found too.

A record never holds a token, a proof, a key or an argument (digests only, unless the ToolServer lists a pointer to record).
This room never decides anything, and after the first error of the disk it never accepts another record.
"""

from countersign.audit.heads import Head, read_head, read_keys, sign_head
from countersign.audit.ids import new_decision_id
from countersign.audit.keeper import HeadKeeper
from countersign.audit.log import AuditLog
from countersign.audit.query import Filters, Row, query, row_of
from countersign.audit.question import MOST_RECORDS, READER_SIGNER, Question, Statement, read_question, sign_question
from countersign.audit.record import DecisionFacts, Mark, decision_record
from countersign.audit.verify import Fault, LogReport, VerifyReport, verify_log

__all__ = [
    "MOST_RECORDS",
    "READER_SIGNER",
    "AuditLog",
    "DecisionFacts",
    "Fault",
    "Filters",
    "Head",
    "HeadKeeper",
    "LogReport",
    "Mark",
    "Question",
    "Row",
    "Statement",
    "VerifyReport",
    "decision_record",
    "new_decision_id",
    "query",
    "read_head",
    "read_keys",
    "read_question",
    "row_of",
    "sign_head",
    "sign_question",
    "verify_log",
]
