"""Is a customer who fits a segment treated as it says, everybody else as before, and a wrong segment refused?"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules import Close, Policy, PolicyError, plan_ahead
from schedules.arms import ARMS, Experiment
from schedules.facts import FailedPayment
from schedules.proof import counterexamples, sample_payments
from schedules.segments import Segment
from tests.schedules.builders import DAY, FAILED, payment
from tests.schedules.test_policy import load

LOYAL = """
silent_days = 8
[[segments]]
name = "large"
amount_from = 5000
currency = "usd"
silent_days = 5
[[segments]]
name = "loyal"
tenure_days_from = 365
ending = "release"
deadline_days = 40
windows.funds.opens = 09:00:00
"""


def bought(**changes: Any) -> FailedPayment:
    """Return a renewal of which tenure and plan are known."""
    return replace(
        payment(), **{"tenure_days": 400, "plan": "gold", "amount_minor": 1000, "currency": "usd", **changes}
    )


@pytest.mark.parametrize(
    ("conditions", "changes", "fits"),
    [
        ({"tenure_days_from": 365}, {"tenure_days": 365}, True),
        ({"tenure_days_from": 365}, {"tenure_days": 364}, False),
        ({"tenure_days_from": 0}, {"tenure_days": None}, False),
        ({"amount_from": 1000, "currency": "usd"}, {}, True),
        ({"amount_from": 1001, "currency": "usd"}, {}, False),
        ({"amount_from": 1000, "currency": "eur"}, {}, False),
        ({"plans": ("gold", "silver")}, {}, True),
        ({"plans": ("gold",)}, {"plan": "bronze+gold"}, True),
        ({"plans": ("bronze+gold",)}, {"plan": "bronze+gold"}, True),
        ({"plans": ("old",)}, {}, False),
        ({"plans": ("gold",)}, {"plan": None}, False),
        ({"plans": ("gold",), "tenure_days_from": 500}, {}, False),
    ],
)
def test_a_payment_fits_when_every_condition_is_known_to_be_true(
    conditions: dict[str, Any], changes: dict[str, Any], *, fits: bool
) -> None:
    """What is not known fits nothing."""
    assert Segment("one", **conditions).fits(bought(**changes)) is fits


def test_a_segment_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    """Down to one edge of a window; the file around it counts for both."""
    policy = load(tmp_path, LOYAL)
    loyal = policy.of("a", "loyal")
    assert (loyal.ending, loyal.deadline_days, loyal.silent_days) == ("release", 40, 8)
    assert (loyal.windows["funds"].opens.hour, loyal.windows["funds"].closes.hour) == (9, 21)
    changed = {each.name for each in fields(Policy) if getattr(loyal, each.name) != getattr(policy, each.name)}
    assert changed == {"ending", "deadline_days", "windows", "segments"}


def test_the_first_segment_that_fits_counts(tmp_path: Path) -> None:
    """Whoever is both large and loyal is large here, because that stands first."""
    policy = load(tmp_path, LOYAL)
    assert policy.segment_of(bought(amount_minor=5000)) == "large"
    assert policy.segment_of(bought()) == "loyal"
    assert policy.segment_of(bought(tenure_days=3)) is None


def test_a_segment_that_the_policy_has_no_longer_is_the_usual_policy(tmp_path: Path) -> None:
    """As for whoever has none."""
    policy = load(tmp_path, LOYAL)
    assert policy.of("a", "gone") is policy.of("a") is policy


def test_a_segment_holds_in_both_arms_and_who_is_left_alone_stays_alone(tmp_path: Path) -> None:
    """Over the policy of A and over its rival; the control arm knows no segments."""
    policy = load(tmp_path, LOYAL + "[rival]\nsilent_days = 2\nmax_attempts = 3\nending = 'cancel'")
    loyal, large = policy.of("b", "loyal"), policy.of("b", "large")
    assert (loyal.silent_days, loyal.max_attempts, loyal.ending) == (2, 3, "release")
    assert (large.silent_days, large.max_attempts, large.ending) == (5, 3, "cancel")
    assert policy.of("control", "loyal") == policy.of("control")


def test_a_policy_that_was_chosen_already_stays_chosen(tmp_path: Path) -> None:
    """Whoever holds the policy of a case may ask it again."""
    policy = load(tmp_path, LOYAL + "[rival]\nsilent_days = 2")
    for arm in ARMS:
        chosen = policy.of(arm, "loyal")
        assert chosen.of(arm, "loyal") == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("segments = 3", r"segments: expected tables, each begun by \[\[segments\]\]"),
        ("segments = [3]", "segments: expected tables"),
        ("[[segments]]\nplans = ['a']", r"segments\[0\].name: missing"),
        ("[[segments]]\nname = 3\nplans = ['a']", r"segments\[0\].name: expected a string"),
        ("[[segments]]\nname = 'A b'\nplans = ['a']", r"segments\[0\]: name: expected small letters"),
        ("[[segments]]\nname = 'a'", r"segments\[0\]: expected a condition"),
        ("[[segments]]\nname = 'a'\namount_from = 5", r"segments\[0\]: amount_from: expected a currency"),
        (
            "[[segments]]\nname = 'a'\ncurrency = 'usd'\nplans = ['a']",
            r"segments\[0\]: currency: expected an amount_from",
        ),
        (
            "[[segments]]\nname = 'a'\namount_from = 5\ncurrency = 'USD'",
            r"segments\[0\]: currency: expected one such as usd",
        ),
        (
            "[[segments]]\nname = 'a'\namount_from = 1.5\ncurrency = 'usd'",
            r"segments\[0\].amount_from: expected an integer",
        ),
        ("[[segments]]\nname = 'a'\ntenure_days_from = -1", "expected 0 or more"),
        ("[[segments]]\nname = 'a'\ntenure_days_from = true", r"segments\[0\].tenure_days_from: expected an integer"),
        ("[[segments]]\nname = 'a'\nplans = 'a'", r"segments\[0\].plans: expected an array"),
        ("[[segments]]\nname = 'a'\nplans = [3]", r"segments\[0\].plans\[0\]: expected a string"),
        ("[[segments]]\nname = 'a'\nplans = ['']", r"segments\[0\]: plans: expected names"),
        ("[[segments]]\nname = 'a'\nplans = ['a']\nsilence = 1", r"segments\[0\].silence: unknown key"),
        ("[[segments]]\nname = 'a'\nplans = ['a']\nsilent_days = 99", r"segments\[0\].silent_days: expected 0 to"),
        ("[[segments]]\nname = 'a'\nplans = ['a']\nwindows.funds.opens = 3", r"segments\[0\].windows.funds.opens: "),
        (
            "[[segments]]\nname = 'a'\nplans = ['a']\n[segments.budgets]",
            r"segments\[0\].budgets: cannot be another one",
        ),
        ("[[segments]]\nname = 'a'\nplans = ['a']\n[segments.experiment]", r"segments\[0\].experiment: cannot be"),
        ("[[segments]]\nname = 'a'\nplans = ['a']\n[segments.rival]", r"segments\[0\].rival: cannot be"),
        ("[[segments]]\nname = 'a'\nplans = ['a']\n[[segments.segments]]", r"segments\[0\].segments: cannot be"),
        ("[rival]\n[[rival.segments]]\nname = 'a'", "rival: expected a table .* nor segments"),
        (
            "[[segments]]\nname = 'a'\nplans = ['a']\n[[segments]]\nname = 'a'\nplans = ['b']",
            "segments: expected different",
        ),
    ],
)
def test_a_segment_that_cannot_be_meant_is_named(tmp_path: Path, text: str, message: str) -> None:
    """With the key and the reason."""
    with pytest.raises(PolicyError, match=message):
        load(tmp_path, text)


def test_a_rival_that_a_segment_contradicts_is_named(tmp_path: Path) -> None:
    """Fine over the policy, impossible over its rival."""
    text = "deadline_days = 60\n[rival]\ndeadline_days = 20\n[[segments]]\nname = 'a'\nplans = ['a']\nsilent_days = 30"
    with pytest.raises(PolicyError, match=r"segments\[0\].silent_days: expected 0 to deadline_days"):
        load(tmp_path, text)


def test_the_calendar_of_a_loyal_customer_is_longer_and_ends_with_a_person(tmp_path: Path) -> None:
    """Forty days instead of 28, and the case is released."""
    policy = load(tmp_path, LOYAL)
    failed = bought()
    *_, last = plan_ahead(failed, policy.of("a", policy.segment_of(failed)), FAILED)
    assert isinstance(last, Close)
    assert (last.outcome, last.at) == ("released", FAILED + 40 * DAY)


def test_every_segment_of_every_arm_keeps_the_promises(tmp_path: Path) -> None:
    """In the calendar of every decline code."""
    policy = load(tmp_path, LOYAL + "[rival]\nsilent_days = 2\n[experiment]\nrival_percent = 50\ncontrol_percent = 5")
    assert len(policy.every) == 7
    samples = list(sample_payments())[::7]
    assert [line for mine in policy.every for each in samples for line in counterexamples(each, mine)] == []


@given(
    arm=st.sampled_from(ARMS),
    segment=st.none() | st.text(max_size=5),
    days=st.none() | st.integers(0, 10_000),
    amount=st.integers(0, 10**9),
    plan=st.none() | st.text(max_size=9),
)
def test_without_segments_nothing_changes(
    arm: str, segment: str | None, days: int | None, amount: int, plan: str | None
) -> None:
    """Nobody belongs to one, and whatever a case says, its policy is that of its arm."""
    policy = Policy(experiment=Experiment("spring", 10, "observe", 10), rival=Policy(silent_days=2))
    assert policy.segment_of(bought(tenure_days=days, amount_minor=amount, plan=plan)) is None
    assert policy.of(arm, segment) == policy.of(arm)
    assert policy.every == tuple(policy.arms.values())
