"""The quickstart: what a person copies is accepted, says what the demo needs, and decides as its comments say."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from policy.given import question
from support.chart import CHART, apply

from countersign.demo.quickstart import Call, Quickstart
from countersign.devcluster import EkAuthority, Plane, PlaneError
from countersign.policy import Catalogue, RuleSet, audience_owned, decide
from countersign_webhook.admission.pem import bundle_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "quickstart"
NAMESPACE = "billing"
