"""How is a webhook signed, so that its reader knows who sent it and when? In the Standard Webhooks form.

Three headers: ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, the last a list of ``v1,`` and the
base64 of HMAC-SHA256 over id, timestamp and body, one for each secret in use. See https://www.standardwebhooks.com.
A secret is ``whsec_`` and base64; the settings see to that.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime

PREFIX, VERSION = "whsec_", "v1,"
TOLERANCE = 300  # seconds, either way
LONGEST_ID = 256


class BadSignature(ValueError):
    """Nobody who knows a secret has sent this just now."""


def sign(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a message that is sent at this instant, signed with every secret."""
    timestamp = str(int(at.timestamp()))
    signatures = (_signature(secret, message_id, timestamp, body) for secret in secrets)
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise ``BadSignature`` unless the message was signed with one of the secrets, within 300 s."""
    message_id, timestamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not 0 < len(message_id) <= LONGEST_ID or not _is_near(timestamp, now):
        msg = "there is no webhook-id, or the webhook-timestamp is more than 300 s away"
        raise BadSignature(msg)
    wanted = [_signature(secret, message_id, timestamp, body).encode() for secret in secrets]
    found = [each.encode(errors="replace") for each in given.split()]
    if not any(hmac.compare_digest(ours, theirs) for ours in wanted for theirs in found):
        msg = "the webhook-signature does not fit"
        raise BadSignature(msg)


def _is_near(timestamp: str, now: datetime) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > len(str(2**63)):
        return False
    return abs(now.timestamp() - int(timestamp)) <= TOLERANCE


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    key = b64decode(secret.removeprefix(PREFIX))
    return f"{VERSION}{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
