"""After a restore from an old backup: is nothing charged twice, and is everything known again in the end?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, delete, insert, select

from schedules import Decline
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    FUNDS,
    HOUR,
    MINUTE,
    START,
    event,
    one,
    opened,
    payment,
    sql,
    the_attempts,
    the_case,
    told,
)
from worker import catchup, charging, inbox, restored, stops, sweep
from worker.ingest import Counts
from worker.models import attempts, metadata

Backup = dict[str, list[Row[Any]]]


def back_up(engine: Engine) -> Backup:
    """Return every row of every table."""
    with engine.connect() as db:
        return {table.name: list(db.execute(select(table))) for table in metadata.sorted_tables}


def restore(engine: Engine, backup: Backup) -> None:
    """Put all tables back to what they were."""
    with engine.begin() as db:
        for table in reversed(metadata.sorted_tables):
            db.execute(delete(table))
        for table in metadata.sorted_tables:
            if backup[table.name]:
                db.execute(insert(table), [row._asdict() for row in backup[table.name]])


def catch_up(bench: Bench, now: datetime) -> None:
    """Read the events since the cursor, as the task does."""
    for _ in catchup.missed_events(bench.desk(now), Counts()):
        pass


def tick(bench: Bench, now: datetime) -> int:
    """Sweep once, and carry out every hint; return how many there were."""
    hints: list[tuple[str, int, str]] = []
    sweep.tick(bench.desk(now), lambda *hint: hints.append(hint))
    for task, number, token in hints:
        if task == "dunning.work":
            charging.work(bench.desk(now), number, UUID(token))
    return len(hints)


def run(bench: Bench, most: int = 100) -> None:
    """Tick whenever something is due, until the case has ended."""
    for _ in range(most):
        row = the_case(bench.engine)
        if row.closed_at is not None:
            return
        tick(bench, max(row.due_at, bench.instant[0]))
    raise AssertionError("the case does not end")  # noqa: EM101, TRY003


def in_mode(engine: Engine) -> bool:
    """Say whether the installation only reads."""
    with engine.connect() as db:
        return any(each.name == stops.RESTORED for each in stops.in_force(db))


@pytest.fixture
def lived(serve: Serve) -> Callable[..., tuple[Bench, Backup, list[Row[Any]]]]:
    """Return a function that lets a case live for some charges after a backup; with it the attempts it then had."""

    def live(*declines: Decline, charges: int = 2) -> tuple[Bench, Backup, list[Row[Any]]]:
        bench = serve(Scripted(declines=list(declines)))
        catch_up(bench, START)
        opened(bench.engine)
        tick(bench, START)
        backup = back_up(bench.engine)
        for _ in range(100):
            if len(bench.ledger) == charges:
                break
            tick(bench, max(the_case(bench.engine).due_at, bench.instant[0]))
        return bench, backup, the_attempts(bench.engine)

    return live


def kept(rows: list[Row[Any]]) -> list[tuple[Any, ...]]:
    """Return what matters of attempts."""
    return [(row.number, row.idempotency_key, row.state, row.charge_id, row.fingerprint) for row in rows]


def test_refused_charges_are_written_down_again_and_counted(lived: Any) -> None:
    """Two refusals after the backup: each has its attempt again, and the third charge is the third."""
    bench, backup, before = lived(FUNDS, FUNDS)
    restore(bench.engine, backup)
    now = bench.instant[0] + HOUR
    catch_up(bench, now)
    assert tick(bench, now + MINUTE) == 0  # the keys are seen; what happened until then is still to be read
    assert in_mode(bench.engine)
    catch_up(bench, now + MINUTE)
    tick(bench, now + MINUTE)
    assert not in_mode(bench.engine)
    assert kept(the_attempts(bench.engine)) == kept(before)
    assert [each.decline["code"] for each in the_attempts(bench.engine)] == [FUNDS.code] * 2
    assert told(bench.engine).count("restored") == 2
    run(bench)
    assert [row.state for row in the_attempts(bench.engine)] == ["declined", "declined", "succeeded"]
    assert len(bench.ledger) == 3
    bench.agrees()


def test_a_payment_that_was_won_is_known_again_by_its_means(lived: Any) -> None:
    """The charge had succeeded: nothing is charged, and the case is our silent retry's."""
    bench, backup, _ = lived(charges=1)
    restore(bench.engine, backup)
    now = bench.instant[0] + HOUR
    stops.stop(bench.engine, stops.RESTORED, "from a backup", now)
    assert tick(bench, now) == 0
    catch_up(bench, now)
    tick(bench, now)
    row, [attempt] = the_case(bench.engine), the_attempts(bench.engine)
    assert (row.state, row.recovered_by, attempt.state) == ("recovered", "silent_retry", "succeeded")
    assert not in_mode(bench.engine)
    assert len(bench.ledger) == 1
    bench.agrees()


