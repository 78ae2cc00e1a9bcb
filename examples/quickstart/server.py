"""The quickstart's tool server: an ordinary FastMCP server with Countersign's verifier in front of it.

The verifier is one line. It checks token, signature and body of each request before FastMCP reads it; what it believes is
told by environment:

    COUNTERSIGN_VERIFIER_ISSUER    whose call tokens are believed: the webhook's URL
    COUNTERSIGN_VERIFIER_AUDIENCE  this server, as 40-tools.yaml registers it
    COUNTERSIGN_VERIFIER_JWKS_URL  where the issuer's keys are: ISSUER/.well-known/jwks.json
    COUNTERSIGN_VERIFIER_CA_FILE   the CA of that address: ca.crt of the ConfigMap countersign-trust
    COUNTERSIGN_VERIFIER_PATH      the endpoint's path, /mcp: no other path of this server is reached

What was used is remembered in this process, so run one: with several workers or replicas each would take a captured call
once. Several share a Valkey or Redis instead: COUNTERSIGN_VERIFIER_REPLAY_URL (with the extra countersign[verifier-redis]).

Run it:  uvicorn server:app --host 0.0.0.0 --port 8000
"""

from __future__ import annotations

from dataclasses import dataclass

from fastmcp import FastMCP
from starlette.middleware import Middleware

from countersign.verifier import CountersignVerifier

tools = FastMCP("payments")


@dataclass
class Charge:
    """A charge; amounts are in cents."""

    charge: str
    customer: str
    amount: int
    currency: str


@dataclass
class Refund:
    """A refund; amounts are in cents."""

    charge: str
    amount: int
    status: str


@tools.tool
def get_charge(charge: str) -> Charge:
    """Look up a charge."""
    return Charge(charge, customer="cus_1", amount=12_000, currency="EUR")


@tools.tool
def create_refund(charge: str, amount: int) -> Refund:
    """Give back part of a charge."""
    return Refund(charge, amount, status="succeeded")


@tools.tool
def delete_customer(customer: str) -> str:
    """Delete a customer and everything about it."""
    return f"{customer} deleted"


# Every request stands alone, so any replica can answer it.
app = tools.http_app(path="/mcp", stateless_http=True, json_response=True, middleware=[Middleware(CountersignVerifier)])
