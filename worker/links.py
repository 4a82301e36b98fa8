"""Which address may a customer open without a login? One signed link to one case and for one purpose, until an instant.

A token is the number of the case or message, its last second and their HMAC-SHA256: 48 bytes, 64 characters of
URL-safe base64. Nothing of it is stored; whoever changes one character has no link.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from struct import Struct

from worker.settings import Settings

AFTER_DEADLINE = timedelta(days=14)  # a message is read late, and an old link should still say how things stand
OPT_OUT = timedelta(days=400)  # whoever finds a message a year later does not want the next one
BODY = Struct(">QQ")
TOKEN_CHARACTERS = 64
# What the secret signs for one purpose is worthless for another.
TO_PAY, TO_OPT_OUT = b"dunning pay link\n", b"dunning unsubscribe link\n"
TO_METHOD, TO_LEAVE_ALONE = b"dunning renewal link\n", b"dunning renewal unsubscribe link\n"  # of a message, not a case


class BadLink(ValueError):
    """The token is forged, cut short, or signed with a secret that is no longer in use."""


class OldLink(BadLink):
    """The token was good, but its time is over."""


@dataclass(frozen=True, slots=True)
class Links:
    """The links of an installation: the public address, and the secrets. The first signs, all verify."""

    base: str
    secrets: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Links | None:
        """Return the links of an installation; ``None`` unless both the address and a secret are set."""
        if settings.public_url is None or not settings.link_secret:
            return None
        return cls(settings.public_url, tuple(each.get_secret_value().encode() for each in settings.link_secret))

    def to_pay(self, case_id: int, deadline: datetime, after: timedelta = AFTER_DEADLINE) -> str:
        """Return the address under which the customer of a case can pay until some time ``after`` its deadline."""
        return f"{self.base}/pay/{self._token(case_id, deadline + after, TO_PAY)}"

    def to_opt_out(self, case_id: int, now: datetime) -> str:
        """Return the address under which the customer of a case can choose to get the necessary notices only."""
        return f"{self.base}/unsubscribe/{self._token(case_id, now + OPT_OUT, TO_OPT_OUT)}"

    def to_method(self, message_id: int, charge_at: datetime) -> str:
        """Return the address under which whom a message told of the next charge can change how it is paid."""
        return f"{self.base}/pay/{self._token(message_id, charge_at + AFTER_DEADLINE, TO_METHOD)}"

    def to_leave_alone(self, message_id: int, now: datetime) -> str:
        """Return the address under which whom such a message told can choose to get the necessary ones only."""
        return f"{self.base}/unsubscribe/{self._token(message_id, now + OPT_OUT, TO_LEAVE_ALONE)}"

    def _token(self, number: int, until: datetime, purpose: bytes) -> str:
        body = BODY.pack(number, int(until.timestamp()))
        return urlsafe_b64encode(body + _signature(self.secrets[0], purpose, body)).decode()

    def case_of(self, token: str, now: datetime, purpose: bytes = TO_PAY) -> int:
        """Return the number of the case or message that a token opens; raise ``BadLink``, ``OldLink`` when too late."""
        body, signature = _parts(token)
        if not any(hmac.compare_digest(signature, _signature(secret, purpose, body)) for secret in self.secrets):
            raise BadLink
        number, until = BODY.unpack(body)
        if now.timestamp() >= until:
            raise OldLink
        return int(number)


def _parts(token: str) -> tuple[bytes, bytes]:
    if len(token) != TOKEN_CHARACTERS:
        raise BadLink
    try:
        found = b64decode(token, b"-_", validate=True)
    except ValueError:
        raise BadLink from None
    return found[: BODY.size], found[BODY.size :]


def _signature(secret: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, purpose + body, "sha256")
