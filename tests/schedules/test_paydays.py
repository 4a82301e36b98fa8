"""Does salary arrive on the days on which a country pays it?"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from schedules import Card, Charge, Decline, Facts, FailedPayment, Policy, next_step, plan_ahead
from schedules.paydays import habits_of, nearest_payday

REACH = timedelta(days=3)
FUNDS = Decline("insufficient_funds")


@pytest.mark.parametrize(
    ("country", "day", "payday"),
    [
        ("GB", "2026-01-28", "2026-01-30"),  # the last working day of a month that ends on a Saturday
        ("GB", "2026-05-28", "2026-05-29"),
        ("DE", "2026-12-30", "2026-12-31"),
        ("BR", "2026-01-06", "2026-01-08"),  # the 5th working day, after New Year's Day
        ("JP", "2026-01-24", "2026-01-23"),  # the 25th is a Sunday
        ("NL", "2026-02-24", "2026-02-25"),
        ("US", "2026-01-15", "2026-01-15"),
        ("US", "2026-07-03", "2026-07-02"),  # a Friday, but Independence Day is kept on it
        ("US", "2028-02-28", "2028-02-29"),
        (None, "2026-03-30", "2026-03-31"),
        ("GB", "2026-02-02", "2026-01-30"),  # over the end of a month
    ],
)
def test_the_nearest_payday_is_a_working_day_of_the_country(country: str | None, day: str, payday: str) -> None:
    """By the habit of its employers, moved to the working day before."""
    asked = date.fromisoformat(day)
    assert nearest_payday(country, habits_of(country, []), asked, REACH, date.min) == date.fromisoformat(payday)


def test_a_payday_out_of_reach_or_too_early_is_none() -> None:
    """At the last day within reach there is one, a day further there is none, nor before the earliest day allowed."""
    payday = date(2026, 1, 30)
    assert nearest_payday("GB", ["last"], payday - REACH, REACH, date.min) == payday
    assert nearest_payday("GB", ["last"], payday - REACH - timedelta(days=1), REACH, date.min) is None
    assert nearest_payday("GB", ["last"], payday + REACH, REACH, payday) == payday
    assert nearest_payday("GB", ["last"], payday + REACH, REACH, payday + timedelta(days=1)) is None


def test_of_two_paydays_equally_near_the_later_is_taken() -> None:
    """Money that has just come is better than money that came days ago."""
    assert nearest_payday("US", ["fridays", "15"], date(2026, 1, 12), timedelta(days=4), date.min) == date(2026, 1, 15)
    assert nearest_payday("BR", ["fifth_working_day"], date(2026, 1, 8), timedelta(0), date.min) == date(2026, 1, 8)


def first_charge(funding: str, policy: Policy, decline: Decline = FUNDS, day: int = 26) -> Charge:
    """Return the first retry of a British card that failed on Monday 26 January 2026, or on another day."""
    card = Card("fp", "visa", funding, "GB", 1, 2028)
    failed = datetime(2026, 1, day, 3, 10, tzinfo=UTC)
    payment = FailedPayment("in_1", "cus_1", "sub_1", 1000, "gbp", failed, decline, card)
    return next(step for step in plan_ahead(payment, policy, failed) if isinstance(step, Charge))


@pytest.mark.parametrize(("funding", "day"), [("debit", 30), ("prepaid", 30), ("credit", 29), ("unknown", 29)])
def test_a_card_without_funds_is_charged_on_payday_if_salary_arrives_on_it(funding: str, day: int) -> None:
    """The retry of Thursday waits for Friday; a credit card has no payday."""
    charge = first_charge(funding, Policy())
    assert charge.at.day == day
    assert any(reason.startswith("payday: 2026-01-30") for reason in charge.reasons) == (day == 30)


def test_only_lack_of_funds_waits_for_a_payday() -> None:
    """An unexplained refusal is charged when it would be anyway."""
    unexplained = Decline("do_not_honor")
    without = first_charge("debit", Policy(payday_reach_days=0), unexplained)
    assert first_charge("debit", Policy(), unexplained) == without


def test_a_merchant_can_switch_paydays_off() -> None:
    """With no reach every retry keeps its gap."""
    assert first_charge("debit", Policy(payday_reach_days=0)).at.day == 29


def test_a_payday_never_brings_a_charge_before_the_wait_of_its_advice() -> None:
    """Mastercard advice 28 asks for six days: Friday the 30th is too early."""
    card = Card("fp", "mastercard", "debit", "GB", 1, 2028)
    failed = datetime(2026, 1, 26, 3, 10, tzinfo=UTC)
    declined = Decline("insufficient_funds", network_advice_code="28")
    payment = FailedPayment("in_1", "cus_1", "sub_1", 1000, "gbp", failed, declined, card)
    charge = next(step for step in plan_ahead(payment, Policy(), failed) if isinstance(step, Charge))
    assert charge.at >= failed + timedelta(hours=144)


def test_no_notice_is_risked_by_waiting_for_a_payday() -> None:
    """A retry within the silent days is not moved behind their end."""
    assert first_charge("debit", Policy(silent_days=10), day=25).at.day == 30
    assert first_charge("debit", Policy(silent_days=4), day=25).at.day == 28


def days(*dates: str) -> list[date]:
    """Local days from their ISO texts."""
    return [date.fromisoformat(each) for each in dates]


@pytest.mark.parametrize(
    ("country", "recovered", "habits"),
    [
        ("GB", [], ("last",)),
        ("GB", days("2026-01-28", "2026-02-28", "2026-04-29"), ("28",)),  # a Saturday's pay comes on Friday
        ("GB", days("2026-01-10", "2026-02-10", "2026-03-11"), ("10",)),
        ("GB", days("2026-01-10", "2026-02-10"), ("last",)),  # two prove nothing
        ("GB", days("2026-01-10", "2026-01-10", "2026-01-10"), ("last",)),  # one month proves nothing
        ("GB", days("2026-01-10", "2026-02-10", "2026-03-21"), ("last",)),  # no pattern
        ("GB", days("2026-01-08", "2026-01-15", "2026-01-29", "2026-02-06"), ("thursdays",)),
        ("GB", days("2026-01-08", "2026-01-15", "2026-01-29"), ("last",)),
        ("DE", days("2026-01-30", "2026-02-27", "2026-03-31"), ("last",)),
        ("US", days("2026-02-26", "2026-03-25", "2026-06-25"), ("25",)),
        ("US", [], ("fridays", "1", "15", "last")),
        (None, [], ("last",)),
    ],
)
def test_a_customers_own_recoveries_show_when_they_are_paid(
    country: str, recovered: list[date], habits: tuple[str, ...]
) -> None:
    """On the payday or the day after, each time, in three months or four weeks; else as the country pays."""
    assert habits_of(country, recovered) == habits


def test_the_first_minutes_of_a_payday_are_used_where_the_merchant_wants_it() -> None:
    """From 00:06 to 00:25 in Britain; by default the morning of the day."""
    charge = first_charge("debit", Policy(payday_midnight=True))
    assert datetime(2026, 1, 30, 0, 6, tzinfo=UTC) <= charge.at <= datetime(2026, 1, 30, 0, 25, tzinfo=UTC)
    assert first_charge("debit", Policy()).at >= datetime(2026, 1, 30, 6, 5, tzinfo=UTC)


@pytest.mark.parametrize("funding", ["prepaid", "credit"])
def test_only_debit_cards_are_asked_at_midnight(funding: str) -> None:
    """Salary arrives on the account behind a debit card."""
    assert first_charge(funding, Policy(payday_midnight=True)) == first_charge(funding, Policy())


def test_a_missed_midnight_waits_for_the_morning_and_not_for_the_next_midnight() -> None:
    """Looked at only at two in the night of the payday."""
    card = Card("fp", "visa", "debit", "GB", 1, 2028)
    failed = datetime(2026, 1, 26, 3, 10, tzinfo=UTC)
    payment = FailedPayment("in_1", "cus_1", "sub_1", 1000, "gbp", failed, FUNDS, card)
    late = datetime(2026, 1, 30, 2, tzinfo=UTC)
    step = next_step(Facts(payment, card, refreshed_at=failed, uses=(failed,)), Policy(payday_midnight=True), late)
    assert isinstance(step, Charge)
    assert datetime(2026, 1, 30, 6, 5, tzinfo=UTC) <= step.at < datetime(2026, 1, 30, 9, tzinfo=UTC)


def test_a_payday_on_a_holiday_is_paid_on_the_working_day_before() -> None:
    """Christmas Day 2026 is a Friday: the Dutch 25th comes on the 24th."""
    assert nearest_payday("NL", ["25"], date(2026, 12, 26), REACH, date.min) == date(2026, 12, 24)
