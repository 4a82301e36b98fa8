"""Does the sweep claim what is due, and no more than can be done before the claims run out?"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from celery.exceptions import Ignore
from redis import Redis
from sqlalchemy import insert

from tests.worker.bench import Bench, Serve
from tests.worker.builders import START, add_case, add_notice, case_row, event, one, sql
from worker import inbox, sweep, tasks
from worker.checks import redis_url
from worker.embedded import Servers
from worker.models import cases

REPO = Path(__file__).parents[2]
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


@pytest.mark.parametrize(
    ("due", "full", "most"),
    [(0, False, 0), (8, False, 1), (12, False, 1), (13, False, 2), (300, False, 25), (1000, False, 50), (70, True, 50)],
)
def test_hints_travel_together_only_where_there_is_one_for_every_worker(due: int, most: int, *, full: bool) -> None:
    """In their order, none twice; of few each has a message of its own, unless as many wait as may be under way."""
    hints = [(number, "token") for number in range(due)]
    sent = tasks.bundles(hints, full=full)
    assert [hint for few in sent for hint in few] == hints
    assert max(map(len, sent), default=0) == most


@pytest.mark.usefixtures("configured")
def test_of_cases_in_one_message_each_has_its_own_fate(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ends in an error that nobody expected, which is kept under its number; the others are worked on."""
    street = serve()
    monkeypatch.setenv("DUNNING_STRIPE_API_BASE", f"http://127.0.0.1:{street.port}")
    many(street, 3)
    hints = [(number, str(token)) for number, token in street.claim(START)]
    sql(
        street.engine, "UPDATE cases SET decline = '5' WHERE id = 2"
    )  # so nobody has written it, and nobody can read it
    tasks.work_each.apply(args=(hints,))
    assert sql(street.engine, "SELECT id FROM cases WHERE lease_token IS NOT NULL") == [(2,)]
    assert sql(street.engine, "SELECT task, row_id FROM failures") == [("dunning.work", 2)]
    assert one(street.engine, "SELECT sum(claims) FROM cases") == 0


@pytest.mark.usefixtures("configured")
def test_a_tick_sends_what_it_claimed_in_messages_that_a_worker_understands(serve: Serve, running: Servers) -> None:
    """Every case that is due is in one of them, and all are worked on."""
    street = serve()
    many(street, 3)
    with Redis.from_url(redis_url(running.broker_url)) as broker:
        broker.flushdb()
        # A process of its own: Celery reads its settings once, and this one may have read them before they were set.
        subprocess.run([sys.executable, "-c", "from worker import tasks; tasks.tick.apply()"], cwd=REPO, check=True)
        [*messages] = broker.lrange("celery", 0, -1)
    bodies = [json.loads(base64.b64decode(json.loads(each)["body"])) for each in messages]
    assert sorted(case_id for [[hints], *_] in bodies for case_id, _token in hints) == [1, 2, 3]
