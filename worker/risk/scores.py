"""How likely is each subscription lost to a payment? The latest chances of every month, in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from schedules.learned import Model
from schedules.risk import RULES, score, usual_parts
from schedules.subscriber import Subscriber
from worker.bulk import as_rows, insert_all
from worker.models import risks, subscriptions
from worker.risk.seen import seen_now

BATCH = 500
LATEST = ("at", "chance_30", "chance_90", "reasons", "model")  # what was seen first in a month stays, to learn from
SHOWN = ("id", "account", "customer_id", "plan", "amount_minor", "currency", "next_charge_at")


def score_all(engine: Engine, now: datetime, model: Model = RULES) -> Iterator[int]:
    """Score what is stored and write it down; yields how many are done."""
    with engine.connect() as db:
        found = list(seen_now(db, now))
    usual = usual_parts(model, (seen for _, seen in found))
    for number, part in enumerate(_batches(found)):
        rows = [_row(name, seen, now, model, usual) for name, seen in part]
        new = insert_all(risks, rows[0])
        latest = {name: new.excluded[name] for name in LATEST}
        with engine.begin() as db:
            told = new.on_conflict_do_update(index_elements=["subscription_id", "month"], set_=latest)
            db.execute(told, as_rows(risks, rows))
        yield number * BATCH + len(rows)


def highest(db: Connection, now: datetime, least: float = 0.0, limit: int | None = None) -> Sequence[Row[Any]]:
    """Return this month's scores of at least so much within 90 days, the highest first, with their subscriptions."""
    own = [subscriptions.c[name] for name in SHOWN]
    scored = select(*own, *(risks.c[name] for name in LATEST)).join(
        risks, risks.c.subscription_id == subscriptions.c.id
    )
    wanted = risks.c.month == month_of(now), subscriptions.c.ended_at.is_(None), risks.c.chance_90 >= least
    return db.execute(scored.where(*wanted).order_by(risks.c.chance_90.desc(), subscriptions.c.id).limit(limit)).all()


def month_of(now: datetime) -> date:
    """Return the first day of the month that a score belongs to."""
    return now.date().replace(day=1)


def _batches(found: list[tuple[str, Subscriber]]) -> Iterator[list[tuple[str, Subscriber]]]:
    return (found[begin : begin + BATCH] for begin in range(0, len(found), BATCH))


def _row(name: str, seen: Subscriber, now: datetime, model: Model, usual: dict[str, float]) -> dict[str, Any]:
    risk = score(seen, model, usual)
    return {
        "subscription_id": name,
        "month": str(month_of(now)),
        "at": now,
        "chance_30": risk.chance_30,
        "chance_90": risk.chance_90,
        "reasons": list(risk.reasons),
        "model": risk.model,
        "seen_at": now,
        "seen": seen.as_json(),
    }
