"""May this call happen? Compile policies, decide, explain, list.

The webhook compiles what its watch cache holds into a :class:`RuleSet` and a :class:`Catalogue`, and calls :func:`decide`
once for each tool call; ``countersign policy test`` and the tests call the same functions on YAML. Objects come as plain
dicts, as the API server stores them, so that a field that this replica does not know stays visible and makes its part of the
rule undecided (crds.md 5.3).

This room is pure and total: it reads no clock (but the CPU that its own expressions use), no cluster and no network, it
never raises for data, and where it has no answer the answer is no. Of third parties it asks the CEL library, in
``expression.py`` alone, and a JSON Schema validator. It never sees HTTP, keys or tokens, and it keeps nothing between two decisions.
"""

from countersign.policy.catalogue import Catalogue, Floors, Tool, ToolServer, audience_owned, exposes
from countersign.policy.compiled import policy_digest
from countersign.policy.decide import BASE_METHODS, decide, listable, names_server
from countersign.policy.explain import RuleView, explain
from countersign.policy.expression import when_fault
from countersign.policy.model import (
    Agent,
    Caller,
    Decision,
    Device,
    Effect,
    Fact,
    Instance,
    Question,
    RuleMark,
)
from countersign.policy.ruleset import RuleSet
from countersign.policy.schema import schema_fault

__all__ = [
    "BASE_METHODS",
    "Agent",
    "Caller",
    "Catalogue",
    "Decision",
    "Device",
    "Effect",
    "Fact",
    "Floors",
    "Instance",
    "Question",
    "RuleMark",
    "RuleSet",
    "RuleView",
    "Tool",
    "ToolServer",
    "audience_owned",
    "decide",
    "explain",
    "exposes",
    "listable",
    "names_server",
    "policy_digest",
    "schema_fault",
    "when_fault",
]
