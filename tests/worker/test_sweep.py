"""Does the sweep claim what is due, and no more than can be done before the claims run out?"""

from __future__ import annotations

import pytest
from celery.exceptions import Ignore
from sqlalchemy import insert

from tests.worker.bench import Bench, Serve
from tests.worker.builders import START, add_case, add_notice, case_row, event, one, sql
from worker import inbox, sweep, tasks
from worker.models import cases

EXPIRE = "UPDATE {} SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_token IS NOT NULL"


def claimed(street: Bench) -> list[tuple[str, int]]:
    """Sweep once; return the task and the number of each hint."""
    hints: list[tuple[str, int]] = []
    sweep.tick(street.desk(START), lambda task, number, _token: hints.append((task, number)))
    return hints


def many(street: Bench, number: int) -> int:
    """Make so many cases that are due; return how many can be claimed at once."""
    with street.engine.begin() as db:
        db.execute(insert(cases), [case_row(payment_id=f"in_{n}") for n in range(number)])
    return int(sweep.A_SECOND * sweep.patience(street.desk(START)))


def test_no_more_is_claimed_than_is_done_within_a_lease(serve: Serve) -> None:
    """The oldest first; what is given back makes room for as much, and what was never taken is claimed again."""
    street = serve()
    room = many(street, 2000)
    assert 0 < room < 2000
    first = claimed(street)
    assert [number for _, number in first] == list(range(1, room + 1))
    assert claimed(street) == []
    sql(street.engine, "UPDATE cases SET lease_token = NULL, lease_until = NULL, due_at = NULL, state = 'lost',"
        " closed_at = :now WHERE id <= 7", now=START)  # fmt: skip
    assert [number for _, number in claimed(street)] == list(range(room + 1, room + 8))
    sql(street.engine, EXPIRE.format("cases"))
    assert [number for _, number in claimed(street)] == list(range(8, room + 8))


@pytest.mark.parametrize("waiting", [0, 3])
def test_cases_that_wait_hold_up_no_message(serve: Serve, waiting: int) -> None:
    """Each has room of its own."""
    street = serve()
    room = many(street, 2000)
    claimed(street)
    number = add_case(street.engine, payment_id="in_x", due_at=START)
    messages = [add_notice(street.engine, number, name=f"n{each}") for each in range(waiting)]
    assert room > waiting
    assert claimed(street) == [("dunning.deliver", message) for message in messages]


def test_events_that_wait_hold_up_no_case(serve: Serve) -> None:
    """A tick handles so many of them, then what is due has its turn; the next one goes on."""
    street = serve()
    add_case(street.engine, payment_id="in_x", due_at=START)
    told = [event(f"evt_{n}", "customer.updated", {"object": "customer", "id": f"cus_{n}"}) for n in range(150)]
    with street.engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(each) for each in told])
    assert claimed(street) == [("dunning.work", 1)]
    left = "SELECT count(*) FROM events WHERE handled_at IS NULL"
    assert one(street.engine, left) == 150 - sweep.EVENTS
    claimed(street)
    assert one(street.engine, left) == 0


def test_of_a_process_two_threads_tick_and_the_others_work() -> None:
    """A tick that meets two others leaves it to them: it counts as no sign of life."""
    with tasks.TICKING, tasks.TICKING, pytest.raises(Ignore):
        tasks.tick()
