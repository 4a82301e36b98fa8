"""Where is a bank: which clocks does its country keep, and on which days does it work?

A bank is known by the country of its card. ``country_zones.csv`` lists every zone of tzdata's ``zone.tab`` (public
domain) and its older names, each with the zone of that country whose clock agrees from 2025 through 2037, the most
populous first. A country may keep several.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import holidays

from schedules.rails import RAILS, Rail

DAY = timedelta(days=1)
MARKETS = ("ECB", "FED")
WEEKEND = (5, 6)  # Saturday and Sunday, where nothing better is known
# Years outside these make the holidays package warn that its list is not complete: then no holiday is known.
HOLIDAY_YEARS = {"IN": range(2001, 2036)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bank or a customer is: the country whose holidays count, and its zones, the most populous first.

    ``rail`` is the scheme that a debit goes by, ``None`` for cards.
    """

    country: str | None
    zones: tuple[ZoneInfo, ...]
    rail: Rail | None = None


def _read_zones() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The country of each zone (empty: none), and the zones that stand for each country."""
    text = files("schedules").joinpath("country_zones.csv").read_text(encoding="utf-8")
    country_of: dict[str, str] = {}
    standing: dict[str, tuple[str, ...]] = {}
    for row in csv.DictReader(text.splitlines()):
        country_of[row["zone"]] = row["country"]
        if row["country"] and row["zone"] == row["same_as"]:
            standing[row["country"]] = (*standing.get(row["country"], ()), row["zone"])
    return country_of, standing


COUNTRY_OF_ZONE, ZONES_OF_COUNTRY = _read_zones()


@lru_cache(maxsize=4096)
def place_of(country: str | None, time_zone: str | None, brand: str | None = None) -> Place:
    """Where a card of ``country`` (ISO 3166-1 alpha-2) is, helped by the customer's ``time_zone`` (tz database name).

    The zone decides when it lies in the country or the country is not known; a name that is in no table counts as
    not known, and with nothing known the place is UTC. ``brand`` names the rail of a debit, whose country counts
    where the method shows none.
    """
    rail = RAILS.get((brand or "").lower())
    country = country.strip().upper() if country else (rail.country if rail else None)
    zone = time_zone if time_zone in COUNTRY_OF_ZONE else None
    zones = ZONES_OF_COUNTRY.get(country or "", ())
    if zone and (not zones or COUNTRY_OF_ZONE[zone] == country):
        zones = (zone,)
    return Place(country or None, tuple(ZoneInfo(name) for name in zones or (rail.zone if rail else "UTC",)), rail)


@lru_cache(maxsize=1024)
def closed_days(country: str, year: int) -> frozenset[date]:
    """Weekends, public and bank holidays of ``country`` in ``year``; Saturdays and Sundays if it is not known.

    Instead of a country a financial market can be named, such as ``ECB`` for the clearing in euro.
    """
    days = [date(year, 1, 1) + ahead * DAY for ahead in range((date(year + 1, 1, 1) - date(year, 1, 1)).days)]
    calendar = _calendar(country, year)
    if calendar is None:
        return frozenset(day for day in days if day.weekday() in WEEKEND)
    return frozenset(day for day in days if not calendar.is_working_day(day))


def _calendar(country: str, year: int) -> holidays.HolidayBase | None:
    """The business calendar of one year, or ``None`` if the country is not known. Never filled later by a lookup."""
    if country in MARKETS:
        return holidays.financial_holidays(country, years=year, expand=False)
    if country not in holidays.list_supported_countries(include_aliases=False):
        return None
    kinds = holidays.country_holidays(country, expand=False).supported_categories
    return holidays.country_holidays(
        country,
        years=year if year in HOLIDAY_YEARS.get(country, (year,)) else None,
        expand=False,
        categories=[kind for kind in (holidays.PUBLIC, holidays.BANK) if kind in kinds],
    )
