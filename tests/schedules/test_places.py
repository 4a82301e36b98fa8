"""Are banks looked for in the right clocks, and left alone on the days their country does not work?"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest

from schedules.places import COUNTRY_OF_ZONE, closed_days, place_of


@pytest.mark.parametrize(
    ("country", "zone", "expected"),
    [
        ("US", "America/Denver", ("America/Denver",)),
        ("us", "America/Boise", ("America/Boise",)),
        ("US", "US/Pacific", ("US/Pacific",)),
        ("IN", "Asia/Calcutta", ("Asia/Calcutta",)),
        ("DE", "America/Denver", ("Europe/Berlin",)),
        ("ID", "Europe/Berlin", ("Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura")),
        (None, "Asia/Tokyo", ("Asia/Tokyo",)),
        ("XX", "Asia/Tokyo", ("Asia/Tokyo",)),
        (None, "Etc/GMT+5", ("Etc/GMT+5",)),
        (None, None, ("UTC",)),
        (None, "Mars/Olympus", ("UTC",)),
        (None, "../../etc/passwd", ("UTC",)),
        (None, "America", ("UTC",)),
        (None, "localtime", ("UTC",)),
        ("", "", ("UTC",)),
    ],
)
def test_a_place_is_the_country_helped_by_the_customers_zone(
    country: str | None, zone: str | None, expected: tuple[str, ...]
) -> None:
    """The zone counts inside the card's country; a bad name counts as not known."""
    assert tuple(each.key for each in place_of(country, zone).zones) == expected


@pytest.mark.parametrize(
    ("country", "day", "expected"),
    [
        ("SA", (2026, 10, 30), False),  # Friday
        ("SA", (2026, 11, 1), True),  # Sunday
        ("EG", (2026, 10, 31), False),
        ("IL", (2026, 10, 30), False),
        ("IL", (2026, 11, 1), True),
        ("AE", (2026, 10, 30), True),
        ("AE", (2026, 11, 1), False),
        ("DE", (2026, 10, 31), False),  # Saturday
        ("DE", (2026, 12, 25), False),
        ("GB", (2026, 12, 28), False),  # Boxing Day, observed
        ("SE", (2026, 12, 31), False),  # bank holiday only
        ("CN", (2026, 10, 5), False),
        ("XX", (2026, 12, 25), True),  # no such country: weekends only
        ("XX", (2026, 12, 26), False),
    ],
)
def test_business_days_follow_the_countrys_weekend_and_holidays(
    country: str,
    day: tuple[int, int, int],
    expected: bool,
) -> None:
    """Friday and Saturday where that is the weekend; public and bank holidays; otherwise Saturday and Sunday."""
    assert (date(*day) not in closed_days(country, day[0])) is expected


@pytest.mark.parametrize("year", [1999, 2026, 2036, 2060])
def test_no_calendar_warns(year: int) -> None:
    """India's list of holidays ends in 2035; warnings are errors here."""
    assert {date(year, 1, day) for day in range(1, 8)} & closed_days("IN", year)


def test_zones_that_stand_for_others_showed_the_same_clock_through_2025() -> None:
    """Read from the tzdata package, whose past does not change."""

    def clock(name: str) -> list[timedelta | None]:
        with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as stream:
            zone = ZoneInfo.from_file(stream)
        return [
            (datetime(2025, 1, 1, tzinfo=UTC) + day * timedelta(days=1)).astimezone(zone).utcoffset()
            for day in range(365)
        ]

    lines = files("schedules").joinpath("country_zones.csv").read_text(encoding="utf-8").splitlines()[1:]
    for country, zone, same_as in (line.split(",") for line in lines):
        assert COUNTRY_OF_ZONE[same_as] == country
        assert zone == same_as or clock(zone) == clock(same_as), zone
