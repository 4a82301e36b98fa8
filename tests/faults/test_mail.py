"""Does each notice arrive once when workers die while they deliver? The postbox of a real SMTP server is the judge."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from signal import SIGALRM
from threading import Event

import pytest
from sqlalchemy import Engine

from tests.faults.conftest import Build, SetStage
from tests.faults.harness import town, until
from tests.faults.passes import Stage
from tests.worker.bench import Scripted
from tests.worker.builders import LOST, START, one, opened, payment, sql
from tests.worker.postbox import Postbox, smtp
from worker.models import UNCERTAIN

LEFT = "SELECT count(*) FROM outbox WHERE due_at IS NOT NULL"
WORKERS = ("worker", "worker.2")
THREADS = 4  # of a worker of the harness


def judged(engine: Engine, box: Postbox, number: int) -> int:
    """See that each notice arrived once, or is uncertain and arrived once at most; return how many are uncertain."""
    arrived = Counter(box.ids)
    told = "SELECT payment_id, error, delivered_at FROM outbox JOIN cases ON cases.id = case_id WHERE kind = 'notice'"
    rows = sql(engine, told)
    assert len(rows) == number
    assert set(arrived) <= {f"<{row.payment_id}-first@localhost>" for row in rows}
    for row in rows:
        times = arrived[f"<{row.payment_id}-first@localhost>"]
        if row.error == UNCERTAIN:
            assert (times <= 1, row.delivered_at) == (True, None), row.payment_id
        else:
            assert (times, row.error, row.delivered_at) == (1, None, START), row.payment_id
    return sum(row.error == UNCERTAIN for row in rows)


def speaking(set_stage: SetStage, number: int, url: str) -> Stage:
    """Return a stage with so many notices to deliver."""
    failed = [payment(n, decline=LOST) for n in range(1, number + 1)]
    stage = set_stage(Scripted(failed), planned=False, DUNNING_SMTP_URL=url)
    for each in failed:
        opened(stage.bench.engine, each)
    while stage.bench.work(START):
        pass
    assert one(stage.bench.engine, LEFT) == number
    return stage


def test_killed_before_the_content_leaves_it_is_delivered_by_the_next_one(set_stage: SetStage) -> None:
    """Nobody had the message, so it is not uncertain."""
    with smtp() as (box, url):
        stage = speaking(set_stage, 1, url)
        assert stage.start(place="before_mail_commit") == -9
        stage.expire()
        assert stage.start(1) == 0
    assert judged(stage.bench.engine, box, 1) == 0


def test_what_a_mail_server_refuses_is_no_crash_of_the_worker(set_stage: SetStage) -> None:
    """It is a line in the log and in the history; no exception reaches the queue."""
    with smtp("451 later") as (box, url):
        stage = speaking(set_stage, 1, url)
        assert (stage.start(), box.taken) == (0, [])
    assert one(stage.bench.engine, "SELECT error FROM outbox") == "the message was refused (451)"


@pytest.mark.parametrize(("place", "arrived"), [("before_mail", 0), ("after_mail", 1)])
def test_killed_around_the_content_it_is_uncertain(set_stage: SetStage, place: str, arrived: int) -> None:
    """From the instant at which it may leave until it is written down that it has, a crash leaves a doubt."""
    with smtp() as (box, url):
        stage = speaking(set_stage, 1, url)
        assert stage.start(place=place) == -9
        stage.expire()
        assert stage.start(1) == 0
    assert (judged(stage.bench.engine, box, 1), len(box.taken)) == (1, arrived)


@pytest.mark.parametrize("number", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_workers_that_die_at_random_instants_lose_and_double_no_notice(
    set_stage: SetStage, dice: Random, number: int
) -> None:
    """Two at a time, each ended by the kernel somewhere; only what was just leaving then may be uncertain."""
    enough = number / 30
    with smtp() as (box, url), ThreadPoolExecutor(2) as pool:
        stage = speaking(set_stage, number, url)

        def live(worker: int) -> int:
            longest = 0.4 if stage.exits.count(-SIGALRM) < enough else 2.0  # a quick machine is done in two seconds
            return stage.forks[worker].run({**stage.environment, "DIES_AFTER": str(dice.uniform(0.05, longest))})

        while one(stage.bench.engine, LEFT):
            stage.exits += pool.map(live, (0, 1))
            stage.expire()
    died = stage.exits.count(-SIGALRM)
    assert set(stage.exits) <= {0, -SIGALRM}
    assert died >= enough
    assert judged(stage.bench.engine, box, number) <= died


@pytest.mark.slow
def test_workers_that_are_killed_while_they_deliver_lose_and_double_no_notice(build: Build, dice: Random) -> None:
    """500 notices, two Celery workers of which one is killed again and again, and started anew."""
    number, kills, pause = 500, 0, Event()
    with smtp() as (box, url):
        house = build(town(number, lost=1), DUNNING_SMTP_URL=url)
        house.open_all()
        while house.bench.work(START):
            pass
        for name in (*WORKERS, "beat"):
            house.start(name)
        house.ready(*WORKERS)
        while not house.quiet():
            goal = len(box.taken) + dice.randint(1, 15)
            until(lambda goal=goal: len(box.taken) >= goal or house.quiet(), "messages")  # type: ignore[misc]
            pause.wait(dice.uniform(0, 0.1))
            name = dice.choice(WORKERS)
            house.kill(name)
            house.start(name)
            house.expire()
            kills += 1
        engine = house.ground.engine
        assert one(engine, LEFT) == 0
        assert judged(engine, box, number) <= 2 * THREADS * kills
    assert kills >= 5
