"""AdmissionReview (``admission.k8s.io/v1``): read what is asked, say yes or no. Unknown fields are ignored, as in any API."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["API_VERSION", "NotAReview", "Refused", "Review", "allow", "parse_review", "refuse"]

API_VERSION: Final = "admission.k8s.io/v1"
_UID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MESSAGE_CHARACTERS: Final = 2048
_WARNING_CHARACTERS: Final = 256
_WARNINGS: Final = 8


class NotAReview(Exception):
    """The body is no AdmissionReview: there is no uid to answer to."""


class Refused(Exception):
    """The answer is no. ``message`` is shown to the person; ``status`` is the HTTP status that the API server answers."""

    def __init__(self, message: str, status: int = 403) -> None:
        """Keep what is said."""
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Review:
    """One question. ``object`` and ``old_object`` are empty where the operation has none."""

    uid: str
    operation: str
    group: str
    kind: str
    namespace: str
    username: str
    object: dict[str, Any]
    old_object: dict[str, Any]

    @property
    def name(self) -> str:
        """The object's name; empty while ``generateName`` has not made one."""
        return str((self.object.get("metadata") or {}).get("name") or "")

    @property
    def spec(self) -> dict[str, Any]:
        """The object's spec, or an empty one."""
        return _dict(self.object.get("spec"))

    @property
    def spec_unchanged(self) -> bool:
        """Whether this is an update that leaves the spec alone: what was right when it was written is not judged again."""
        return self.operation == "UPDATE" and self.object.get("spec") == self.old_object.get("spec")


def parse_review(data: bytes) -> Review:
    """Read a review; raises ``NotAReview``, saying which member is wrong."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotAReview("the body is no JSON") from error
    if not isinstance(value, dict) or value.get("apiVersion") != API_VERSION or value.get("kind") != "AdmissionReview":
        raise NotAReview(f"an AdmissionReview of {API_VERSION} is wanted")
    request = value.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not _UID.fullmatch(request["uid"]):
        raise NotAReview("request.uid is missing or no UID")
    kind = request.get("kind")
    if not isinstance(kind, dict) or not isinstance(request.get("operation"), str):
        raise NotAReview("request.kind or request.operation is missing")
    return Review(
        uid=request["uid"],
        operation=_text(request["operation"]),
        group=_text(kind.get("group")),
        kind=_text(kind.get("kind")),
        namespace=_text(request.get("namespace")),
        username=_text(_dict(request.get("userInfo")).get("username")),
        object=_dict(request.get("object")),
        old_object=_dict(request.get("oldObject")),
    )


def allow(uid: str, *, patch: Sequence[dict[str, Any]] = (), warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Return the review that says yes, with a JSON Patch if there is one."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(list(patch)).encode()).decode()
    if warnings:
        response["warnings"] = [_short(warning) for warning in warnings[:_WARNINGS]]
    return _review(response)


def refuse(uid: str, refused: Refused) -> dict[str, Any]:
    """Return the review that says no."""
    status = {"code": refused.status, "message": _text(refused.message)[:_MESSAGE_CHARACTERS]}
    return _review({"uid": uid, "allowed": False, "status": status})


def _review(response: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def _short(text: str) -> str:
    """Keep within what the API server passes on."""
    text = _text(text)
    return text if len(text) <= _WARNING_CHARACTERS else text[: _WARNING_CHARACTERS - 1] + "…"


def _text(value: Any) -> str:
    """Return ``value`` if it is a string, without the half characters that JSON can spell and UTF-8 cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
