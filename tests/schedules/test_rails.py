"""Are debits presented only when and as often as their scheme takes them?"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from schedules import Card, Charge, Close, Contact, Decline, FailedPayment, Policy, plan_ahead
from schedules.declines import classify
from schedules.hours import Window, is_open, next_open
from schedules.places import ZONES_OF_COUNTRY, closed_days, place_of
from schedules.policy import DeclineRule
from schedules.rails import RAILS

FUNDS = Window(time(6), time(21))
OFFICE = Window(time(8), time(18), business_days=True)
THURSDAY = datetime(2026, 4, 30, 3, 10, tzinfo=UTC)  # before Labour Day


def debit(brand: str, code: str = "insufficient_funds", policy: Policy | None = None) -> list[object]:
    """The calendar of a debit by ``brand`` that failed on a Thursday night."""
    card = Card("fp", brand)
    failed = FailedPayment("in_1", "cus_1", None, 1000, "eur", THURSDAY, Decline(code), card)
    return list(plan_ahead(failed, policy or Policy(), THURSDAY))


def charged(brand: str, code: str = "insufficient_funds", policy: Policy | None = None) -> list[datetime]:
    """When it is charged."""
    return [step.at for step in debit(brand, code, policy) if isinstance(step, Charge)]


@pytest.mark.parametrize(
    ("wall", "upi"),
    [
        ((6, 4), False),
        ((6, 5), True),
        ((9, 55), True),
        ((9, 56), False),
        ((13, 4), False),
        ((13, 5), True),
        ((16, 55), True),
        ((16, 56), False),
        ((21, 34), False),
        ((21, 35), True),
        ((23, 54), True),
    ],
)
def test_upi_is_asked_before_ten_in_the_afternoon_and_late_in_the_evening(wall: tuple[int, int], upi: bool) -> None:
    """In Indian time, five minutes inside every edge."""
    at = datetime(2026, 5, 5, *wall, tzinfo=ZoneInfo("Asia/Kolkata"))
    assert is_open(at, Window(time(6), time(23, 59, 59)), place_of(None, None, "upi")) is upi


@pytest.mark.parametrize(
    ("hour", "pix"), [(5, False), (7, True), (9, False), (17, False), (18, True), (20, True), (21, False)]
)
def test_pix_is_asked_in_the_morning_and_in_the_evening(hour: int, pix: bool) -> None:
    """In the time of Sao Paulo, where the payer is known to be."""
    at = datetime(2026, 5, 5, hour, 30, tzinfo=ZoneInfo("America/Sao_Paulo"))
    assert is_open(at, FUNDS, place_of("BR", "America/Sao_Paulo", "pix")) is pix


def test_where_window_and_rail_share_no_hour_the_window_gives_way() -> None:
    """Office hours and Pix have nothing in common over Brazil's four zones; it is asked in a Pix hour by day."""
    opened = next_open(THURSDAY, OFFICE, place_of("BR", None, "pix"), 0)
    assert opened is not None
    assert time(18, 5) <= opened.astimezone(ZoneInfo("America/Sao_Paulo")).time() <= time(20, 55)


def test_a_debit_in_euro_goes_in_before_the_cut_off_of_a_business_day() -> None:
    """From Thursday noon over Labour Day and the weekend to Monday morning."""
    noon = THURSDAY + timedelta(hours=9)
    assert next_open(noon, FUNDS, place_of("DE", None, "sepa_debit"), 0) == datetime(2026, 5, 4, 4, 5, tzinfo=UTC)
    early = THURSDAY + timedelta(hours=4)
    assert next_open(early, FUNDS, place_of("DE", None, "sepa_debit"), 0) == early


