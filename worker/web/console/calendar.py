"""When was a case charged and its customer written to, and when will that be? One line for each day, in local time.

The hours in which the next charge may go are drawn behind it, as the decision itself sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, select

from schedules import Charge, Close, Contact, Policy, Step
from schedules.ahead import steps_ahead
from schedules.case import Case, case_of
from schedules.charges import window_name
from schedules.hours import is_open
from schedules.steps import as_json
from worker.facts import facts_of
from worker.models import attempts, outbox
from worker.web.console import charts

DAY, HALF = timedelta(days=1), timedelta(minutes=30)
MOST_DAYS = 45
TRIED = {"succeeded": "paid", "declined": "refused"}
PLANNED = {Charge: "charge planned", Contact: "notice planned", Close: "end"}
Point = tuple[str, datetime]


def of_case(db: Connection, row: Row[Any], policy: Policy, now: datetime) -> dict[str, Any]:
    """Return the ``picture`` of a case, its planned ``steps``, its ``zone`` and the ``window`` of its charges."""
    mine = policy.of(row.arm, row.segment)
    facts = facts_of(db, row, now)
    case = case_of(facts, mine, now)
    steps = () if row.closed_at else steps_ahead(facts, mine, now)
    present = [] if row.closed_at else [("now", now)]
    points = sorted([*_past(db, row), *_coming(steps), *present], key=lambda point: point[1])
    zone, name = case.place.zones[0], _window(case)
    told = [{**as_json(step), "local": f"{step.at.astimezone(zone):%a %H:%M}"} for step in steps]
    return {"picture": _drawn(case, points, zone), "steps": told, "zone": zone.key, "window": name}


def _window(case: Case) -> str:
    return "new_credential" if case.fresh or case.entered else window_name(case)


def _past(db: Connection, row: Row[Any]) -> Iterator[Point]:
    yield "failed", row.failed_at
    for tried in db.execute(select(attempts.c.state, attempts.c.at).where(attempts.c.case_id == row.id)):
        yield TRIED.get(tried.state, "other attempt"), tried.at
    notices = select(outbox.c.delivered_at, outbox.c.due_at).where(outbox.c.case_id == row.id)
    for said in db.execute(notices.where(outbox.c.kind == "notice")):
        if said.delivered_at or said.due_at:
            yield ("notice", said.delivered_at) if said.delivered_at else ("notice planned", said.due_at)
    if row.closed_at:
        yield "end", row.closed_at


def _coming(steps: tuple[Step, ...]) -> Iterator[Point]:
    yield from ((PLANNED[type(step)], step.at) for step in steps if type(step) in PLANNED)


def _drawn(case: Case, points: list[Point], zone: ZoneInfo) -> Any:
    """Draw every day from the first point to the last, of a long case those around the present."""
    local = [(kind, at.astimezone(zone)) for kind, at in points]
    first, last = min(at for _, at in local).date(), max(at for _, at in local).date()
    today = min(case.now.astimezone(zone).date(), last)
    if (last - first).days >= MOST_DAYS:
        first = max(first, min(today - timedelta(days=MOST_DAYS // 3), last - timedelta(days=MOST_DAYS - 1)))
        last = min(last, first + timedelta(days=MOST_DAYS - 1))
    days = [first + DAY * number for number in range((last - first).days + 1)]
    marks = [
        {"day": _name(at.date()), "hour": at.hour + at.minute / 60, "kind": kind, "told": f"{at:%H:%M}"}
        for kind, at in local
        if first <= at.date() <= last
    ]
    opened = [stretch for day in days for stretch in _open_hours(case, day, zone)]
    return charts.calendar([_name(day) for day in days], opened, marks, zone.key)


def _name(day: date) -> str:
    return f"{day:%a} {day.day} {day:%b}"


def _open_hours(case: Case, day: date, zone: ZoneInfo) -> list[dict[str, Any]]:
    """Return the stretches of a day in which a charge may go, to half an hour."""
    window = case.policy.windows[_window(case)]
    midnight, found = datetime.combine(day, time.min, zone), list[dict[str, Any]]()
    for number in range(48):
        middle = (midnight + HALF * number + HALF / 2).astimezone(UTC)
        if not is_open(middle, window, case.place):
            continue
        if found and found[-1]["to"] == number / 2:
            found[-1]["to"] += 0.5
        else:
            found.append({"day": _name(day), "from": number / 2, "to": number / 2 + 0.5})
    return found
