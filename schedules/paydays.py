"""When does salary arrive in a country? The days on which a card that lacked funds is most likely to have some.

Habits of employers are data: US and Canadian Fridays, the 15th and the month's end; the last working day in the UK and
most of Europe; by law the 5th working day in Brazil; the 25th in Japan, the Netherlands and Sweden. A payday that is no
working day moves to the working day before it, the way payroll moves.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

from dateutil.rrule import FR, MONTHLY, WEEKLY, rrule

from schedules.places import closed_days

DAY = timedelta(days=1)
FIFTH = 5
LAST = -1
HABITS: dict[str, tuple[str, ...]] = {
    "US": ("fridays", "15", "last"),
    "CA": ("fridays", "15", "last"),
    "AU": ("fridays",),
    "BR": ("fifth_working_day",),
    "JP": ("25",),
    "NL": ("25",),
    "SE": ("25",),
}
USUAL = ("last",)


def nearest_payday(country: str | None, day: date, reach: timedelta, earliest: date) -> date | None:
    """Return the payday of ``country`` nearest to the local ``day``, at most ``reach`` away, not before ``earliest``.

    Of two that are equally near the later one is taken; ``None`` when there is none.
    """
    months = {(edge.year, edge.month) for edge in (day - reach, day, day + reach, day + reach + 7 * DAY)}
    found = {each for year, month in months for each in _paydays(country or "", year, month)}
    near = [each for each in found if abs(each - day) <= reach and each >= earliest]
    return min(near, key=lambda each: (abs(each - day), -each.toordinal()), default=None)


@lru_cache(maxsize=4096)
def _paydays(country: str, year: int, month: int) -> tuple[date, ...]:
    """Return the paydays that belong to one month; a move may lead into the month before."""
    return tuple(each for habit in HABITS.get(country, USUAL) for each in _by_habit(habit, country, year, month))


def _by_habit(habit: str, country: str, year: int, month: int) -> list[date]:
    first = datetime(year, month, 1)  # noqa: DTZ001 - calendar days, no instants
    if habit == "fifth_working_day":
        days = rrule(MONTHLY, dtstart=first, count=31, bymonthday=range(1, 32), bymonth=month)
        return [each for each in (d.date() for d in days) if each not in closed_days(country, year)][FIFTH - 1 : FIFTH]
    if habit == "fridays":
        fridays = rrule(WEEKLY, dtstart=first, byweekday=FR, count=FIFTH)
        return [_moved(each.date(), country) for each in fridays if each.month == month]
    which = LAST if habit == "last" else int(habit)
    return [_moved(each.date(), country) for each in rrule(MONTHLY, dtstart=first, bymonthday=which, count=1)]


def _moved(day: date, country: str) -> date:
    while day in closed_days(country, day.year):
        day -= DAY
    return day
