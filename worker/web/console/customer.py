"""What is there to know about one customer? Subscriptions with their risk, cases, signals, and who must not write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import distinct_on
from starlette.responses import Response

from schedules.signals import KINDS
from worker import signals
from worker.models import cases, risks, subscriptions, suppressions
from worker.suppressions import REASONS
from worker.web.console.pages import Missing, Visit, shown

MOST = 50


def view(visit: Visit) -> Response:
    """Show a customer, of every connected account where the id is known."""
    asked = visit.request.path_params["customer"]
    with visit.engine.connect() as db:
        bought, owed = (_subscriptions(db, asked), _cases(db, asked)) if asked.isprintable() else ((), ())
        if not bought and not owed:
            msg = f"customer {asked}"
            raise Missing(msg)
        told = {"risks": _risks(db, bought), "signals": _signals(db, asked), "silences": _silences(db, asked)}
    return shown(visit, "customer", {"customer": asked, "subscriptions": bought, "cases": owed, "most": MOST, **told})


def _subscriptions(db: Connection, asked: str) -> Sequence[Row[Any]]:
    """Return what the customer subscribes to, what goes on first."""
    theirs = select(subscriptions).where(subscriptions.c.customer_id == asked)
    ordered = theirs.order_by(subscriptions.c.ended_at.desc().nulls_first(), subscriptions.c.started_at.desc())
    return db.execute(ordered.limit(MOST)).all()


def _cases(db: Connection, asked: str) -> Sequence[Row[Any]]:
    """Return the customer's cases, the latest first."""
    theirs = select(cases).where(cases.c.customer_id == asked)
    return db.execute(theirs.order_by(cases.c.failed_at.desc(), cases.c.id.desc()).limit(MOST)).all()


def _risks(db: Connection, bought: Sequence[Row[Any]]) -> dict[str, Row[Any]]:
    """Return the latest score of each subscription that goes on."""
    mine = risks.c.subscription_id.in_([each.id for each in bought if each.ended_at is None])
    latest = select(risks).where(mine).ext(distinct_on(risks.c.subscription_id))
    found = db.execute(latest.order_by(risks.c.subscription_id, risks.c.month.desc()))
    return {row.subscription_id: row for row in found}


def _signals(db: Connection, asked: str) -> list[dict[str, Any]]:
    """Return the latest signal of each kind with its meaning."""
    rows = [row for kinds in signals.latest(db, [asked]).values() for row in kinds.values()]
    meanings = {kind: KINDS[kind].meaning if kind in KINDS else "" for kind in {row.kind for row in rows}}
    return [{"row": row, "meaning": meanings[row.kind], "value": f"{row.value:,g}"} for row in rows]


def _silences(db: Connection, asked: str) -> list[dict[str, Any]]:
    """Return why the customer is not written to."""
    theirs = select(suppressions).where(suppressions.c.customer_id == asked).order_by(suppressions.c.at)
    return [{"why": REASONS[row.why], "at": row.at} for row in db.execute(theirs)]
