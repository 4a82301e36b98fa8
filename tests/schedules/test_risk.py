"""How likely is a subscription lost to a payment, and what does it say of why?"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.risk import RULES, TABLE, chance, score, usual_parts
from schedules.subscriber import LONG, SHORT, Subscriber

TODAY = date(2026, 2, 1)
USUAL = Subscriber(
    at=TODAY,
    since=date(2025, 1, 1),
    next_charge=date(2026, 2, 15),
    method="card",
    funding="credit",
    valid_until=date(2029, 1, 1),
    country="US",
    currency="usd",
    relative=1.0,
    paid=date(2026, 1, 15),
)
DAYS = st.integers(-400, 400).map(lambda days: TODAY + timedelta(days=days))
SOMEBODY = st.builds(
    Subscriber,
    at=st.just(TODAY),
    since=st.integers(0, 900).map(lambda days: TODAY - timedelta(days=days)),
    next_charge=st.none() | st.integers(0, 400).map(lambda days: TODAY + timedelta(days=days)),
    every=st.sampled_from((7, 30, 91, 365)),
    ends=st.none() | st.integers(0, 200).map(lambda days: TODAY + timedelta(days=days)),
    method=st.sampled_from((None, "card", "sepa_debit")),
    funding=st.sampled_from((None, "credit", "debit", "prepaid")),
    valid_until=st.none() | DAYS,
    country=st.sampled_from((None, "US", "DE", "JP")),
    relative=st.none() | st.floats(0, 10),
    declines=st.integers(0, 9),
    recovered=st.integers(0, 9),
    unpaid=st.none() | st.integers(0, 60).map(lambda days: TODAY - timedelta(days=days)),
    cause=st.sampled_from((None, "funds", "credential", "technical")),
    paid=st.none() | st.integers(0, 90).map(lambda days: TODAY - timedelta(days=days)),
    other=st.booleans(),
)


@given(SOMEBODY)
def test_chances_are_chances_and_never_fall_with_time(seen: Subscriber) -> None:
    """What is lost within 30 days is lost within 90; there are three reasons at most."""
    found = score(seen)
    assert 0 <= found.chance_30 <= found.chance_90 <= 1
    assert len(found.reasons) <= 3


@given(SOMEBODY)
def test_what_was_seen_is_read_back_the_same(seen: Subscriber) -> None:
    """As it is stored, to learn from later."""
    assert Subscriber.of(seen.as_json()) == seen


@pytest.mark.parametrize(
    "worse",
    [
        {"valid_until": date(2026, 2, 15)},  # expired on the day of the charge, though not in the month before
        {"valid_until": date(2026, 2, 1)},
        {"method": None},
        {"funding": "prepaid"},
        {"declines": 2},
        {"unpaid": date(2026, 1, 28), "cause": "funds"},
        {"mandate": "inactive"},
    ],
)
def test_what_endangers_a_charge_raises_the_chance(worse: dict[str, Any]) -> None:
    """Each by itself, and says so first."""
    usual = usual_parts(RULES, [USUAL])
    found = score(replace(USUAL, **worse), usual=usual)
    assert found.chance_90 > score(USUAL).chance_90
    assert found.reasons
    assert score(USUAL, usual=usual).reasons == ()


def test_an_expiry_counts_by_the_charge_and_not_by_the_calendar() -> None:
    """A card that expires this month, but after the charge, is as good as any other for that one."""
    before, after = (replace(USUAL, valid_until=USUAL.next_charge, every=365), replace(USUAL, every=365))
    late = replace(USUAL, valid_until=date(2026, 6, 1), every=365)
    assert chance(RULES, before, LONG) > chance(RULES, after, LONG) == chance(RULES, late, LONG)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"next_charge": None}, "no next charge is planned"),
        ({"ends": date(2026, 2, 10)}, "renewal is switched off"),
        ({"next_charge": date(2027, 1, 1)}, "no charge within 90 days"),
    ],
)
def test_who_is_not_charged_cannot_be_lost_to_a_payment(changes: dict[str, Any], told: str) -> None:
    """With the reason in words."""
    found = score(replace(USUAL, **changes))
    assert (found.chance_30, found.chance_90) == (0.0, 0.0)
    [why] = found.reasons
    assert told in why


def test_a_charge_beyond_the_horizon_is_no_risk_within_it() -> None:
    """In 40 days: not within 30, but within 90."""
    seen = replace(USUAL, next_charge=TODAY + timedelta(days=40))
    assert (seen.due(SHORT), seen.due(LONG)) == (0, 2)
    assert score(seen).chance_30 == 0 < score(seen).chance_90


def test_every_rule_is_of_a_known_group_and_says_what_it_rests_on() -> None:
    """A weight by a name that nothing bears would be silent."""
    from schedules.subscriber import values

    groups = values(USUAL, LONG).keys()
    for rule in TABLE:
        names = [part.partition("=")[0] for part in rule.name.removeprefix("30 ").split(" ")]
        assert set(names) <= groups
        assert rule.basis