def test_nothing_is_claimed_before_the_events_are_read_to_the_end(lived: Any) -> None:
    """The bank cannot be asked yet: no charge, no notice and no end of a case, however late it is."""
    bench, backup, _ = lived(FUNDS, charges=1)
    restore(bench.engine, backup)
    now = START + 60 * DAY
    stops.stop(bench.engine, stops.RESTORED, "from a backup", now)
    for _ in range(3):
        assert tick(bench, now) == 0
    assert (the_case(bench.engine).state, len(bench.ledger)) == ("silent", 1)


def test_a_hint_of_before_charges_nothing(lived: Any) -> None:
    """A worker that has claimed the case already is held back like by an operator."""
    bench, backup, _ = lived(FUNDS, charges=1)
    restore(bench.engine, backup)
    stops.stop(bench.engine, stops.RESTORED, "from a backup", START)
    bench.work(the_case(bench.engine).due_at)
    assert (the_attempts(bench.engine), len(bench.ledger)) == ([], 1)


def test_the_same_charge_within_a_day_is_a_replay(lived: Any) -> None:
    """Nobody has noticed the restore: the key is the same, and the bank repeats its answer instead of charging."""
    bench, backup, before = lived(FUNDS, charges=1)
    restore(bench.engine, backup)
    bench.work(the_case(bench.engine).due_at)
    assert len(bench.ledger) == 1
    assert {row.idempotency_key for row in the_attempts(bench.engine)} <= {
        before[0].idempotency_key,
        before[0].charge_id,
    }


def test_a_charge_that_a_reading_took_for_another_s_is_ours_again(lived: Any) -> None:
    """A reading came before the events: it is one attempt, under our key, and counted once."""
    bench, backup, before = lived(FUNDS, charges=1)
    restore(bench.engine, backup)
    now = bench.instant[0] + HOUR
    bench.work(now)
    assert [row.state for row in the_attempts(bench.engine)] == ["foreign"]
    for _ in range(2):
        catch_up(bench, now)
        tick(bench, now)
    assert kept(the_attempts(bench.engine))[0] == kept(before)[0]
    run(bench)
    assert the_case(bench.engine).state == "recovered"
    bench.agrees()


def test_a_case_that_was_opened_after_the_backup_has_its_attempts(serve: Serve) -> None:
    """The whole case is lost: its renewal opens it again, and its charges are known."""
    bench = serve(Scripted(declines=[FUNDS]))
    catch_up(bench, START - HOUR)
    backup = back_up(bench.engine)
    opened(bench.engine)
    while not bench.ledger:
        tick(bench, max(the_case(bench.engine).due_at, bench.instant[0]))
    restore(bench.engine, backup)
    now = bench.instant[0] + HOUR
    for _ in range(2):
        catch_up(bench, now)
        tick(bench, now)
    case_id = one(bench.engine, "SELECT id FROM cases")
    assert [row.state for row in the_attempts(bench.engine, case_id)] == ["declined"]
    assert not in_mode(bench.engine)


