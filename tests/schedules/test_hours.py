"""Are banks asked only inside their hours, in their own clock, whatever the clock does?"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.hours import Window, is_open, next_open, night
from schedules.places import COUNTRY_OF_ZONE, ZONES_OF_COUNTRY, Place, place_of

DAYTIME = Window(time(9), time(17))
BUSINESS = Window(time(9), time(17), business_days=True)
FUNDS = Window(time(6), time(21))
MINUTE = timedelta(minutes=1)
BERLIN = place_of("DE", None)


def local(zone: str, *parts: int, fold: int = 0) -> datetime:
    """The UTC instant at which ``zone`` shows this wall time."""
    return datetime(*parts, tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)  # type: ignore[misc,arg-type]


def first_open(at: datetime, window: Window, place: Place) -> datetime:
    """The first open minute at or after ``at``, found by trying each."""
    while not is_open(at, window, place):
        at += MINUTE
    return at


@pytest.mark.parametrize(
    ("minute", "expected"),
    [((9, 0), False), ((9, 4), False), ((9, 5), True), ((12, 0), True), ((16, 55), True), ((16, 56), False)],
)
def test_a_window_is_open_five_minutes_inside_both_edges(minute: tuple[int, int], expected: bool) -> None:
    """The last and the first minutes are left to clocks that differ."""
    assert is_open(local("Europe/Berlin", 2026, 11, 4, *minute), DAYTIME, BERLIN) is expected


def test_a_window_to_midnight_closes_before_the_day_does() -> None:
    """The end of the day is an edge like any other."""
    late = Window(time(20), time(23, 59, 59))
    assert is_open(local("Europe/Berlin", 2026, 11, 4, 23, 54), late, BERLIN)
    assert not is_open(local("Europe/Berlin", 2026, 11, 4, 23, 55), late, BERLIN)


@pytest.mark.parametrize(
    ("opens", "closes"),
    [(time(17), time(9)), (time(9), time(9)), (time(9), time(9, 10)), (time(9, tzinfo=UTC), time(17))],
)
def test_a_window_that_never_opens_is_refused(opens: time, closes: time) -> None:
    """Hours run forward within one local day and outlast both edges."""
    with pytest.raises(ValueError, match="local time"):
        Window(opens, closes)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    """A spread of 1 would land on the edge."""
    with pytest.raises(ValueError, match="fraction"):
        next_open(local("Europe/Berlin", 2026, 11, 4, 2), DAYTIME, BERLIN, fraction)


def test_an_instant_without_a_zone_is_refused() -> None:
    """Naive times have no place here."""
    with pytest.raises(ValueError, match="time zone"):
        is_open(datetime(2026, 11, 4, 12), DAYTIME, BERLIN)  # noqa: DTZ001 - the point of the test


def test_an_open_instant_stays_and_a_closed_one_moves_to_the_opening() -> None:
    """Before the window: today; after it: tomorrow."""
    noon = local("Europe/Berlin", 2026, 11, 4, 12)
    assert next_open(noon, DAYTIME, BERLIN, 0.9) == noon
    for closed, day in (((2026, 11, 4, 3), 4), ((2026, 11, 4, 9, 2), 4), ((2026, 11, 4, 17), 5)):
        assert next_open(local("Europe/Berlin", *closed), DAYTIME, BERLIN, 0) == local(
            "Europe/Berlin", 2026, 11, day, 9, 5
        )


def test_a_batch_is_spread_over_the_beginning_of_the_stretch() -> None:
    """By a share of two hours, or of the stretch when that is shorter."""
    at = local("Europe/Berlin", 2026, 11, 4, 3)
    assert next_open(at, DAYTIME, BERLIN, 0.5) == local("Europe/Berlin", 2026, 11, 4, 10, 5)
    assert next_open(at, DAYTIME, BERLIN, 0.5, timedelta(0)) == local("Europe/Berlin", 2026, 11, 4, 9, 5)
    assert next_open(at, Window(time(9), time(10)), BERLIN, 0.5) == local("Europe/Berlin", 2026, 11, 4, 9, 30)


@pytest.mark.parametrize(
    ("zone", "country", "day"),
    [
        ("Europe/Berlin", "DE", (2027, 3, 28)),
        ("Europe/Berlin", "DE", (2026, 10, 25)),
        ("America/New_York", "US", (2027, 3, 14)),
        ("America/New_York", "US", (2026, 11, 1)),
        ("Australia/Lord_Howe", "AU", (2027, 4, 4)),
    ],
)
def test_hours_hold_on_days_of_23_and_25_hours(zone: str, country: str, day: tuple[int, int, int]) -> None:
    """Opening and closing follow the wall clock, not a count of hours from midnight."""
    place = place_of(country, zone)
    assert next_open(local(zone, *day), DAYTIME, place, 0) == local(zone, *day, 9, 5)
    assert is_open(local(zone, *day, 16, 55), DAYTIME, place)
    assert not is_open(local(zone, *day, 16, 56), DAYTIME, place)


def test_an_opening_inside_the_gap_is_the_first_real_minute_after_it() -> None:
    """On 28 March 2027 there is no 02:30 in Berlin."""
    early = Window(time(2, 25), time(4))
    assert next_open(local("Europe/Berlin", 2027, 3, 28), early, BERLIN, 0) == local("Europe/Berlin", 2027, 3, 28, 3)


def test_a_window_inside_the_gap_opens_on_the_next_day() -> None:
    """The hour it asks for does not exist on that date."""
    early = Window(time(2, 10), time(2, 50))
    start = local("Europe/Berlin", 2027, 3, 28)
    assert next_open(start, early, BERLIN, 0) == local("Europe/Berlin", 2027, 3, 29, 2, 15)


def test_a_repeated_hour_is_open_both_times() -> None:
    """On 25 October 2026 Berlin shows 02:00 to 03:00 twice; between 02:25 and the second 02:05 it is closed."""
    early = Window(time(2), time(2, 30))
    first = next_open(local("Europe/Berlin", 2026, 10, 25), early, BERLIN, 0)
    second = next_open(local("Europe/Berlin", 2026, 10, 25, 2, 40), early, BERLIN, 0)
    assert first == local("Europe/Berlin", 2026, 10, 25, 2, 5)
    assert second == local("Europe/Berlin", 2026, 10, 25, 2, 5, fold=1)
    assert second - first == timedelta(hours=1)


@pytest.mark.parametrize(
    ("zone", "country", "day"),
    [
        ("America/Asuncion", "PY", (2023, 10, 1)),
        ("America/Santiago", "CL", (2026, 9, 6)),
        ("America/Havana", "CU", (2026, 3, 8)),
        ("Asia/Beirut", "LB", (2026, 3, 29)),
        ("Africa/Cairo", "EG", (2026, 4, 24)),
    ],
)
def test_a_day_that_skips_midnight_opens_at_its_first_real_minute(
    zone: str, country: str, day: tuple[int, int, int]
) -> None:
    """The date begins at 01:00 there; a window from 00:00 opens then, one from 09:00 as always."""
    place = place_of(country, zone)
    before = local(zone, *day, 12) - timedelta(hours=13)
    assert next_open(before, Window(time(0), time(3)), place, 0) == local(zone, *day, 1)
    assert next_open(before, DAYTIME, place, 0) == local(zone, *day, 9, 5)


def test_half_hour_offsets_are_kept() -> None:
    """India is five and a half hours ahead."""
    at = datetime(2026, 11, 4, 0, 0, tzinfo=UTC)
    assert next_open(at, DAYTIME, place_of("IN", None), 0) == datetime(2026, 11, 4, 3, 35, tzinfo=UTC)


def test_the_united_states_are_asked_when_every_zone_is_open() -> None:
    """New York to Honolulu and Adak share the afternoon of the east: nothing earlier."""
    place = place_of("US", None)
    assert [zone.key for zone in place.zones[:3]] == ["America/New_York", "America/Chicago", "America/Los_Angeles"]
    assert len(place.zones) == 8
    at = local("America/New_York", 2026, 7, 8)
    opened = next_open(at, FUNDS, place, 0)
    assert opened == local("Pacific/Honolulu", 2026, 7, 8, 6, 5)
    assert all(FUNDS.safe[0] <= opened.astimezone(zone).time() <= FUNDS.safe[1] for zone in place.zones)


def test_russia_shares_no_office_hour_so_moscow_decides_and_nobody_sleeps() -> None:
    """Eleven zones over ten hours: rule 2."""
    place = place_of("RU", None)
    assert len(place.zones) == 11
    at = local("Europe/Moscow", 2026, 11, 3, 20)
    assert next_open(at, BUSINESS, place, 0) == local("Europe/Moscow", 2026, 11, 5, 9, 5)  # the 4th is a holiday
    assert is_open(local("Europe/Moscow", 2026, 11, 5, 15, 29), BUSINESS, place)
    assert not is_open(local("Europe/Moscow", 2026, 11, 5, 15, 30), BUSINESS, place)  # 00:30 in Kamchatka
    assert night(local("Europe/Moscow", 2026, 11, 5, 15, 30), place)


def test_where_even_the_nights_leave_nothing_the_last_zones_are_forgiven() -> None:
    """A New York morning is night in Hawaii: rule 3 keeps New York's window all the same."""
    place, morning = place_of("US", None), Window(time(9), time(12))
    opened = next_open(local("America/New_York", 2026, 7, 8), morning, place, 0)
    assert opened is not None
    assert time(9, 5) <= opened.astimezone(place.zones[0]).time() <= time(11, 55)
    assert not night(opened, Place("US", place.zones[:3]))


