"""Does a model place few tries well, within every limit, and is what was drawn told with its chance?"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest

from schedules import Charge, Contact, Facts, Policy, next_step
from schedules.case import case_of
from schedules.charges import next_charge
from schedules.choice import part_of, propensity, slots
from schedules.learned import Model
from tests.schedules.builders import DAY, FAILED, HOUR, MINUTE, attempt, berlin, card, facts, payment

FLAT = -2.0  # 12 %
READ = FAILED + MINUTE
ONE = {"max_attempts": 1}
MONDAYS = {"weekday=mon": 0.6, "hour=10": 0.4}
LONG = replace(Policy(), silent_days=28)  # silence lasts as long as exploring may wait


def policy(base: float = FLAT, weights: dict[str, float] | None = None, **changes: Any) -> Policy:
    """Return a policy with a model."""
    return replace(LONG, model=Model("v1", base, weights or {}), **changes)


def charge(known: Facts, chosen: Policy) -> Charge:
    """Return the next charge."""
    step = next_step(known, chosen, READ)
    assert isinstance(step, Charge)
    return step


def test_a_charge_goes_where_the_model_expects_most() -> None:
    """Mondays at ten in Berlin: the first one after the failure of Tuesday, and the step names the model."""
    step = charge(facts(), policy(weights=MONDAYS, **ONE))
    assert berlin(9, 10) <= step.at < berlin(9, 11)
    assert (step.model, step.propensity) == ("v1", 1.0)
    assert "learned: the instant that model v1 expects most of" in step.reasons


def test_the_last_try_waits_for_the_best_day() -> None:
    """With one try left the good day in a week is worth more than a fair one tomorrow; with many, both are used."""
    weights = {"monthday=9": 1.0, "monthday=12": 2.0}
    assert charge(facts(), policy(-3.0, weights, **ONE)).at.date() == berlin(12, 12).date()
    assert charge(facts(), policy(-3.0, weights)).at.date() == berlin(9, 12).date()


def test_a_payment_is_worth_less_once_the_customer_had_to_be_written_to() -> None:
    """A slightly better day after the silent days is not waited for, unless notices cost nothing."""
    weights, days = {"monthday=16": 0.2}, []
    for percent in (20, 0):
        chosen = policy(weights=weights, notice_cost_percent=percent, silent_days=10, **ONE)
        planned, _ = next_charge(case_of(facts(), chosen, READ))
        days.append(planned and planned.at.date())
    assert days == [berlin(6, 12).date(), berlin(16, 12).date()]


def test_where_no_try_is_worth_its_price_the_customer_is_asked_at_once() -> None:
    """Two percent against eight: the silent phase ends early, and the reason says by which model."""
    step = next_step(facts(), policy(base=-4.0), READ)
    assert isinstance(step, Contact)
    assert step.at < FAILED + DAY
    assert "ruled_out: no charge is worth its price by model v1" in step.reasons
    assert isinstance(next_step(facts(), policy(base=-4.0, attempt_cost_percent=1), READ), Charge)


def test_a_missed_instant_gives_way_to_the_best_of_what_is_left() -> None:
    """The Monday was slept through; the next one is taken, not the night in which somebody woke up."""
    chosen = policy(weights=MONDAYS, **ONE)
    late = next_step(facts(), chosen, berlin(9, 23))
    assert berlin(16, 10) <= late.at < berlin(16, 11)


def test_cases_of_one_card_go_together() -> None:
    """A charge of another case within a day of the best instant takes this one along, open hours provided."""
    chosen = policy(weights=MONDAYS, **ONE)
    joined = charge(facts(card_due=(berlin(9, 15, 20),)), chosen)
    assert joined.at == berlin(9, 15, 20)
    assert any(why.startswith("together: ") for why in joined.reasons)
    assert charge(facts(uses=(FAILED, berlin(10, 7, 30))), chosen).at == berlin(10, 7, 30)
    for other in (berlin(9, 2), berlin(12, 12), FAILED + HOUR):
        assert charge(facts(card_due=(other,)), chosen).at == charge(facts(), chosen).at


def test_fresh_cards_short_hops_and_wishes_are_not_the_models_business() -> None:
    """The rules place them, whatever a model thinks of the hour."""
    chosen = policy(weights={"weekday=thu": 5.0})
    for known in (
        facts(card=card(fingerprint="fp_new")),
        facts("processing_error"),
        facts(asked_at=READ, refreshed_at=READ),
    ):
        step = charge(known, chosen)
        assert step.model is None
        assert step == charge(known, Policy())


def test_without_a_model_and_without_exploring_nothing_is_drawn() -> None:
    """The rules leave no choice, so no chance is told."""
    step = charge(facts(), Policy())
    assert (step.model, step.propensity) == (None, None)


def test_a_share_of_the_charges_explores_and_says_so() -> None:
    """Drawn from the payment's id: the same each time, in the share that was asked for, at many different instants."""
    exploring = replace(LONG, explore_percent=30)
    steps = [charge(facts(payment=payment(payment_id=f"in_{n}")), exploring) for n in range(300)]
    drawn = [step for step in steps if any(why.startswith("explore: ") for why in step.reasons)]
    assert len(drawn) / len(steps) == pytest.approx(0.3, abs=0.06)
    assert len({step.at.date() for step in drawn}) == 15  # two weeks, their last day included
    assert steps == [charge(facts(payment=payment(payment_id=f"in_{n}")), exploring) for n in range(300)]


