"""Are customers drawn into arms as the merchant asked, always the same, and left alone where that is meant?"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from schedules import Close, Policy, PolicyError, Refresh, plan_ahead
from schedules.arms import Experiment
from schedules.contradictions import contradictions
from schedules.proof import counterexamples, sample_payments
from tests.schedules.builders import DAY, FAILED, payment
from tests.schedules.test_policy import load

CUSTOMERS = [f"cus_{number}" for number in range(20_000)]


def test_the_shares_come_out_as_asked() -> None:
    """Within four standard deviations of 20,000 draws."""
    drawn = Counter(map(Experiment("spring", 10, "provider", 30).arm_of, CUSTOMERS))
    assert drawn == Counter(a=drawn["a"], b=drawn["b"], control=drawn["control"])
    assert abs(drawn["control"] - 2000) < 170
    assert abs(drawn["b"] - 6000) < 260


def test_a_customer_stays_where_they_are_and_a_larger_share_moves_nobody_out_of_the_control_arm() -> None:
    """Who was left alone at 5 % is among those who are left alone at 10 %."""
    small, large = Experiment("spring", 5), Experiment("spring", 10)
    left = {each for each in CUSTOMERS if small.arm_of(each) == "control"}
    assert left
    assert left < {each for each in CUSTOMERS if large.arm_of(each) == "control"}


def test_another_name_draws_anew() -> None:
    """Of the tenth that was left alone in spring, about a tenth is in summer."""
    spring, summer = Experiment("spring", 10), Experiment("summer", 10)
    left = [each for each in CUSTOMERS if spring.arm_of(each) == "control"]
    assert 0.06 < sum(summer.arm_of(each) == "control" for each in left) / len(left) < 0.14


def test_without_an_experiment_everybody_follows_the_policy() -> None:
    """There is one arm."""
    policy = Policy()
    assert {policy.experiment.arm_of(each) for each in CUSTOMERS} == {"a"}
    assert policy.arms == {"a": policy}


def test_a_rival_is_the_policy_with_what_it_does_otherwise(tmp_path: Path) -> None:
    """What the file says counts for both, wherever in the file it stands."""
    policy = load(
        tmp_path,
        "[rival]\nsilent_days = 3\n[rival.windows.funds]\nopens = 09:00:00\n[windows.funds]\ncloses = 20:00:00",
    )
    rival = policy.of("b")
    assert (policy.silent_days, rival.silent_days, rival.deadline_days) == (10, 3, 28)
    assert (rival.windows["funds"].opens.hour, rival.windows["funds"].closes.hour) == (9, 20)
    assert policy.of("a") is policy


def test_without_a_rival_arm_b_is_an_a_a_check() -> None:
    """Both arms follow the same policy."""
    policy = Policy(experiment=Experiment("check", rival_percent=50))
    assert policy.of("b") is policy
    assert set(policy.arms) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rival = 3", "rival: expected a table"),
        ("[rival]\nsilent_days = 99", "rival.silent_days: expected 0 to deadline_days"),
        ("[rival]\nsilence = 1", "rival.silence: unknown key"),
        ("[rival.experiment]\nname = 'x'", "with neither experiment nor rival in it"),
        ("[experiment]\ncontrol_percent = 60\nrival_percent = 50", "experiment: control_percent and rival_percent"),
        ("[experiment]\ncontrol = 'nobody'", "experiment: control: expected one of provider, observe"),
    ],
)
def test_an_experiment_that_cannot_be_meant_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Each by its full name."""
    with pytest.raises(PolicyError, match=message):
        load(tmp_path, text)


def test_a_rival_that_nobody_follows_is_named() -> None:
    """Its share may have been forgotten."""
    [line] = contradictions(Policy(rival=Policy()))
    assert line.startswith("rival: nobody follows it")


def test_a_case_that_is_left_alone_is_read_each_day_and_lost_at_its_deadline() -> None:
    """No charge, no notice, and the ending of the policy does not happen to it."""
    alone = Policy(ending="release", experiment=Experiment("spring", 100)).of("control")
    *looks, last = plan_ahead(payment(), alone, FAILED)
    assert {type(step) for step in looks[:-1]} == {Refresh}
    assert len(looks) == 29
    assert isinstance(last, Close)
    assert (last.outcome, last.at) == ("lost", FAILED + 28 * DAY)
    assert all(any(why.startswith("hands_off: ") for why in step.reasons) for step in looks[1:])


@pytest.mark.parametrize("arm", ["a", "b", "control"])
def test_every_arm_keeps_the_promises(arm: str) -> None:
    """In the calendar of every decline code."""
    policy = Policy(experiment=Experiment("spring", 30, "observe", 30), rival=Policy(silent_days=2)).arms[arm]
    assert [line for each in sample_payments() for line in counterexamples(each, policy)] == []


def test_who_is_left_alone_is_retried_by_nobody_only_where_that_is_asked_for() -> None:
    """Two kinds of control: the provider's own retries, or nothing."""
    for control, taken_over in (("provider", False), ("observe", True)):
        policy = Policy(take_over=True, experiment=Experiment("spring", 10, control))
        assert policy.of("control").take_over is taken_over
    assert timedelta(days=Policy().of("control").deadline_days) == 28 * DAY
