"""How do things stand? Money at risk and back, what was tried, what comes, and whether everybody is at work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, func, select
from starlette.responses import Response

from worker import replay, watch
from worker.models import OPEN_STATES, attempts, cases, events, failures
from worker.web.console import charts
from worker.web.console.pages import Visit, shown

MONTH, DAY, HOUR = timedelta(days=30), timedelta(days=1), timedelta(hours=1)
# What became of an attempt, in the words of a legend.
OUTCOMES = {
    "succeeded": "paid",
    "declined": "refused",
    "observed": "observed only",
    "foreign": "refused, by others",
    "sent": "not known yet",
    "unknown": "not known yet",
    "processing": "not known yet",
}


def view(visit: Visit) -> Response:
    """Show the overview; it refreshes itself."""
    health = watch.health(visit.engine, visit.settings.tick_seconds, visit.now)
    with visit.engine.connect() as db:
        told = figures(db, visit.now)
    days, hours = told.pop("days"), told.pop("hours")
    pictures = {"attempts_picture": charts.attempts(days), "ahead_picture": charts.ahead(hours)}
    return shown(visit, "overview", {"health": health, **told, **pictures})


def figures(db: Connection, now: datetime) -> dict[str, Any]:
    """Return what the overview counts, money by currency and in minor units."""
    days, hours = _days(db, now), _hours(db, now)
    return {
        "at_risk": _at_risk(db),
        "back": _back(db, now),
        "states": _counted(db, select(cases.c.state, func.count()).group_by(cases.c.state)),
        "days": days,
        "hours": hours,
        "tried": sum(each["count"] for each in days),
        "planned": sum(each["count"] for each in hours),
        "failed_jobs": db.execute(select(func.count()).select_from(failures)).scalar_one(),
        "given_up": db.execute(select(func.count()).select_from(events).where(*replay.GIVEN_UP)).scalar_one(),
    }


def _counted(db: Connection, wanted: Select[Any]) -> dict[Any, int]:
    return {of: int(count) for of, count in db.execute(wanted)}


def _at_risk(db: Connection) -> list[Mapping[str, Any]]:
    """Return what open cases owe, by currency."""
    owed = select(cases.c.currency, func.sum(cases.c.amount_minor).label("amount_minor"), func.count().label("count"))
    found = owed.where(cases.c.state.in_(OPEN_STATES)).group_by(cases.c.currency).order_by(cases.c.currency)
    return [dict(row) for row in db.execute(found).mappings()]


def _back(db: Connection, now: datetime) -> dict[str, dict[str, Any]]:
    """Return what came back in the last 30 days, by currency: its sum, and by means amount and count."""
    won = cases.c.state == "recovered", cases.c.closed_at > now - MONTH
    by = cases.c.currency, cases.c.recovered_by
    wanted = select(*by, func.sum(cases.c.amount_minor).label("amount"), func.count().label("count"))
    found: dict[str, dict[str, Any]] = {}
    for row in db.execute(wanted.where(*won).group_by(*by).order_by(*by)):
        of = found.setdefault(row.currency, {"amount_minor": 0, "means": []})
        of["amount_minor"] += int(row.amount)
        of["means"].append({"means": row.recovered_by, "amount_minor": int(row.amount), "count": row.count})
    return found


def _days(db: Connection, now: datetime) -> list[dict[str, Any]]:
    """Return how many attempts there were on each of the last 30 days (UTC), by outcome; days without any too."""
    first = (now - MONTH + DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    day = func.date_trunc("day", attempts.c.at)
    lately = attempts.c.at >= first, attempts.c.at <= now, attempts.c.case_id.is_not(None)  # the renewals have no case
    wanted = select(day, attempts.c.state, func.count()).where(*lately)
    counted: dict[tuple[str, str], int] = {}
    for at, state, count in db.execute(wanted.where(attempts.c.state.in_(OUTCOMES)).group_by(day, attempts.c.state)):
        key = _name(at), OUTCOMES[state]
        counted[key] = counted.get(key, 0) + count
    every = [_name(first + DAY * number) for number in range(MONTH.days)]
    outcomes = sorted({outcome for _, outcome in counted}) or ["refused"]
    return [{"day": d, "outcome": o, "count": counted.get((d, o), 0)} for d in every for o in outcomes]


def _name(at: datetime) -> str:
    return f"{at.day} {at:%b}"


def _hours(db: Connection, now: datetime) -> list[dict[str, Any]]:
    """Return how many charges are planned in each of the next 24 hours (UTC); what is overdue goes first."""
    start = now.replace(minute=0, second=0, microsecond=0)
    hour = func.date_trunc("hour", func.greatest(cases.c.due_at, now))
    planned = cases.c.due_at < start + DAY, cases.c.step["step"].astext == "charge", cases.c.quarantined_at.is_(None)
    counted = _counted(db, select(hour, func.count()).where(*planned).group_by(hour))
    every = [start + HOUR * number for number in range(24)]
    return [{"hour": f"{at:%H}", "count": counted.get(at, 0)} for at in every]
