"""The calls port as one application: what decides is raw ASGI, everything else goes through FastAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from countersign_webhook.decide.access import EVALUATION, EVALUATIONS, AccessEndpoint
from countersign_webhook.decide.catalogue import CatalogueEndpoint
from countersign_webhook.decide.http import target_of
from countersign_webhook.decide.public import public_app
from countersign_webhook.decide.token import TokenEndpoint
from countersign_webhook.reading import ReadingEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign_webhook.context import WebhookContext
    from countersign_webhook.decide.http import Receive, Scope, Send

    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["CallsApp"]


class CallsApp:
    """Sends a request to its endpoint by its exact path as received: that is what was signed."""

    def __init__(self, context: WebhookContext) -> None:
        """Make the endpoints."""
        token, catalogue = TokenEndpoint(context), CatalogueEndpoint(context)
        self._raw: dict[str, App] = {token.path: token, catalogue.path: catalogue}
        self._raw[ReadingEndpoint.path] = ReadingEndpoint(context)
        self._raw |= {path: AccessEndpoint(context, path) for path in (EVALUATION, EVALUATIONS)}
        self._public = public_app(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = self._raw.get(target_of(scope).partition("?")[0]) if scope["type"] == "http" else None
        await (endpoint or self._public)(scope, receive, send)
