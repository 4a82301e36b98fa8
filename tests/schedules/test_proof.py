"""Is a policy that breaks a promise found out, and a policy whose choices make one another void?"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from schedules import Charge, Close, Contact, Facts, Policy, Step, Wait
from schedules.budgets import Limit
from schedules.contradictions import contradictions
from schedules.declines import TABLE
from schedules.policy import DeclineRule, Rung
from schedules.proof import broken_promises, counterexamples, sample_payments
from tests.schedules.builders import DAY, FAILED, HOUR, attempt, berlin, card, facts

NOON = berlin(7, 12)  # four days after the failure


def broken(known: Facts, step: Step, now: datetime = NOON, policy: Policy | None = None) -> list[str]:
    """Every promise that a step breaks."""
    return [*broken_promises(known, policy or Policy(), now, step)]


def every(policy: Policy) -> list[str]:
    """Every promise that the policy breaks on the calendar of any sample."""
    return [line for payment in sample_payments() for line in counterexamples(payment, policy)]


def test_the_default_policy_keeps_every_promise_and_does_not_contradict_itself() -> None:
    """On a calendar of every code of the table."""
    assert not every(Policy())
    assert not [*contradictions(Policy())]


def test_the_samples_show_every_code_of_the_table() -> None:
    """Each on a card or a debit that can answer it."""
    shown = {payment.payment_id.partition(" on ")[0] for payment in sample_payments()}
    assert shown == {f"{source}:{code}" for source, code in TABLE}


@pytest.mark.parametrize(
    ("known", "step", "promise"),
    [
        (facts(), Charge(NOON - DAY, 1, ("x",)), "a step in the past"),
        (facts(), Wait(FAILED + 29 * DAY, ("x",)), "a step after the deadline"),
        (facts(), Contact(FAILED + 28 * DAY, "first", ("x",)), "a charge or a notice at the deadline or after it"),
        (facts(), Charge(NOON, 1), "a step without a reason"),
        (facts(), Charge(NOON, 2, ("x",)), "a charge out of number"),
        (facts("revocation_of_authorization"), Charge(NOON, 1, ("x",)), "a charge without consent"),
        (facts("lost_card"), Charge(NOON, 1, ("x",)), "a charge of a card that is never to be charged again"),
        (facts("expired_card"), Charge(NOON, 1, ("x",)), "a retry after stale_credential"),
        (
            facts(card=card(country="IN", fingerprint="fp_2")),
            Charge(NOON, 1, ("x",)),
            "a charge in an excluded country",
        ),
        (facts(uses=(NOON - HOUR,) * 15), Charge(NOON, 1, ("x",)), "a charge over a budget"),
        (facts(), Charge(berlin(7, 3), 1, ("x",)), "a charge in a closed window"),
        (facts(), Charge(berlin(5, 12), 1, ("x",)), "a charge before the wait that was advised"),
        (
            facts("do_not_honor", attempts=tuple(attempt(n, FAILED + n * HOUR, "do_not_honor") for n in range(1, 5))),
            Charge(NOON, 5, ("x",)),
            "one retry too many",
        ),
        (facts("lost_card"), Contact(berlin(7, 23), "first", ("x",)), "a notice outside the customer's hours"),
        (
            facts("lost_card", customer_contacts=(NOON - HOUR,)),
            Contact(NOON, "first", ("x",)),
            "a notice within the cool-down",
        ),
        (facts("recipient_deceased"), Contact(NOON, "first", ("x",)), "a notice after a death"),
        (facts(), Contact(NOON, "first", ("x",)), "a notice while silence can help"),
    ],
)
def test_a_step_that_breaks_a_promise_is_named(known: Facts, step: Step, promise: str) -> None:
    """One for each promise."""
    assert promise in broken(known, step, min(NOON, step.at) if "past" not in promise else NOON)


def test_a_step_that_keeps_them_all_is_not() -> None:
    """A charge at noon, four days after the failure."""
    assert broken(facts(), Charge(NOON, 1, ("x",))) == []
    assert broken(facts(ended="paid"), Close(NOON, "recovered", ("x",))) == []


def test_a_counterexample_names_payment_instant_and_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bank windows switched off in the deciding part alone."""
    monkeypatch.setattr("schedules.case.next_open", lambda at, *_: at)
    found = every(Policy())
    assert any(line.startswith("stripe_card:") and line.endswith(": a charge in a closed window") for line in found)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(silent_days=14), "ladder[3]: day 14 after 14 silent days is not before the deadline"),
        (
            Policy(ladder=(Rung("first", 0), Rung("reminder", 1))),
            "ladder[1]: day 1 comes within the cool-down of 48 h",
        ),
        (
            Policy(gaps_hours={"retry_later": (12, 48), "retry_soon": (2,)}),
            "gaps_hours.retry_later[0]: 12 h never count, every code of the class asks for 24 h",
        ),
        (
            Policy(gaps_hours={"retry_later": (24, 700), "retry_soon": (2,)}),
            "gaps_hours.retry_later[1]: 700 h are over only after the deadline",
        ),
        (Policy(deadline_days=14, silent_days=0, hold_hours=(24, 336), ladder=()), "hold_hours: 336 h are over"),
    ],
)
def test_choices_that_make_one_another_void_are_named(policy: Policy, words: str) -> None:
    """By key, with the reason."""
    assert any(line.startswith(words) for line in contradictions(policy))


def test_a_gap_below_the_wait_is_none_where_the_merchant_lowered_the_wait() -> None:
    """The least wait is that of the table with the merchant's own rules over it."""
    gaps = {"retry_later": (12, 48), "retry_soon": (2,)}
    own = DeclineRule("stripe_card", "do_not_honor", "retry_later", 4, 12)
    assert [*contradictions(Policy(gaps_hours=gaps, declines=(own,)))] == []


def test_a_policy_with_the_tightest_limits_still_ends_every_case() -> None:
    """One charge in thirty days, and all of the time silent."""
    tight = Policy(deadline_days=1, silent_days=1, ladder=(), budgets={"visa": (Limit(1, 720),)})
    assert not every(tight)
    assert not every(replace(tight, max_attempts=0, deadline_days=365))
