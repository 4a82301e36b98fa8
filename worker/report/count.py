"""How does the database count a cohort? One row for each group and currency comes back, and is added up here.

All that is counted can be added; only the quantiles of the days are asked for apart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

from babel.core import get_global
from babel.numbers import get_currency_precision
from sqlalchemy import Connection, RowMapping, text

from schedules.arms import ARMS
from schedules.places import place_of
from worker.models import OPEN_STATES, OUTCOMES, UNCERTAIN
from worker.report import sql
from worker.report.figures import MEANS, Arm, Figures, Money, Period, Share
from worker.report.sql import LOCAL, Question

STATES = (*OPEN_STATES, *OUTCOMES)
UNKNOWN, ALL = "unknown", "all"
LAST_DAY, DAY = 30, timedelta(days=1)
Rows = Sequence[RowMapping]
Days = tuple[float, ...] | None


def span(db: Connection, ask: Question) -> tuple[datetime | None, datetime | None]:
    """Return when the first and the last case of the cohort failed."""
    [(first, last)] = db.execute(text(sql.WHOLE), ask.bounds)
    return first, last


def groups(db: Connection, ask: Question) -> tuple[Figures, tuple[Figures, ...]]:
    """Return the figures of the whole cohort, and those of its groups in the order in which they are told."""
    known = _known(db, ask)
    cells = _ask(db, ask, sql.CELLS, uncertain=UNCERTAIN, **known)
    speeds = _ask(db, ask, sql.SPEED, **known)
    days = {(row["whole"], row["key"]): _days(row) for row in speeds}
    total = _figures(ALL, cells, days.get((True, None)), ask)
    found: dict[Any, list[RowMapping]] = defaultdict(list)
    for cell in cells if ask.by else ():
        found[cell["key"]].append(cell)
    label = ask.dimension.label or str
    told = {
        key: _figures(UNKNOWN if key is None else label(key), own, days.get((False, key)), ask)
        for key, own in found.items()
    }
    return total, tuple(told[key] for key in _in_order(told, own=ask.dimension.label is not None))


def _days(row: RowMapping) -> Days:
    """Return the quantiles in days; None when nothing came back."""
    return tuple(round(time / DAY, 2) for time in row["times"]) if row["times"] else None


def _in_order(told: dict[Any, Figures], *, own: bool) -> list[Any]:
    """Return the groups in their own order or the largest first; what is unknown comes last."""
    known = [key for key in told if key is not None]
    ordered = sorted(known) if own else sorted(known, key=lambda key: (-told[key].cases, key))
    return [*ordered, *([None] if None in told else [])]


def _known(db: Connection, ask: Question) -> dict[str, Any]:
    """Return the parameters of a statement: bounds, and what the database does not know of currencies and clocks."""
    parameters = ask.bounds
    if ask.dimension.join == sql.CURRENCIES:
        units = {name.lower(): str(10**digits) for name, (digits, *_) in get_global("currency_fractions").items()}
        parameters["units"] = json.dumps(units)
    if LOCAL in ask.dimension.key:
        found = db.execute(text(sql.KNOWN_PLACES), ask.bounds).mappings()
        parameters["places"] = json.dumps([{**row, "zone": _zone(row)} for row in found])
    return parameters


def _zone(row: RowMapping) -> str | None:
    """Return the clock that counts for a card; None where nothing says which one."""
    place = place_of(row["country"] or None, row["time_zone"] or None, row["brand"] or None)
    return place.zones[0].key if place.country or row["time_zone"] == place.zones[0].key else None


def _ask(db: Connection, ask: Question, statement: str, **known: Any) -> Rows:
    """Return the rows that one of our statements finds."""
    cohort = sql.COHORT.format(key=ask.dimension.key, join=ask.dimension.join)
    within = sql.OF_COHORT if ask.begin or ask.end else ""
    filled = statement.format(cohort=cohort, within=within)
    return db.execute(text(filled), {**ask.bounds, **known}).mappings().all()


def _figures(group: str, cells: Rows, days: Days, ask: Question) -> Figures:
    """Add up the cells of a group."""
    return Figures(
        group=group,
        cases=_sum(cells),
        states={state: count for state in STATES if (count := _sum(c for c in cells if c["state"] == state))},
        recovered=_by_means(cells, "cases"),
        late=_sum(c for c in cells if c["state"] == "recovered" and not c["back"]),
        silent=_share(c for c in cells if not c["contacted"]),
        contacted=_share(c for c in cells if c["contacted"]),
        left_after=_sum(cells, "left_after"),
        attempts=_sum(cells, "attempts"),
        waited=_sum(cells, "waited"),
        notices=_sum(cells, "notices"),
        taken_back=_sum(cells, "gone"),
        days=days,
        value={name: _money(name, [c for c in cells if c["currency"] == name], ask) for name in _currencies(cells)},
    )


def _sum(cells: Iterable[RowMapping], what: str = "cases") -> int:
    return sum(int(cell[what]) for cell in cells)


def _by_means(cells: Rows, what: str) -> dict[str, int]:
    return {means: _sum((cell for cell in cells if cell["means"] == means), what) for means in MEANS}


def _share(cells: Iterable[RowMapping]) -> Share:
    some = list(cells)
    return Share(_sum(cell for cell in some if cell["back"]), _sum(some))


def _currencies(cells: Rows) -> list[str]:
    return sorted({cell["currency"] for cell in cells})


def _money(currency: str, cells: Rows, ask: Question) -> Money:
    """Return what failed, came back and was spent in one currency."""
    price, attempts = ask.attempt_cost.get(currency), _sum(cells, "attempts")
    minor = Decimal(10) ** get_currency_precision(currency.upper())
    cost = None if price is None else int((attempts * price * minor).to_integral_value())
    return Money(_sum(cells), _sum(cells, "amount"), _by_means(cells, "amount"), attempts, cost)


def course(db: Connection, ask: Question, step: str) -> tuple[tuple[Period, ...], dict[str, list[int]]]:
    """Return the cohort period by period, and by means how many were back by each day after their failure."""
    cells = _ask(db, replace(ask, by=None), sql.COURSE, step=step)
    begins = sorted({cell["begins"] for cell in cells})
    within = {at: [cell for cell in cells if cell["begins"] == at] for at in begins}
    periods = tuple(Period(at, _sum(own), _by_means(own, "cases")) for at, own in within.items())
    daily = [_by_means([cell for cell in cells if cell["day"] == day], "cases") for day in range(LAST_DAY + 1)]
    return periods, {means: list(accumulate(each[means] for each in daily)) for means in MEANS}


def arms(db: Connection, ask: Question) -> tuple[Arm, ...]:
    """Return the arms that have customers. A customer counts once, with the first case of the cohort.

    Customers are drawn, not cases: those of one customer are no independent trials.
    """
    found = {row["arm"]: row for row in _ask(db, replace(ask, by=None), sql.ARMS)}
    return tuple(Arm(name, Share(found[name]["recovered"], found[name]["customers"])) for name in ARMS if name in found)
