"""Is nothing ever charged twice, and nothing left in doubt, when nobody knows what became of a request?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schedules import Decline
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import FUNDS, HOUR, LOST, MINUTE, START, one, opened, sql, the_attempts, the_case, until
from worker import charging
from worker.models import UNRESOLVED

FAULTS = ["500_before", "500_after", "reset_before", "reset_after", "timeout_after", "429", "409"]
AFTER = {"seconds": 2}  # longer than our client waits, its first repetition included


def ready(serve: Serve, *declines: Decline, **settings: Any) -> Bench:
    """Return a bank with one case whose card has been read and whose charge is planned."""
    street = serve(Scripted(declines=list(declines)), **settings)
    opened(street.engine)
    street.work(START)
    return street


def in_doubt(street: Bench) -> bool:
    """Say whether an attempt has no outcome yet."""
    return any(row.state in UNRESOLVED for row in the_attempts(street.engine))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("answers", [(), (FUNDS,)], ids=["approved", "declined"])
def test_a_fault_never_charges_twice(serve: Serve, fault: str, answers: tuple[Decline, ...]) -> None:
    """Whatever goes wrong with the first request, every charge at the bank is one of our attempts, with its answer."""
    street = ready(serve, *answers, read_seconds=0.4)
    street.fault(fault, **AFTER)
    street.run()
    assert the_case(street.engine).state == "recovered"
    assert len(street.ledger) == 1 + len(answers)
    street.agrees()


@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_three_faults_in_a_row_never_charge_twice(serve: Serve, fault: str) -> None:
    """Not even when every try of the first request goes wrong, and the first try of the next one."""
    street = ready(serve)
    street.fault(fault, times=4)
    street.run()
    assert len(street.ledger) == 1
    street.agrees()


@pytest.mark.parametrize("fault", ["429", "409"])
def test_what_was_not_executed_uses_up_no_attempt(serve: Serve, fault: str) -> None:
    """A rate limit is not a decline: minutes later the same step comes again, under the same number."""
    street = ready(serve)
    street.fault(fault, times=2)
    first = street.go_on()
    assert first < the_case(street.engine).due_at < first + HOUR
    assert not street.ledger
    street.run()
    [charged] = [row for row in the_attempts(street.engine) if row.state == "succeeded"]
    assert charged.number == 1
    street.agrees()


def test_an_unknown_outcome_is_read_before_anything_is_sent(serve: Serve) -> None:
    """The bank charged and answered 500: five minutes later a reading says paid, and no second request is made."""
    street = ready(serve)
    street.fault("500_after")
    now = street.go_on()
    [attempt] = the_attempts(street.engine)
    assert (attempt.state, attempt.settled_at, the_case(street.engine).due_at) == ("unknown", None, now + 5 * MINUTE)
    street.go_on()
    row = the_case(street.engine)
    assert (row.state, row.recovered_by, street.summary["writes"]) == ("recovered", "silent_retry", 1)


def test_an_unknown_outcome_that_was_a_refusal_is_found_by_reading(serve: Serve) -> None:
    """The bank refused and answered 500: the reading shows the new charge, with its evidence, without asking again."""
    street = ready(serve, LOST)
    street.fault("500_after")
    street.go_on()
    street.go_on()
    [attempt] = the_attempts(street.engine)
    assert (attempt.state, attempt.decline["code"], attempt.charge_id) == ("declined", "lost_card", "ch_1_1")
    assert street.summary["writes"] == 1


def test_a_request_that_never_arrived_is_repeated_under_its_key(serve: Serve) -> None:
    """Nothing happened at the bank, so the same attempt is sent again: one attempt, one key."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    street.go_on()
    [attempt] = the_attempts(street.engine)
    assert (attempt.number, attempt.state) == (1, "succeeded")
    assert [each["idempotency_key"] for each in street.ledger] == [attempt.idempotency_key]