def known(engine: Engine, name: str, kind: str, key: str, **more: Any) -> None:
    """Keep an event that names one of our keys, and read the events to their end."""
    payload = event(name, kind, **{"request": {"id": "req_1", "idempotency_key": key}, **more})
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(payload)])
    sql(engine, "INSERT INTO cursors (name, position) VALUES ('events', '2100-01-01') ON CONFLICT DO NOTHING")


def our_key(engine: Engine, number: int = 1, payment_id: str = "in_1") -> str:
    """Return a key as this installation makes it."""
    installed = one(engine, "SELECT id FROM install")
    return f"dunning-{installed}-{payment_id}-{number}"


def test_a_charge_of_which_little_is_told_is_read_and_never_sent_again(serve: Serve) -> None:
    """Its event shows neither success nor refusal: two readings an hour apart settle it, without a request."""
    bench = serve()
    opened(bench.engine)
    tick(bench, START)
    known(bench.engine, "evt_9", "invoice.updated", our_key(bench.engine))
    tick(bench, START)
    assert [row.state for row in the_attempts(bench.engine)] == ["unknown"]
    for _ in range(2):
        assert bench.ledger == []
        tick(bench, the_case(bench.engine).due_at)
    assert [row.state for row in the_attempts(bench.engine)] == ["not_executed"]
    run(bench)
    assert (the_case(bench.engine).state, len(bench.ledger)) == ("recovered", 1)


def test_two_such_charges_of_a_payment_are_settled_by_one_reading(serve: Serve) -> None:
    """Only one attempt may wait for its outcome; the mode ends all the same."""
    bench = serve()
    opened(bench.engine)
    tick(bench, START)
    for number in (1, 2):
        known(bench.engine, f"evt_{number}", "invoice.updated", our_key(bench.engine, number))
    tick(bench, START)
    assert [row.state for row in the_attempts(bench.engine)] == ["unknown", "not_executed"]
    assert not in_mode(bench.engine)


def test_a_refusal_without_a_charge_is_a_refusal(serve: Serve) -> None:
    """The provider refused before any bank was asked: only the invoice's event tells."""
    bench = serve()
    opened(bench.engine)
    known(bench.engine, "evt_9", "invoice.payment_failed", our_key(bench.engine))
    tick(bench, START)
    assert [row.state for row in the_attempts(bench.engine)] == ["declined"]


@pytest.mark.parametrize("key", ["dunning-11111111-2222-3333-4444-555555555555-in_1-1", "dunning-end-in_1-cancel", "x"])
def test_a_key_of_another_installation_means_nothing(serve: Serve, key: str) -> None:
    """Nor does one of an ending: only a charge of ours without its attempt does."""
    bench = serve()
    opened(bench.engine)
    known(bench.engine, "evt_9", "invoice.updated", key)
    inbox.drain(bench.engine, bench.policy, START)
    assert not in_mode(bench.engine)


def test_what_cannot_be_explained_keeps_the_mode(serve: Serve) -> None:
    """A second success of one payment has no place among the attempts: a person has to look."""
    bench = serve()
    opened(bench.engine)
    for number in (1, 2):
        known(bench.engine, f"evt_{number}", "invoice.paid", our_key(bench.engine, number))
    assert tick(bench, START) == tick(bench, START) == 0
    assert in_mode(bench.engine)
    with bench.engine.connect() as db:
        assert [row.state for row in db.execute(select(attempts))] == ["succeeded"]


def test_every_open_case_is_read_before_it_moves(serve: Serve) -> None:
    """Its time is up by what the backup knew; by the reading the customer has paid."""
    bench = serve(Scripted([payment()], acts=[("paid", START + HOUR)]))
    opened(bench.engine)
    tick(bench, START)
    now = START + 60 * DAY
    bench.instant[0] = now
    stops.stop(bench.engine, stops.RESTORED, "from a backup", now)
    sql(bench.engine, "INSERT INTO cursors (name, position) VALUES ('events', :now)", now=now)
    assert restored.converge(bench.engine, now)
    tick(bench, now)
    assert the_case(bench.engine).state == "recovered"
