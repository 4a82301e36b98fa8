"""Which charges are ours? Each has a key that names the installation, the payment, and which of its attempts it is.

The provider's events name the key of the request behind them. A key of this installation without an attempt can only
mean that rows were lost: an attempt is committed before its request leaves, and never deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Text, exists, func, literal, literal_column, select

from worker.models import OWN_KEY, attempts, events, install

STEM = "dunning-"
PREFIX = STEM + func.cast(install.c.id, Text) + "-"
NAMED = literal_column(f"({OWN_KEY})", Text)


def new_key(payment_id: Any, number: Any) -> Any:
    """Return the key of the ``number``-th request for a payment, as SQL."""
    return select(PREFIX + payment_id + "-" + func.cast(number, Text)).scalar_subquery()


def payment_of(db: Connection, key: str) -> str:
    """Return the payment that a key of this installation is for."""
    prefix = db.execute(select(PREFIX)).scalar_one()
    return key.removeprefix(prefix).rpartition("-")[0]


def key_of(payload: Mapping[str, Any]) -> str | None:
    """Return the key of the request behind an event when an installation of this product made it."""
    request = payload.get("request")
    key = request.get("idempotency_key") if isinstance(request, dict) else None
    return key if isinstance(key, str) and key.startswith(STEM) else None


def is_lost(db: Connection, key: str) -> bool:
    """Whether this installation charged under a key of which it knows nothing any more."""
    known = exists().where(attempts.c.idempotency_key == key)
    return db.execute(select(install.c.id).where(literal(key).startswith(PREFIX), ~known)).first() is not None


def lost(db: Connection) -> list[str]:
    """Return the keys of this installation that events name and no attempt has, in the order of their charges."""
    ours = NAMED.like(f"{STEM}%"), NAMED.startswith(select(PREFIX).scalar_subquery())
    known = exists().where(attempts.c.idempotency_key == NAMED)
    found = select(NAMED).select_from(events).where(*ours, ~known).group_by(NAMED)
    first = func.min(events.c.payload["created"].as_integer())
    return list(db.execute(found.order_by(first, NAMED)).scalars())