@pytest.mark.parametrize("country", sorted(ZONES_OF_COUNTRY))
def test_every_country_opens_within_a_fortnight(country: str) -> None:
    """No window and no place leave a case waiting for ever."""
    at = datetime(2026, 10, 28, 0, 0, tzinfo=UTC)
    for window in (DAYTIME, BUSINESS, FUNDS, Window(time(3), time(3, 30))):
        opened = next_open(at, window, place_of(country, None), 0.99)
        assert opened is not None
        assert opened < at + timedelta(days=14)
        assert is_open(opened, window, place_of(country, None))


def test_a_holiday_moves_a_business_window_and_no_other() -> None:
    """From the evening before Christmas to the Monday after it."""
    at = local("Europe/Berlin", 2026, 12, 24, 20)
    assert next_open(at, BUSINESS, BERLIN, 0) == local("Europe/Berlin", 2026, 12, 28, 9, 5)
    assert next_open(at, DAYTIME, BERLIN, 0) == local("Europe/Berlin", 2026, 12, 25, 9, 5)


def test_the_weekend_is_that_of_the_local_date() -> None:
    """Sunday evening in UTC is Monday morning in Tokyo."""
    at = datetime(2026, 11, 8, 20, 0, tzinfo=UTC)
    assert next_open(at, BUSINESS, place_of("JP", None), 0) == datetime(2026, 11, 9, 0, 5, tzinfo=UTC)


