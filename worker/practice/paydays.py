"""When does the money of a customer of the built-in world arrive?

The decision never reads this: it has to guess paydays from the outside.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import holidays

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = timedelta(days=1)
FRIDAY, SATURDAY = 4, 5


def payday_instants(
    cycle: str, offset: int, country: str, zone: str, span: tuple[datetime, datetime]
) -> list[datetime]:
    """Return local midnight of every payday in ``span``; ``offset`` tells odd weeks from even ones."""
    first, last = (edge.date() for edge in span)
    midnights = (datetime.combine(day, time(), ZoneInfo(zone)) for day in _dates(cycle, offset, country, first, last))
    return sorted(midnight.astimezone(UTC) for midnight in midnights)


def _dates(cycle: str, offset: int, country: str, first: date, last: date) -> Iterator[date]:
    if cycle in {"weekly", "biweekly"}:
        day = first + DAY * ((FRIDAY - first.weekday()) % 7 + 7 * (offset % 2) * (cycle == "biweekly"))
        while day <= last:
            yield _settled(day, country)
            day += DAY * (7 if cycle == "weekly" else 14)
        return
    for month in _months(first, last):
        yield from _in_month(cycle, month, country)


def _months(first: date, last: date) -> Iterator[date]:
    month = first.replace(day=1)
    while month <= last:
        yield month
        month = (month + 31 * DAY).replace(day=1)


def _in_month(cycle: str, month: date, country: str) -> Iterator[date]:
    end = (month + 31 * DAY).replace(day=1) - DAY
    match cycle:
        case "semi_monthly":
            yield _settled(month.replace(day=15), country)
            yield _settled(end, country)
        case "day_25":
            yield _settled(month.replace(day=25), country)
        case "fifth_business_day":
            yield _business_day(month, 5, country)
        case _:
            yield _settled(end, country)


def _settled(day: date, country: str) -> date:
    """Pay due on a weekend comes on the Friday before; on a bank holiday on the next business day."""
    if day.weekday() >= SATURDAY:
        day -= DAY * (day.weekday() - FRIDAY)
    while not _is_business_day(day, country):
        day += DAY
    return day


def _business_day(month: date, number: int, country: str) -> date:
    day = month - DAY
    while number:
        day += DAY
        number -= _is_business_day(day, country)
    return day


@lru_cache(maxsize=4096)
def _is_business_day(day: date, country: str) -> bool:
    return day.weekday() < SATURDAY and day not in _calendar(country)


@lru_cache(maxsize=64)
def _calendar(country: str) -> holidays.HolidayBase:
    return holidays.country_holidays(country, years=range(2025, 2029))
