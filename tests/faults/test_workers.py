"""What do several workers do to one case, and one case to its workers? Real processes, real queue."""

from __future__ import annotations

import signal

import pytest

from tests.faults.conftest import Build
from tests.faults.harness import LEASE, House, town, until
from tests.worker.builders import one, sql
from worker.leases import claim_due
from worker.models import cases


def worked(house: House, *names: str) -> list[bool]:
    """Return what each hint to work on a case came to, as the workers logged it."""
    return [line["done"] for name in names for line in house.log(name) if line.get("event") == "work"]


def test_a_worker_that_sleeps_through_its_lease_writes_nothing(build: Build) -> None:
    """Fault 11: stopped in its call, it is overtaken; when it wakes its answer finds no lease."""
    house = build(town(1))
    house.start("worker")
    house.start("beat")
    house.open_all()
    house.read_all()
    house.gate.close("door")
    house.let_charges_be_due()
    until(house.gate.reached.is_set, "the call")
    house.process("worker").send_signal(signal.SIGSTOP)
    house.start("worker.2")
    house.ready("worker.2")
    house.expire()
    house.settle()
    before = sql(house.ground.engine, "SELECT * FROM attempts ORDER BY id")
    house.gate.open()
    house.process("worker").send_signal(signal.SIGCONT)
    until(lambda: False in worked(house, "worker"), "the first worker's answer")
    assert sql(house.ground.engine, "SELECT * FROM attempts ORDER BY id") == before
    assert (house.approved, house.bench.summary["attempts"]) == (1, 1)
    house.kept()


def test_one_message_delivered_five_times_at_once_makes_one_request(build: Build) -> None:
    """Fault 12: one of five claims the case, the others say that it is not theirs."""
    house = build(town(1))
    house.start("worker")
    house.open_all()
    house.read_all()
    house.let_charges_be_due()
    before = len(worked(house, "worker"))
    with house.ground.engine.begin() as db:
        [(case_id, token)] = claim_due(db, cases, house.now, 10, LEASE)
    for _ in range(5):
        house.celery.send_task("dunning.work", args=(case_id, token))
    until(lambda: len(worked(house, "worker")) == before + 5, "five answers")
    assert sorted(worked(house, "worker")[before:]) == [False] * 4 + [True]
    assert (house.gate.payments, house.approved) == (1, 1)


@pytest.mark.parametrize("good", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_case_that_kills_its_worker_is_set_aside_and_the_others_finish(build: Build, good: int) -> None:
    """Fault 24: three crashed claims, then no more; whoever was in flight beside it is not taken for it."""
    house = build(town(good + 1))
    poison = f"in_{good // 2}"
    house.start("worker")
    house.start("beat")
    house.open_all()
    house.read_all(limit=300)
    house.kill("worker")
    house.let_charges_be_due()
    deaths = 0
    while not house.quiet():
        house.start("worker", DUNNING_FAILPOINT=f"before_send {poison}")
        process = house.process("worker")
        until(lambda: process.poll() is not None or house.quiet(), "an end", 40 + good)  # noqa: B023
        deaths += process.poll() is not None
        house.kill("worker")
        house.expire()
        assert deaths <= 3, "the poison is taken again and again"
    assert (deaths, house.approved) == (3, good)
    aside = sql(house.ground.engine, "SELECT payment_id FROM cases WHERE quarantined_at IS NOT NULL")
    assert [row.payment_id for row in aside] == [poison]
    assert one(house.ground.engine, "SELECT count(*) FROM history WHERE what = 'quarantined'") == 1
    house.kept()