@pytest.mark.parametrize(
    ("brand", "closed"),
    [
        ("us_bank_account", (2026, 10, 12)),  # Columbus Day, kept by the Federal Reserve
        ("bacs_debit", (2026, 5, 4)),  # early May bank holiday
        ("au_becs_debit", (2026, 1, 26)),
        ("nz_bank_account", (2026, 2, 6)),
        ("acss_debit", (2026, 7, 1)),
        ("sepa_debit", (2026, 4, 3)),
    ],
)
def test_a_bank_debit_rests_on_the_holidays_of_its_clearing(brand: str, closed: tuple[int, int, int]) -> None:
    """And on the day after it goes in again."""
    place = place_of(None, None, brand)
    zone = place.zones[0]
    noon = datetime(*closed, 8, tzinfo=zone)
    assert closed_days(RAILS[brand].calendar or "", closed[0]) >= {noon.date()}
    opened = next_open(noon, FUNDS, place, 0)
    assert opened is not None
    assert opened.astimezone(zone).date() > noon.date()


@pytest.mark.parametrize(
    ("brand", "retries"),
    [
        ("us_bank_account", 2),
        ("sepa_debit", 2),
        ("bacs_debit", 2),
        ("au_becs_debit", 2),
        ("nz_bank_account", 1),
        ("acss_debit", 1),
        ("pix", 2),
    ],
)
def test_a_debit_is_presented_again_as_often_as_its_scheme_allows(brand: str, retries: int) -> None:
    """Beside the first presentation; of Pix's three only those that three days of wait leave room for in a week."""
    assert len(charged(brand)) == retries


def test_upi_takes_three_retries_where_the_policy_admits_india() -> None:
    """India is excluded unless the merchant says otherwise, by the rail's country when the method shows none."""
    assert not charged("upi")
    assert len(charged("upi", policy=Policy(excluded_countries=()))) == 3


def test_the_limit_of_a_scheme_counts_the_invoice_alone() -> None:
    """Two other debits of the same account do not stop this one; two presentations of this one do."""
    policy = Policy()
    assert all(limit.per_case for brand in RAILS for limit in policy.budgets[brand])
    assert not any(
        limit.per_case for brand in ("visa", "mastercard", "amex", "discover") for limit in policy.budgets[brand]
    )


@pytest.mark.parametrize("code", ["R01", "R09"])
def test_a_us_debit_is_presented_again_for_lack_of_funds(code: str) -> None:
    """Nacha's two codes."""
    assert classify(Decline(network_decline_code=code), "us_bank_account").decline_class == "retry_later"


@pytest.mark.parametrize("code", ["processing_error", "try_again_later", "generic_decline", "a_code_of_tomorrow"])
def test_a_us_debit_refused_otherwise_is_the_customers_to_mend(code: str) -> None:
    """Whatever the same code would allow on a card, and whatever the merchant wants."""
    assert classify(Decline(code), "us_bank_account").decline_class == "customer_action"
    assert classify(Decline(code), "visa").decline_class in ("retry_later", "retry_soon")
    own = DeclineRule("stripe_card", code, "retry_later", 3, 24).row
    assert classify(Decline(code), "us_bank_account", (own,)).decline_class == "customer_action"
    assert not charged("us_bank_account", code)


def test_pix_takes_nothing_after_a_week() -> None:
    """The case goes on to the customer."""
    steps = debit("pix")
    assert max(charged("pix")) < THURSDAY + timedelta(days=7)
    assert any(isinstance(step, Contact) for step in steps)
    assert isinstance(steps[-1], Close)


@pytest.mark.parametrize("brand", sorted(RAILS))
def test_every_rail_opens_within_a_week_in_every_window(brand: str) -> None:
    """No rail and no window leave a case waiting for ever."""
    country = RAILS[brand].country
    for each in [country] if country else ["DE", "FR", "PT", *sorted(ZONES_OF_COUNTRY)[:20]]:
        place = place_of(each, None, brand)
        for window in (FUNDS, OFFICE, Window(time(12), time(13))):
            opened = next_open(THURSDAY, window, place, 0.5)
            assert opened is not None
            assert opened < THURSDAY + timedelta(days=9)
            assert is_open(opened, window, place)
