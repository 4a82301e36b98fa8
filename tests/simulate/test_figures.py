"""Are the figures those that one counts by hand, and do the intervals hold what they say?"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from schedules import Card, Charge, Close, Facts, FailedPayment, Step, Wait
from tests.simulate.builders import CARD, DAY, ENTERED, FUNDS, HOUR, LOST, START, Written, failed
from worker.practice.world import BuiltInWorld
from worker.simulate.compare import Comparison, figures_of
from worker.simulate.figures import RATIOS, Figures, Told, difference, value_of
from worker.simulate.fixed import Fixed
from worker.simulate.judge import Broken
from worker.simulate.policies import Plan, plan_named

NIGHT = START.replace(hour=8)  # three in the morning of New York


def four() -> Written:
    """One is back at the first charge, one pays after a notice, one leaves, one never comes back."""
    payments = [failed(number, amount_minor=1000 * number) for number in (1, 2, 3)]
    payments.append(failed(4, amount_minor=900, currency="eur", decline=LOST))
    acts = {"in_2": [("paid", START + 4 * DAY)], "in_3": [("cancel", START + 8 * DAY)]}
    return Written(payments, {"in_1": [None]}, acts)


def test_every_figure_is_the_one_that_is_counted_by_hand() -> None:
    """Four payments under the fixed calendar: 1 + 2 + 4 + 0 charges, 1 + 2 + 3 + 4 notices."""
    told = figures_of(four(), Plan("fixed", Fixed())).as_json()
    assert (told["payments"], told["recovered"], told["recovered_share"]) == (4, 2, 0.5)
    assert told["recovered_interval"] == (0.15, 0.85)
    assert told["by_means"] == {"card_update": 0, "silent_retry": 0, "after_contact": 2, "customer": 0}
    assert (told["attempts"], told["attempts_per_recovery"]) == (7, 3.5)
    assert (told["notices"], told["notices_per_payment"]) == (10, 2.5)
    assert (told["canceled_after_notice"], told["canceled_after_notice_share"]) == (1, 0.25)
    assert (told["median_days"], told["untold_share"], told["silent_share"]) == (2.5, 0.0, 0.0)
    assert told["outcomes"] == {"recovered": 2, "canceled": 1, "lost": 1}
    assert told["value"] == {
        "usd": {"payments": 3, "failed": 6000, "recovered": 3000, "share": 0.5},
        "eur": {"payments": 1, "failed": 900, "recovered": 0, "share": 0.0},
    }
    assert told["curve"] == [0, 1, 1, 1] + [2] * 27
    assert [(each["class"], each["payments"], each["attempts"]) for each in told["classes"]] == [
        ("retry_later", 3, 7),
        ("never", 1, 0),
    ]
    assert [each["hour"] for each in told["hours"] if each["attempts"]] == [10]
    assert told["hours"][10] == {"hour": 10, "attempts": 7, "approved": 1}


def test_who_pays_after_thirty_days_has_not_come_back() -> None:
    """The thirtieth day counts to its last second, by whatever policy."""

    def patient(facts: Facts, now: datetime) -> Step:
        ended = facts.ended is not None
        return Close(now, "recovered") if ended else Wait(facts.payment.failed_at + 90 * DAY)

    for late, recovered in ((timedelta(), 1), (timedelta(seconds=1), 0)):
        world = Written(acts={"in_1": [("paid", START + 30 * DAY + late)]})
        assert figures_of(world, Plan("patient", patient)).recovered == recovered


class Somewhere(Written):
    """Its issuer is in Honolulu, wherever the card is from."""

    def zone(self, payment_id: str) -> str:
        """Return the issuer's true zone."""
        return "Pacific/Honolulu" if payment_id else "UTC"


def nightly(card: Card) -> FailedPayment:
    """A payment that failed at three in the morning of New York; the merchant does not know the zone."""
    return failed(failed_at=NIGHT, card=card, time_zone=None)


