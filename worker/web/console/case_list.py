"""Which cases are there? Filtered, sorted, fifty a page."""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import timedelta
from urllib.parse import urlencode

from starlette.responses import Response

from schedules.declines import DeclineClass
from worker import repair
from worker.models import OPEN_STATES, OUTCOMES
from worker.web.console.pages import Visit, Wrong, shown

A_PAGE = 50
MOST_PAGES, LONGEST_DUE = 100_000, 24 * 365
STATES, CLASSES = (*OPEN_STATES, *OUTCOMES), [each.value for each in DeclineClass]
ASKED = ("state", "class", "customer", "account", "segment", "due", "stuck", "sort", "desc")


def view(visit: Visit) -> Response:
    """Show the cases that the address asks for."""
    given = {name: visit.request.query_params.get(name, "").strip() for name in ASKED}
    sort, number = visit.chosen("sort", repair.SORTS, "due"), _page(visit)
    wanted = repair.listed(filters(visit, given), visit.now, sort, desc=bool(given["desc"]))
    with visit.engine.connect() as db:
        rows = db.execute(wanted.limit(A_PAGE + 1).offset(A_PAGE * (number - 1))).all()
    kept = {name: value for name, value in given.items() if value}
    places = {"next": number + 1 if len(rows) > A_PAGE else None, "before": number - 1 or None}
    links = {name: f"?{urlencode({**kept, 'page': at})}" if at else None for name, at in places.items()}
    choices = {"states": STATES, "classes": CLASSES, "sorts": list(repair.SORTS)}
    told = {"rows": rows[:A_PAGE], "given": given, "number": number, "links": links}
    return shown(visit, "cases", {**told, **choices})


def filters(visit: Visit, given: dict[str, str]) -> repair.Filters:
    """Return which cases are meant; raise ``Wrong`` naming the filter that cannot be."""
    for name in (name for name, value in given.items() if not value.isprintable()):
        msg = f"{name}: expected characters that can be printed"
        raise Wrong(msg)
    chosen = {
        "state": visit.chosen("state", ("", *STATES), "") or None,
        "decline_class": visit.chosen("class", ("", *CLASSES), "") or None,
        "customer_id": given["customer"] or None,
        "account": given["account"] or None,
        "segment": given["segment"] or None,
        "due": _due(given["due"]),
        "stuck": bool(given["stuck"]),
    }
    return repair.Filters(**{each.name: chosen[each.name] for each in fields(repair.Filters)})  # type: ignore[arg-type]


def _due(given: str) -> timedelta | None:
    try:
        hours = float(given) if given else None
    except ValueError:
        hours = math.nan
    if hours is None:
        return None
    if not 0 <= hours <= LONGEST_DUE:
        msg = f"due: expected hours from 0 to {LONGEST_DUE}"
        raise Wrong(msg)
    return timedelta(hours=hours)


def _page(visit: Visit) -> int:
    given = visit.request.query_params.get("page", "1")
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST_PAGES):
        msg = f"page: expected a number from 1 to {MOST_PAGES}"
        raise Wrong(msg)
    return int(given)
