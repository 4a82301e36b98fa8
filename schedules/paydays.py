"""When does salary arrive? The days on which a card that lacked funds is most likely to have some.

Habits of employers are data: US and Canadian Fridays, the 1st, the 15th and the month's end; the last working day in
the UK and most of Europe; by law the 5th working day in Brazil; the 25th in Japan, the Netherlands and Sweden. A payday
that is no working day moves to the working day before it, the way payroll moves. What earlier recoveries of a customer
show stands before the habit of the country.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache

from dateutil.rrule import FR, MO, MONTHLY, TH, TU, WE, WEEKLY, rrule

from schedules.places import closed_days

DAY = timedelta(days=1)
FIFTH = 5
LAST = -1
WEEKLY_HABITS = {"mondays": MO, "tuesdays": TU, "wednesdays": WE, "thursdays": TH, "fridays": FR}
MONTHLY_HABITS = ("last", "fifth_working_day", *(str(day) for day in range(1, 29)))
HABITS: dict[str, tuple[str, ...]] = {
    "US": ("fridays", "1", "15", "last"),
    "CA": ("fridays", "1", "15", "last"),
    "AU": ("fridays",),
    "BR": ("fifth_working_day",),
    "JP": ("25",),
    "NL": ("25",),
    "SE": ("25",),
}
USUAL = ("last",)
# So few recoveries prove a habit: by chance three meet one of a month's days, or four a weekday, once in forty times.
LEAST_MONTHLY, LEAST_WEEKLY = 3, 4


def habits_of(country: str | None, recovered: Sequence[date]) -> tuple[str, ...]:
    """Return when a customer is paid: as the local days of their earlier recoveries show, else as in their country.

    A habit is shown when every one of the days is its payday or the day after, in enough different months or weeks.
    """
    months, weeks = {(day.year, day.month) for day in recovered}, {day.isocalendar()[:2] for day in recovered}
    candidates = [*MONTHLY_HABITS] if len(months) >= LEAST_MONTHLY else []
    candidates += [*WEEKLY_HABITS] if len(weeks) >= LEAST_WEEKLY else []
    for habit in candidates:
        if all(_soon_after(habit, country or "", day) for day in recovered):
            return (habit,)
    return HABITS.get(country or "", USUAL)


def _soon_after(habit: str, country: str, day: date) -> bool:
    """Whether the day or the one before it is a payday; a move may have led it into the month before."""
    months = {(near.year, near.month) for near in (day - DAY, day, day + 7 * DAY)}
    return not {day, day - DAY}.isdisjoint(each for month in months for each in _paydays(habit, country, *month))


def nearest_payday(
    country: str | None, habits: Sequence[str], day: date, reach: timedelta, earliest: date
) -> date | None:
    """Return the payday by ``habits`` nearest to the local ``day``, at most ``reach`` away, not before ``earliest``.

    Of two that are equally near the later one is taken; ``None`` when there is none.
    """
    months = {(edge.year, edge.month) for edge in (day - reach, day, day + reach, day + reach + 7 * DAY)}
    found = {each for habit in habits for month in months for each in _paydays(habit, country or "", *month)}
    near = [each for each in found if abs(each - day) <= reach and each >= earliest]
    return min(near, key=lambda each: (abs(each - day), -each.toordinal()), default=None)


def latest_payday(country: str | None, habits: Sequence[str], day: date, reach: int) -> date | None:
    """Return the latest payday by ``habits`` on the local ``day`` or at most ``reach`` days before it, or None."""
    months = {(near.year, near.month) for near in (day - reach * DAY, day, day + 7 * DAY)}
    found = {each for habit in habits for month in months for each in _paydays(habit, country or "", *month)}
    return max((each for each in found if timedelta() <= day - each <= reach * DAY), default=None)


@lru_cache(maxsize=16384)
def paydays_after(country: str | None, habits: Sequence[str], day: date, reach: int) -> tuple[date, ...]:
    """Return the paydays by ``habits`` (a tuple) after the local ``day``, at most ``reach`` days later, in order."""
    months = {(near.year, near.month) for near in (day + days * DAY for days in range(0, reach + 8, 7))}
    found = {each for habit in habits for month in months for each in _paydays(habit, country or "", *month)}
    return tuple(sorted(each for each in found if timedelta() < each - day <= reach * DAY))


@lru_cache(maxsize=16384)
def _paydays(habit: str, country: str, year: int, month: int) -> tuple[date, ...]:
    """Return the paydays that belong to one month; a move may lead into the month before."""
    first = datetime(year, month, 1)  # noqa: DTZ001 - calendar days, no instants
    if habit == "fifth_working_day":
        days = rrule(MONTHLY, dtstart=first, count=31, bymonthday=range(1, 32), bymonth=month)
        working = [each for each in (d.date() for d in days) if each not in closed_days(country, year)]
        return tuple(working[FIFTH - 1 : FIFTH])
    if habit in WEEKLY_HABITS:
        found = rrule(WEEKLY, dtstart=first, byweekday=WEEKLY_HABITS[habit], count=FIFTH)
        return tuple(_moved(each.date(), country) for each in found if each.month == month)
    which = LAST if habit == "last" else int(habit)
    return tuple(_moved(each.date(), country) for each in rrule(MONTHLY, dtstart=first, bymonthday=which, count=1))


def _moved(day: date, country: str) -> date:
    while day in closed_days(country, day.year):
        day -= DAY
    return day