@pytest.mark.parametrize(
    ("world", "closed"),
    [
        (Written([nightly(CARD)]), 8),
        (Somewhere([nightly(CARD)]), 0),
        (Written([nightly(replace(CARD, country="GB"))]), 0),
        (Written([nightly(replace(CARD, country=None))]), 0),
    ],
    ids=["any zone of the United States", "ten at night, as the world tells", "eight in London", "nowhere is UTC"],
)
def test_a_charge_in_the_night_of_the_issuer_is_counted(world: Written, closed: int) -> None:
    """By its true zone where the world tells it, else where it is night in any zone of the card's place."""
    assert figures_of(world, Plan("fixed", Fixed())).as_json()["closed_window_attempts"] == closed


def test_a_card_that_was_just_entered_may_be_charged_at_night() -> None:
    """The customer is awake; the next charge of the calendar is one at night again."""
    acts = {"in_1": [("card", NIGHT + 2 * DAY)]}
    world = Written([nightly(CARD)], {"in_1": [FUNDS, FUNDS, None]}, acts)
    told = figures_of(world, Plan("fixed", Fixed())).as_json()
    assert (told["attempts"], told["closed_window_attempts"]) == (3, 2)


def hourly(facts: Facts, now: datetime) -> Step:
    """Charge every hour of the first day, whatever anybody says."""
    ends = facts.payment.failed_at + DAY
    if facts.ended or now >= ends:
        return Close(now, "recovered" if facts.ended else "lost")
    return Charge(max(facts.last_failure + HOUR, now), len(facts.attempts) + 1)


@pytest.mark.parametrize(
    ("card", "over"), [("mastercard", 14), ("visa", 9), ("amex", 16), ("us_bank_account", 21), ("jcb", 0)]
)
def test_charges_over_the_budget_of_a_network_are_counted(card: str, over: int) -> None:
    """23 charges after the renewal: 10 in a day, 15 or 8 in 30 days, 3 of one debit; the renewal itself is one."""
    world = Written([failed(card=replace(CARD, brand=card))])
    told = figures_of(world, Plan("hourly", hourly)).as_json()
    assert (told["attempts"], told["budget_violations"]) == (23, over)


def test_a_budget_is_one_of_the_card_over_all_cases() -> None:
    """Two payments on one American Express card, five charges each: the eighth use is the last that is allowed."""
    card = replace(CARD, brand="amex")
    world = Written([failed(card=card), failed(2, card=card)])
    told = figures_of(world, Plan("fixed", Fixed((1, 3, 5, 7, 9)))).as_json()
    assert (told["attempts"], told["budget_violations"]) == (10, 4)


def test_a_charge_after_a_refusal_for_good_is_counted_until_the_card_changes() -> None:
    """The lost card is charged again and again; the one that is entered after three hours may be."""
    world = Written([failed(decline=LOST)], acts={"in_1": [("card", START + 3 * HOUR + HOUR / 2)]})
    told = figures_of(world, Plan("hourly", hourly)).as_json()
    assert told["attempts"] == 23
    assert told["never_violations"] == 23 - 1, "the new card is refused for good, too"
    kind = replace(world, payments=[failed(decline=LOST)], answers={"in_1": [LOST, LOST, LOST, FUNDS, FUNDS, None]})
    told = figures_of(kind, Plan("hourly", hourly)).as_json()
    assert (told["attempts"], told["never_violations"]) == (6, 3)
    assert ENTERED.differs(CARD)


def one(number: int, **changes: object) -> Told:
    """What one payment counts for: lost after two charges, unless told otherwise."""
    numbers = {"amount_minor": 1000, "attempts": 2, "notices": 1, "untold": False, "left_after": False, "hours": ()}
    blank = Told(
        customer_id=f"cus_{number}",
        currency="usd",
        decline_class="retry_later",
        outcome="lost",
        means=None,
        days=None,
        broken=Broken(),
        **numbers,  # type: ignore[arg-type]
    )
    return replace(blank, **changes)  # type: ignore[arg-type]


