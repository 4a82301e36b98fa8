"""Does an experiment reach the work: who is left alone is left alone, and the rival's customers get the rival?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from schedules import Policy
from schedules.arms import Experiment
from tests.worker.bench import Scripted, Serve
from tests.worker.builders import DAY, START, one, opened, payment, sql, the_case
from worker import repair
from worker.planning import open_case
from worker.repair import Wish

RETRIED = {"auto_advance": True, "next_payment_attempt": int((START + DAY).timestamp())}


def experiment(control: int = 0, rival: int = 0, how: str = "provider") -> Experiment:
    """Return one with these shares."""
    return Experiment("spring", control, how, rival)


def test_who_is_left_alone_is_neither_charged_nor_written_to_nor_ended(serve: Serve) -> None:
    """The bank sees readings only; the case is lost at its deadline, and its subscription goes on."""
    street = serve(Scripted([payment()]), policy=Policy(ending="cancel", experiment=experiment(control=100)))
    street.hear(START)
    street.run()
    row = the_case(street.engine)
    assert (row.arm, row.state, row.closed_at) == ("control", "lost", row.failed_at + timedelta(days=28))
    assert (street.summary["writes"], one(street.engine, "SELECT count(*) FROM outbox")) == (0, 0)


def test_an_operator_is_told_why_a_customer_of_the_control_arm_is_not_charged(serve: Serve) -> None:
    """Whoever was asked for by hand would falsify what is compared."""
    policy = Policy(experiment=experiment(control=100))
    street = serve(Scripted([payment()]), policy=policy)
    street.hear(START)
    street.work(START)
    [verdict] = repair.carry_out(street.engine, Wish("retry", "a test", policy, START), ["in_1"])
    assert (verdict.done, verdict.why) == (
        False,
        "no charge is possible: the case is left alone, nothing is charged or said",
    )


@pytest.mark.parametrize(("how", "writes"), [("provider", 0), ("observe", 1)])
def test_the_providers_own_retries_go_on_or_are_turned_off(serve: Serve, how: str, writes: int) -> None:
    """They are turned off once, by the merchant's explicit choice to take over, and nothing else is written."""
    policy = Policy(take_over=True, experiment=experiment(control=100, how=how))
    street = serve(policy=policy)
    with street.engine.begin() as db:
        open_case(db, payment(), None, policy, START)
    street.shown["invoice"] = RETRIED
    street.work(START)
    street.shown.clear()
    street.run()
    assert (the_case(street.engine).state, street.summary["writes"]) == ("lost", writes)


def test_the_rivals_customers_get_the_rivals_steps(serve: Serve) -> None:
    """Here it does not charge at all, and writes at once."""
    rival = Policy(max_attempts=0, silent_days=0)
    street = serve(Scripted([payment()]), policy=Policy(experiment=experiment(rival=100), rival=rival))
    street.hear(START)
    street.run()
    assert (the_case(street.engine).arm, the_case(street.engine).state) == ("b", "lost")
    assert [each for each in street.ledger if each["by"] == "merchant"] == []
    assert one(street.engine, "SELECT min(at) FROM outbox WHERE kind = 'notice'") < START + 3 * DAY


def test_a_case_keeps_the_arm_it_was_opened_with(serve: Serve) -> None:
    """Also when the experiment is over before the case is."""
    street = serve(Scripted([payment()]), policy=Policy(experiment=experiment(control=100)))
    street.hear(START)
    street.policy = Policy()
    street.run()
    assert (the_case(street.engine).state, street.summary["writes"]) == ("lost", 0)


def test_a_case_from_before_the_experiment_follows_the_policy(serve: Serve) -> None:
    """What is under way is not left alone in its middle."""
    street = serve(policy=Policy(experiment=experiment(control=100)))
    opened(street.engine)
    street.run()
    assert [row.arm for row in sql(street.engine, "SELECT arm FROM cases")] == ["a"]
    assert the_case(street.engine).state == "recovered"
