"""Whose automatic renewal is off, and when is the best moment to remind them? The merchant is told, nobody else.

We do not argue with people who chose to leave: they get no notice of ours before the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select

from schedules import Facts, Policy
from schedules.decide import may_speak
from schedules.steps import utc_text
from worker.models import outbox, subscriptions
from worker.renewals import act_of, name_of, payment_of, policy_of, post
from worker.subscriptions import GONE

if TYPE_CHECKING:
    from worker.desk import Desk

OFF, ON = "subscription.auto_renew_off", "subscription.auto_renew_on"
# How long before the end somebody may like to be reminded: by the months of one period.
REMIND = ((6.0, timedelta(days=30)), (0.9, timedelta(days=7)), (0.0, timedelta(days=2)))
MONEY = ("plan", "amount_minor", "monthly_minor", "currency")
WHOSE = ("account", "customer_id")


def leaving(db: Connection, now: datetime) -> list[Row[Any]]:
    """Return the subscriptions that go on now and will end by themselves, the next to end first."""
    over = subscriptions.c.ended_at.is_(None), subscriptions.c.status != GONE, subscriptions.c.cancel_at > now
    return list(db.execute(select(subscriptions).where(*over).order_by(subscriptions.c.cancel_at, subscriptions.c.id)))


def best_moment(row: Row[Any], policy: Policy, now: datetime) -> datetime | None:
    """Return when to remind a customer: some days before the end, by how long a period is, in the customer's hours.

    Never in the past; None when no such hour is left before the end.
    """
    months = row.amount_minor / row.monthly_minor if row.amount_minor and row.monthly_minor else 1.0
    days = next(days for least, days in REMIND if months >= least)
    payment, since = payment_of(row, now), max(row.cancel_at - days, now)
    at = may_speak(Facts(payment, payment.card), policy, since, "mail")
    return at if at is not None and at < row.cancel_at else None


def told_of(row: Row[Any], policy: Policy, now: datetime) -> dict[str, Any]:
    """Return what a list and a webhook tell: ids, money, what the customer chose and when; no person."""
    moment = best_moment(row, policy, now)
    instants = {"started_at": row.started_at, "off_since": row.canceled_at, "ends_at": row.cancel_at}
    return {
        "subscription_id": row.id,
        **{name: getattr(row, name) for name in (*WHOSE, *MONEY)},
        "tenure_days": max((now - row.started_at).days, 0),
        **{name: at and utc_text(at) for name, at in (*instants.items(), ("best_moment", moment))},
        "feedback": row.feedback,
    }


def announce(desk: Desk) -> dict[str, int]:
    """Tell the merchant's systems, once, that renewal was switched off, and that it is on again; return how often."""
    counts = {OFF: 0, ON: 0}
    with desk.engine.begin() as db:
        for name, period, row in (*_off(db, desk.now), *_on(db)):
            policy = policy_of(desk.policy, row, desk.now)
            if name in policy.hooks:
                counts[name] += _tell(db, desk, row, policy, name_of(name, period))
    return counts


def _off(db: Connection, now: datetime) -> Iterator[tuple[str, str, Row[Any]]]:
    """Yield whose renewal is off, each with the instant since when: of two choices each is told."""
    yield from ((OFF, utc_text(row.canceled_at or row.cancel_at), row) for row in leaving(db, now))


def _on(db: Connection) -> Iterator[tuple[str, str, Row[Any]]]:
    """Yield whose renewal is on again after it was told that it is off."""
    said = outbox.c.kind == "hook", outbox.c.name.like(f"{OFF}-%")
    again = subscriptions.c.cancel_at.is_(None), subscriptions.c.ended_at.is_(None), subscriptions.c.status != GONE
    latest = select(outbox.c.subscription_id, func.max(outbox.c.name).label("name")).where(*said)
    off = latest.group_by(outbox.c.subscription_id).subquery()
    found = select(subscriptions, off.c.name.label("said")).join(off, off.c.subscription_id == subscriptions.c.id)
    for row in db.execute(found.where(*again).order_by(subscriptions.c.id)):
        yield ON, row.said.removeprefix(name_of(act_of(row.said), "")), row


def _tell(db: Connection, desk: Desk, row: Row[Any], policy: Policy, name: str) -> bool:
    if row.cancel_at is not None:
        told = told_of(row, policy, desk.now)
    else:
        told = {"subscription_id": row.id, **{name: getattr(row, name) for name in (*WHOSE, *MONEY)}}
    message = {"kind": "hook", "name": name, "channel": "hook", "payload": told, "due_at": desk.now}
    return post(db, row, desk.now, **message) is not None
