"""What is to be told, and to whom? Rows that leave later, once each: to the customer, the provider, the merchant."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Policy
from worker.models import outbox

SHOWN = ("payment_id", "account", "customer_id", "subscription_id", "amount_minor", "currency")  # by hooks


def post(db: Connection, row: Any, at: datetime, **message: Any) -> int | None:
    """Put one message into the outbox and return its id; None when the case has said the same before."""
    values = {"case_id": row.id, "customer_id": row.customer_id, "at": at, **message}
    return db.execute(upsert(outbox).values(values).on_conflict_do_nothing().returning(outbox.c.id)).scalar()


def say(db: Connection, row: Any, notice: str, policy: Policy, at: datetime) -> dict[str, int]:
    """Put a notice into the outbox, once for each channel; return the numbers of what was not there before."""
    said = {name: post(db, row, at, kind="notice", name=notice, channel=name, due_at=at) for name in policy.channels}
    return {channel: message_id for channel, message_id in said.items() if message_id is not None}


def tell(db: Connection, row: Any, name: str, policy: Policy, now: datetime, **more: Any) -> None:
    """Tell the merchant's own systems what happened to a case, if its policy names that: ids and money, no person."""
    if name not in policy.hooks:
        return
    said = {"case_id": row.id, **{key: getattr(row, key) for key in SHOWN}, **more}
    post(db, row, now, kind="hook", name=name, channel="hook", payload=said, due_at=now)