@pytest.mark.parametrize("chosen", [replace(Policy(), explore_percent=40), policy(explore_percent=40)])
def test_the_chances_of_all_parts_add_up_to_one(chosen: Policy) -> None:
    """What is told as the chance of a choice is one of a whole."""
    case = case_of(facts(), chosen, READ)
    planned, _ = next_charge(case_of(facts(), replace(chosen, explore_percent=0), READ))
    assert planned is not None
    instants = slots(case, chosen.windows["funds"])
    parts = {part_of(case, at): at for at in (*instants, planned.at)}
    assert sum(propensity(case, instants, planned.at, at) for at in parts.values()) == pytest.approx(1)


def test_what_is_drawn_comes_as_often_as_it_was_told() -> None:
    """Over many payments the parts of the day are chosen in the shares that their steps tell."""
    exploring, told, chosen = replace(LONG, explore_percent=50), defaultdict[date, float](float), Counter[date]()
    for number in range(400):
        known = facts(payment=payment(payment_id=f"in_{number}"))
        case, step = case_of(known, exploring, READ), charge(known, exploring)
        instants = slots(case, exploring.windows["funds"])
        planned, _ = next_charge(replace(case, policy=LONG))
        assert planned is not None
        chosen[part_of(case, step.at)[0]] += 1
        for part, at in {part_of(case, at): at for at in (*instants, planned.at)}.items():
            told[part[0]] += propensity(case, instants, planned.at, at)
    for day, expected in told.items():
        assert chosen[day] == pytest.approx(expected, abs=4 * max(expected, 4) ** 0.5)


def test_every_instant_is_open_waited_for_and_in_time() -> None:
    """One for each open hour from a day after the refusal on; later refusals and advised waits move the beginning."""
    case = case_of(facts(attempts=(attempt(at=FAILED + 3 * DAY),)), Policy(), FAILED + 3 * DAY)
    instants = slots(case, Policy().windows["funds"])
    hours = [at.astimezone(case.place.zones[0]).hour for at in instants]
    assert (min(hours), max(hours)) == (6, 20)
    assert instants[0] >= FAILED + 4 * DAY
    assert instants[-1] < case.last_charge
    assert len(set(instants)) == len(instants) == len({at.replace(minute=0) for at in instants})
    assert min(after - before for before, after in pairwise(instants)) == timedelta(hours=1)


def test_a_choice_was_as_likely_when_its_instant_has_come() -> None:
    """What is logged with a charge is how likely it was when it was chosen, also where another day had been planned."""
    for number in range(40):
        known = facts(payment=payment(payment_id=f"in_{number}"))
        chosen, _ = next_charge(case_of(known, Policy(explore_percent=50), READ))
        assert chosen is not None
        there, _ = next_charge(case_of(known, Policy(explore_percent=50), chosen.at))
        assert there is not None
        assert (there.at, there.propensity) == (chosen.at, chosen.propensity)