def test_the_difference_of_a_ratio_is_the_one_that_is_worked_out_by_hand() -> None:
    """Charges per recovery 8/2 against 8/1 over four customers; influence values on paper."""
    back = {"means": "silent_retry", "days": 1.0}
    base = [one(1, **back), one(2), one(3), one(4)]
    told = [one(1, **back), one(2, **back), one(3), one(4)]
    found = difference(RATIOS["attempts_per_recovery"], told, base)
    assert found is not None
    assert found.value == -4.0
    # (y - R x) / X: for the policy -1, -1, 1, 1; for the base -6, 2, 2, 2; less: 5, -3, -1, -1.
    spread = (4 / 3 * (25 + 9 + 1 + 1)) ** 0.5
    assert found.interval == pytest.approx((-4 - 1.959964 * spread, -4 + 1.959964 * spread))


def test_the_payments_of_one_customer_count_as_one_observation() -> None:
    """Twice the same customers with the same payments are no more evidence than once."""
    back = {"means": "silent_retry", "days": 1.0}
    base, told = [one(1), one(2, **back), one(3)], [one(1, **back), one(2, **back), one(3)]
    once = difference(RATIOS["recovered_share"], told, base)
    again = difference(RATIOS["recovered_share"], told * 2, base * 2)
    assert once is not None
    assert again is not None
    assert again.interval == pytest.approx(once.interval)


def test_a_figure_without_a_denominator_has_no_difference() -> None:
    """Nothing came back under one of both: nobody can say how many charges each took."""
    lost, back = [one(1)], [one(1, means="silent_retry", days=1.0)]
    assert difference(RATIOS["attempts_per_recovery"], lost, back) is None
    assert difference(value_of("eur"), back, lost) is None
    assert RATIOS["attempts_per_recovery"].of(lost) is None


def test_the_interval_of_a_difference_holds_the_truth_19_times_in_20() -> None:
    """300 draws of 200 paired payments whose true ratios are known; coverage of 0.95 within its own chance."""
    dice, held = Random(5), 0
    for _ in range(300):
        told, base = [], []
        for number in range(200):
            luck, tries = dice.random(), dice.randint(1, 5)
            base.append(one(number, attempts=tries, means="silent_retry" if luck < 0.5 else None))
            told.append(one(number, attempts=tries + dice.randint(0, 2), means="silent_retry" if luck < 0.6 else None))
        found = difference(RATIOS["attempts_per_recovery"], told, base)
        assert found is not None
        held += found.interval[0] <= 4 / 0.6 - 3 / 0.5 <= found.interval[1]
    assert 0.92 <= held / 300 <= 0.98


def test_two_policies_meet_the_same_draws_and_a_policy_equals_itself() -> None:
    """The paired interval is narrower than that of two independent worlds, and nothing differs from itself."""
    plans = [plan_named(word) for word in ("default", "fixed", "default")]
    found = Comparison("built-in", 3, {}, tuple(figures_of(BuiltInWorld(3, 300), plan) for plan in plans))
    again = figures_of(BuiltInWorld(3, 300), plans[0])
    assert again.told == found.policies[0].told
    same = Comparison("built-in", 3, {}, (found.policies[0], replace(again, policy="again"))).differences["again"]
    assert {each.interval for each in same.values() if each} == {(0.0, 0.0)}
    paired = found.differences["fixed"]["recovered_share"]
    assert paired is not None
    share = [each.recovered / 300 for each in found.policies[:2]]
    alone = sum(each * (1 - each) / 300 for each in share) ** 0.5 * 1.959964
    assert (paired.interval[1] - paired.interval[0]) / 2 < 0.8 * alone


def test_the_curve_never_falls_and_ends_at_all_that_came_back() -> None:
    """By day 30 everything counts that counts at all."""
    found: Figures = figures_of(BuiltInWorld(2, 200), plan_named("fixed"))
    assert all(earlier <= later for earlier, later in pairwise(found.curve))
    assert found.curve[-1] == found.recovered > 0
    assert sum(tried for tried, _ in found.hours) == sum(each.attempts for each in found.told)
