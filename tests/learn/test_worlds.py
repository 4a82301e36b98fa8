"""Does a model follow the data of each world, within the limits, and is it promoted for cause only?"""

from __future__ import annotations

from dataclasses import replace
from datetime import time
from functools import lru_cache

import pytest

from schedules import Policy
from schedules.hours import Window
from schedules.learned import Model
from tests.learn.worlds import (
    BAD_MORNINGS,
    NIGHT_IS_BETTER,
    NO_NIGHT,
    NOISE,
    TWENTIETH,
    ZONE,
    Habit,
    World,
    failed,
    first_charge,
    samples,
)
from worker.learn import Verdict, fit, judge
from worker.simulate import play
from worker.simulate.judge import Broken
from worker.simulate.judge import judge as broken
from worker.simulate.policies import plan_of

MANY, MORE, OTHERS = 1000, 2000, 150
RULES = replace(Policy(), silent_days=28)
EXPLORING = replace(RULES, explore_percent=100)
NOON = {**RULES.windows, "funds": Window(time(11), time(14))}
AT_NOON = replace(EXPLORING, windows=NOON)  # fewer choices, so that fewer charges tell them apart
HABITS = (BAD_MORNINGS, NIGHT_IS_BETTER, TWENTIETH, NO_NIGHT)


@lru_cache
def model(habit: Habit) -> Model:
    """Return what exploring rules teach about a bank."""
    return fit(list(samples(habit, MANY, EXPLORING)), "v1")


@lru_cache
def verdict(habit: Habit) -> Verdict:
    """Return what is found out by charges at noon, on any day."""
    return judge(list(samples(habit, MORE, AT_NOON)), AT_NOON)


@pytest.mark.parametrize("habit", HABITS, ids=lambda each: each.name)
def test_a_learned_policy_follows_the_data(habit: Habit) -> None:
    """Of other customers' first charges nearly all go to good instants, far more than the rules send there."""
    learned = replace(RULES, model=model(habit))
    chosen = [first_charge(failed(9, number), learned)[1].astimezone(ZONE) for number in range(OTHERS)]
    ruled = [first_charge(failed(9, number), RULES)[1].astimezone(ZONE) for number in range(OTHERS)]
    good = [sum(map(habit.good, instants)) / OTHERS for instants in (chosen, ruled)]
    assert good[0] > max(0.9, good[1] + 0.15)
    assert sum(map(habit.chance, chosen)) > 1.2 * sum(map(habit.chance, ruled))


@pytest.mark.parametrize("habit", [*HABITS, NOISE], ids=lambda each: each.name)
def test_whatever_was_learned_no_limit_is_broken(habit: Habit) -> None:
    """Ten cards for forty payments, so that budgets bind; not even where the night would be best, nor by exploring."""
    for policy in (EXPLORING, replace(EXPLORING, model=model(habit))):
        runs = list(play(World(habit, 40), plan_of("", policy).decide))
        assert sum(len(one.tries) for one in runs) > 60
        assert set(broken(runs, {})) == {Broken()}


def test_a_model_that_is_better_is_promoted() -> None:
    """Enough was drawn, its chances hold, and the gain is certain."""
    found = verdict(TWENTIETH)
    assert (found.enough, found.calibrated, found.better) == (True, True, True)
    assert found.gain.low > 0.1


def test_a_world_of_noise_promotes_nothing() -> None:
    """There is nothing to find: the gain may be nothing, and the gate stays shut."""
    found = verdict(NOISE)
    assert (found.enough, found.calibrated, found.better) == (True, True, False)
    assert found.gain.low < 0 < found.gain.high


@pytest.mark.parametrize("habit", [TWENTIETH, NOISE], ids=lambda each: each.name)
def test_the_estimates_of_what_runs_meet_the_truth(habit: Habit) -> None:
    """The bank is asked at every instant that the rules would have chosen: both intervals hold its answer."""
    ruled = (first_charge(failed(1, number), replace(AT_NOON, explore_percent=0))[1] for number in range(MORE))
    worth = [habit.chance(at.astimezone(ZONE)) - AT_NOON.attempt_cost_percent / 100 for at in ruled]
    found, truth = verdict(habit).running, sum(worth) / MORE
    assert found.ips.low < truth < found.ips.high
    assert found.doubly_robust.low < truth < found.doubly_robust.high