def test_the_29th_of_february_is_a_day_like_others() -> None:
    """A Tuesday in 2028."""
    at = local("Europe/Berlin", 2028, 2, 28, 20)
    assert next_open(at, BUSINESS, BERLIN, 0) == local("Europe/Berlin", 2028, 2, 29, 9, 5)


@pytest.mark.parametrize(("hour", "minute", "expected"), [(0, 29, False), (0, 30, True), (5, 59, True), (6, 0, False)])
def test_night_lasts_from_half_past_midnight_to_six(hour: int, minute: int, expected: bool) -> None:
    """In the local clock."""
    assert night(local("Europe/Berlin", 2026, 11, 4, hour, minute), BERLIN) is expected


INSTANTS = st.datetimes(datetime(2025, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive by contract
WALLS = st.integers(0, 1439)
WINDOWS = (
    st.builds(lambda a, b, days: (min(a, b), max(a, b), days), WALLS, WALLS, st.booleans())
    .filter(lambda w: w[1] - w[0] > 10)
    .map(lambda w: Window(time(*divmod(w[0], 60)), time(*divmod(w[1], 60)), w[2]))
)
PLACES = st.builds(
    place_of,
    st.none() | st.sampled_from(sorted(ZONES_OF_COUNTRY)),
    st.none() | st.sampled_from(sorted(COUNTRY_OF_ZONE)),
)
FRACTIONS = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)  # the first look into a year builds its calendar
@given(INSTANTS, WINDOWS, PLACES, FRACTIONS)
def test_the_next_open_instant_is_open_later_and_final(
    at: datetime, window: Window, place: Place, fraction: float
) -> None:
    """For any window anywhere; asked again it stays, and the offset ``at`` is written with does not matter."""
    opened = next_open(at, window, place, fraction)
    assert opened is not None
    assert opened >= at
    assert is_open(opened, window, place)
    assert next_open(opened, window, place, fraction) == opened
    assert next_open(at.astimezone(timezone(timedelta(hours=-7))), window, place, fraction) == opened
    if opened != at:
        assert not is_open(at, window, place)


@settings(deadline=None)  # the first look into a year builds its calendar
@given(INSTANTS, WINDOWS, st.sampled_from(sorted(COUNTRY_OF_ZONE)))
def test_in_one_zone_no_earlier_minute_was_open(at: datetime, window: Window, zone: str) -> None:
    """The same answer as trying every minute."""
    at = at.replace(second=0, microsecond=0)
    daily = Window(window.opens, window.closes)
    place = place_of(None, zone)
    assert next_open(at, daily, place, 0) == first_open(at, daily, place)
