"""Who may ask the practice bank what? Keys, their rights and the versions of the API, as Stripe refuses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.practice.answers import Refusal
from worker.practice.objects import API_VERSION

if TYPE_CHECKING:
    from starlette.requests import Request

    from worker.practice.records import JSON

RESTRICTED = "Bearer rk_test_"
KEYS = ("Bearer sk_test_", RESTRICTED)
MOST_KEY_CHARACTERS = 255
RIGHTS = {"account": "accounts_kyc_basic", "webhook_endpoints": "webhook"}  # others are called as their objects


@dataclass
class Access:
    """What is refused on demand: a revoked key, rights that a restricted key lacks, versions newer than this."""

    revoked: bool = False
    missing: frozenset[str] = frozenset()
    newest: str = API_VERSION

    def change(self, wish: JSON) -> JSON:
        """Take ``{"revoked", "missing": [right], "newest": version}``; what is left out is as at the beginning."""
        self.revoked, self.missing = bool(wish.get("revoked")), frozenset(wish.get("missing", ()))
        self.newest = str(wish.get("newest", API_VERSION))
        return {"revoked": self.revoked, "missing": sorted(self.missing), "newest": self.newest}

    def admit(self, request: Request) -> None:
        """Let a request in; raise ``Refusal`` for its key, its right, its version or its idempotency key."""
        key = request.headers.get("authorization", "")
        if not key.startswith(KEYS):
            raise Refusal(401, "You did not provide a test mode API key: use 'Authorization: Bearer sk_test_…'.")
        if self.revoked:
            raise Refusal(401, f"Expired API Key provided: {_masked(key)}", code="api_key_expired")
        version = request.headers.get("stripe-version", self.newest)
        if version > self.newest:
            raise Refusal(400, f"Invalid Stripe API version: {version}")
        if (right := _right(request)) in self.missing and key.startswith(RESTRICTED):
            lacks = f"The provided key '{_masked(key)}' does not have the required permissions for this endpoint"
            hint = f"Having the '{right}' permission would allow this request to continue."
            raise Refusal(403, f"{lacks} on account 'acct_practice'. {hint}")
        if len(request.headers.get("idempotency-key", "")) > MOST_KEY_CHARACTERS:
            raise Refusal(400, "Idempotency keys are at most 255 characters long.")


def _right(request: Request) -> str:
    """Return the right that a request takes, as Stripe names it: ``rak_invoice_read``."""
    segments = request.url.path.removeprefix("/v1/").split("/")
    last = segments[-1] if segments[-1] == "payment_methods" else segments[0]
    act = "read" if request.method == "GET" else "write"
    return f"rak_{RIGHTS.get(last, last.removesuffix('s'))}_{act}"


def _masked(key: str) -> str:
    return f"{key[7:15]}{'*' * 8}"
