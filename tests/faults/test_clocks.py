"""Is each step done once, and none early, whatever the beats and the clocks do? Real beats and workers."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from tests.faults.conftest import Build
from tests.faults.harness import House, town, until
from tests.worker.builders import one, sql

HOUR = timedelta(hours=1)


def ticks(house: House, *workers: str) -> int:
    """Return how often workers have swept."""
    words = [str(line["event"]) for name in workers for line in house.log(name)]
    return sum("Task dunning.tick[" in word and "succeeded" in word for word in words)


def sent_once(house: House, number: int) -> None:
    """See that each invoice was asked for once at the bank, and paid."""
    asked = Counter({path: count for path, count in house.gate.asked.items() if path.endswith("/pay")})
    assert set(asked.values()) == {1}
    assert (len(asked), house.approved) == (number, number)
    house.kept()


def crowd(build: Build, number: int, beats: int, workers: int) -> tuple[House, list[str]]:
    """Return an installation of so many beats and workers with charges due, and the names of its workers."""
    house = build(town(number))
    names = [f"worker.{n}" for n in range(workers)]
    for name in (*names, *(f"beat.{n}" for n in range(beats))):
        house.start(name)
    house.open_all()
    house.ready(*names)
    house.read_all(120)
    return house, names


@pytest.mark.parametrize(("beats", "workers", "number"), [(2, 2, 20), pytest.param(10, 8, 400, marks=pytest.mark.slow)])
def test_many_beats_and_workers_do_each_step_once(build: Build, beats: int, workers: int, number: int) -> None:
    """Fault 23: however many ticks at once, each charge is one request, and a daily job runs once a day."""
    house, _ = crowd(build, number, beats, workers)
    house.let_charges_be_due()
    house.settle(120)
    sent_once(house, number)
    sql(house.ground.engine, "UPDATE cursors SET begun_at = begun_at - interval '1 day'")
    lists = house.gate.asked["/v1/invoices"]
    for _ in range(10):
        house.celery.send_task("dunning.sweep_invoices")
    until(lambda: house.gate.asked["/v1/invoices"] > lists, "the daily job")
    swept = one(house.ground.engine, "SELECT position FROM cursors WHERE name = 'invoices'")
    assert swept <= house.now
    assert house.gate.asked["/v1/invoices"] == lists + 1


def test_a_clock_that_goes_back_or_stands_still_charges_nobody_early(build: Build) -> None:
    """Fault 23: an hour early nothing is sent; an hour late, without a beat till then, everything is, once."""
    house = build(town(20))
    house.start("worker")
    house.open_all()
    house.read_all()
    due = one(house.ground.engine, "SELECT min(due_at) FROM cases")
    house.start("beat")
    for early in (due - HOUR, due - 2 * HOUR):
        house.at(early)
        before = ticks(house, "worker")
        until(lambda before=before: ticks(house, "worker") > before + 3, "ticks")  # type: ignore[misc]
        assert house.gate.payments == 0
    house.kill("beat")
    house.let_charges_be_due(timedelta(hours=1))
    house.at(house.now + HOUR)
    house.start("beat")
    house.settle()
    sent_once(house, 20)
    house.at(due - HOUR)
    before = ticks(house, "worker")
    until(lambda: ticks(house, "worker") > before + 3, "ticks")
    sent_once(house, 20)