def test_an_old_key_is_never_posted(serve: Serve) -> None:
    """After 23 hours only two readings an hour apart may say that nothing was charged; then a new attempt is made."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    sql(street.engine, "UPDATE attempts SET sent_at = sent_at - interval '23 hours 1 minute'")
    first = street.go_on()
    assert (the_case(street.engine).due_at, in_doubt(street)) == (first + HOUR, True)
    second = street.go_on()
    assert (second, in_doubt(street), street.summary["writes"]) == (first + HOUR, False, 1)
    street.run()
    old, new = the_attempts(street.engine)
    assert (old.state, new.state, new.number) == ("not_executed", "succeeded", 1)
    assert old.idempotency_key != new.idempotency_key
    street.agrees()


def test_one_reading_is_not_enough_for_an_old_key(serve: Serve) -> None:
    """An event that wakes the case between the two readings does not stand in for the second."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    sql(street.engine, "UPDATE attempts SET sent_at = sent_at - interval '30 hours'")
    first = street.go_on()
    sql(street.engine, "UPDATE cases SET due_at = :at", at=first + 30 * MINUTE)
    street.work(first + 30 * MINUTE)
    assert in_doubt(street)
    street.run()
    street.agrees()


def test_an_old_key_whose_charge_was_approved_is_found_by_reading(serve: Serve) -> None:
    """The worker was away for two days after the bank had said yes: the reading settles it."""
    street = ready(serve)
    street.fault("500_after")
    street.go_on()
    sql(street.engine, "UPDATE attempts SET sent_at = sent_at - interval '2 days'")
    street.run()
    [attempt] = the_attempts(street.engine)
    assert (attempt.state, street.summary["writes"]) == ("succeeded", 1)


def test_a_slow_debit_is_waited_for(serve: Serve) -> None:
    """While the payment is being processed the attempt stays open and nothing else is sent."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    street.shown["payment_intent"] = {"status": "processing"}
    street.go_on()
    assert [row.state for row in the_attempts(street.engine)] == ["processing"]
    assert street.summary["writes"] == 1
    street.shown.clear()
    street.run()
    street.agrees()


def test_a_worker_that_lost_its_lease_in_the_call_writes_nothing(serve: Serve) -> None:
    """A second worker takes over while the first still waits for the bank: one charge, told by the later owner."""
    street = ready(serve)
    street.fault("slow", seconds=1.5)
    due = the_case(street.engine).due_at
    [(number, token)] = street.claim(due)
    slow = street.desk(due)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(charging.work, slow, number, token)
        until(lambda: bool(street.under_way))
        sql(street.engine, "UPDATE cases SET lease_until = now() - interval '1 second'")
        street.work(due)
        taken_over = the_attempts(street.engine)
        assert not first.result(timeout=20)
    assert the_attempts(street.engine) == taken_over
    street.run()
    assert len(street.ledger) == 1
    street.agrees()


def test_a_crash_between_commit_and_request_is_made_good(serve: Serve) -> None:
    """The attempt was written down and its worker died: after the lease the next one sends it, with the same key."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    # What a killed worker leaves: an attempt that was sent as far as anybody knows, and a lease that runs out.
    sql(street.engine, "UPDATE attempts SET state = 'sent', error = NULL")
    sql(street.engine, "UPDATE cases SET lease_token = gen_random_uuid(), lease_until = now() + interval '1 hour'")
    due = the_case(street.engine).due_at
    assert street.work(due) == 0
    sql(street.engine, "UPDATE cases SET lease_until = now() - interval '1 second'")
    assert street.work(due) == 1
    assert one(street.engine, "SELECT count(*) FROM attempts WHERE state = 'succeeded'") == 1
    street.agrees()


def test_a_payment_by_the_customer_during_doubt_is_not_charged_again(serve: Serve) -> None:
    """Our request never arrived and the customer paid by hand: the case is recovered and nothing more is sent."""
    street = ready(serve)
    street.fault("500_before")
    now = street.go_on()
    street.shown["invoice"] = {"status": "paid"}
    street.work(now + 5 * MINUTE)
    assert (the_case(street.engine).state, street.summary["writes"], street.ledger) == ("recovered", 1, [])
