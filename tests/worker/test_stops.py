"""Does nobody charge once charging is stopped, whatever was under way, and does everything go on afterwards?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, func, select

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    HOUR,
    LOST,
    MINUTE,
    START,
    one,
    opened,
    payment,
    the_attempts,
    the_case,
    told,
    until,
)
from worker import charging, stops
from worker.models import history

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def stop(engine: Engine, reason: str = "the bank called") -> None:
    """Stop charging as an operator does."""
    stops.stop(engine, stops.OPERATOR, reason, START)


def resume(engine: Engine) -> None:
    """End that."""
    with engine.begin() as db:
        assert stops.lift(db, stops.OPERATOR)


def ready(serve: Serve, world: Scripted | None = None) -> Bench:
    """Return a bank with one case whose card has been read and whose charge is planned."""
    bench = serve(world or Scripted())
    opened(bench.engine)
    bench.work(START)
    return bench


def held_back(engine: Engine) -> list[str]:
    """Return why the case was held back, one for each line of its history."""
    with engine.connect() as db:
        lines = db.execute(select(history.c.detail).where(history.c.what == "held_back").order_by(history.c.id))
        return [line["why"] for line in lines.scalars()]


def test_a_due_charge_is_held_back_and_made_when_charging_goes_on(serve: Serve) -> None:
    """Looked at every five minutes without a question to the bank, told once, with its plan kept."""
    bench = ready(serve)
    plan = the_case(bench.engine).step
    stop(bench.engine)
    first = bench.go_on()
    before = bench.summary["requests"]
    assert bench.go_on() == first + 5 * MINUTE
    assert bench.summary["requests"] == before
    row = the_case(bench.engine)
    assert (row.state, row.step, row.due_at, row.lease_token) == ("silent", plan, first + 10 * MINUTE, None)
    assert (the_attempts(bench.engine), bench.ledger) == ([], [])
    assert held_back(bench.engine) == ["charging is stopped: operator, the bank called"]
    resume(bench.engine)
    bench.run()
    assert the_case(bench.engine).state == "recovered"
    bench.agrees()


def test_a_second_stop_is_told_anew_and_the_first_one_keeps_its_reason(serve: Serve) -> None:
    """Who comes later sees since when, and the history tells each stop once."""
    bench = ready(serve)
    stop(bench.engine)
    assert not stops.stop(bench.engine, stops.OPERATOR, "another", START + HOUR)
    bench.go_on()
    resume(bench.engine)
    stop(bench.engine, "again")
    bench.go_on()
    assert held_back(bench.engine) == [
        "charging is stopped: operator, the bank called",
        "charging is stopped: operator, again",
    ]


def test_two_workers_write_no_attempt_after_the_stop_has_returned(serve: Serve) -> None:
    """In the middle of twenty charges: what was under way is settled, and nothing more leaves."""
    cards = [replace(CARD, fingerprint=f"CARD{number}") for number in range(20)]
    bench = serve(Scripted([payment(number + 1, card=card) for number, card in enumerate(cards)]))
    for number, card in enumerate(cards):
        opened(bench.engine, payment(number + 1, card=card))
    bench.work(START)
    now = one(bench.engine, "SELECT max(due_at) FROM cases")
    hints = iter(bench.claim(now))
    desk = bench.desk(now)

    def worker() -> None:
        for case_id, token in hints:
            charging.work(desk, case_id, token)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(worker) for _ in range(2)]
        until(lambda: one(bench.engine, "SELECT count(*) FROM attempts") > 2)
        stop(bench.engine)
        written = one(bench.engine, "SELECT count(*) FROM attempts")
        for each in running:
            each.result(60)
    assert 2 < written < 20
    assert one(bench.engine, "SELECT count(*) FROM attempts WHERE state = 'succeeded'") == written
    assert len(bench.ledger) == written
    assert one(bench.engine, "SELECT count(*) FROM cases WHERE state = 'recovered'") == written
    bench.agrees()


def test_a_worker_that_has_read_already_writes_nothing_down(serve: Serve) -> None:
    """It waits for the card's turn when charging is stopped: the transaction that would write sees it."""
    bench = ready(serve)
    now = the_case(bench.engine).due_at
    desk, [(case_id, token)] = bench.desk(now), bench.claim(now)
    with ThreadPoolExecutor(1) as pool:
        with bench.engine.begin() as db:
            db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(CARD.fingerprint, 0))))
            work = pool.submit(charging.work, desk, case_id, token)
            until(lambda: one(bench.engine, BLOCKED) == 1)
            stop(bench.engine)
        assert work.result(30)
    assert (the_attempts(bench.engine), bench.ledger) == ([], [])
    assert the_case(bench.engine).due_at == now + 5 * MINUTE


def test_a_stop_waits_for_those_who_have_not_seen_it(engine: Engine) -> None:
    """An attempt that is being written down is committed before the command returns."""
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as db:
            assert stops.reason(db) is None
            stopping = pool.submit(stop, engine)
            until(lambda: one(engine, BLOCKED) == 1)
            assert not stopping.done()
        stopping.result(30)


def test_an_outcome_that_is_unknown_is_read_and_nothing_is_sent_again(serve: Serve) -> None:
    """The first request never arrived: while charging is stopped its key is not used again."""
    bench = ready(serve)
    bench.fault("reset_before", times=3)
    bench.go_on()
    stop(bench.engine)
    bench.go_on()
    assert (the_attempts(bench.engine)[0].state, bench.ledger) == ("unknown", [])
    resume(bench.engine)
    bench.run()
    assert len(bench.ledger) == 1
    bench.agrees()


def test_a_charge_that_was_made_is_settled_while_charging_is_stopped(serve: Serve) -> None:
    """The bank had charged and given no answer: the case recovers."""
    bench = ready(serve)
    bench.fault("500_after")
    bench.go_on()
    stop(bench.engine)
    bench.go_on()
    assert the_case(bench.engine).state == "recovered"
    bench.agrees()


def test_notices_and_readings_go_on(serve: Serve) -> None:
    """Only charges are stopped: the customer is asked for another card all the same."""
    bench = serve(Scripted([payment(decline=LOST)]))
    stop(bench.engine)
    opened(bench.engine, payment(decline=LOST))
    bench.work(START)
    bench.go_on()
    assert the_case(bench.engine).state == "contacting"
    assert "held_back" not in told(bench.engine)


@pytest.mark.parametrize("name", ["operator", "restored"])
def test_each_stop_is_enough(engine: Engine, name: str) -> None:
    """And one does not lift the other."""
    for each in (stops.OPERATOR, stops.RESTORED):
        stops.stop(engine, each, "why", START)
    with engine.begin() as db:
        stops.lift(db, name)
        [left] = stops.shown(db)
        assert stops.reason(db) == f"{left['by']}, why"
    assert left == {"by": ({"operator", "restored"} - {name}).pop(), "since": "2026-01-12T15:00:00Z", "why": "why"}
