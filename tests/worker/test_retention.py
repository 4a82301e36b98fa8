"""Does what is old go, in small pieces, and does everything that anybody may still ask about stay?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from tests.worker.builders import DAY, HOUR, START, add_attempt, add_case, event, one, opened, payment, sql, told
from worker import inbox, watch
from worker.cases import record
from worker.retention import clean_up, forget
from worker.settings import Settings

KEEP = timedelta(days=90)
OLD = "UPDATE events SET {} = clock_timestamp() - interval '91 days' WHERE id = ANY(:ids)"


def keep(engine: Engine, number: int) -> list[str]:
    """Keep some events, unhandled; return their ids."""
    ids = [f"evt_{each}" for each in range(number)]
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(event(name, "customer.updated", {"id": "cus_1"})) for name in ids])
    return ids


def left(engine: Engine) -> list[str]:
    """Return the ids of the events that are kept."""
    return [row.id for row in sql(engine, "SELECT id FROM events ORDER BY id")]


def test_handled_events_go_after_their_time_and_no_others(engine: Engine) -> None:
    """One old and handled; one handled lately; one old that waits, and one old that was given up."""
    ids = keep(engine, 4)
    sql(engine, "UPDATE events SET handled_at = clock_timestamp() - interval '89 days' WHERE id = 'evt_1'")
    sql(engine, OLD.format("handled_at"), ids=ids[:1])
    sql(engine, OLD.format("received_at"), ids=ids)
    sql(engine, "UPDATE events SET tries = 5 WHERE id = 'evt_3'")
    assert clean_up(engine, KEEP) == {"events": 1, "heartbeats": 0}
    assert left(engine) == ids[1:]


def test_it_goes_in_batches_to_the_end(engine: Engine) -> None:
    """Seven events in batches of three."""
    sql(engine, OLD.format("handled_at"), ids=keep(engine, 7))
    assert clean_up(engine, KEEP, batch=3)["events"] == 7
    assert left(engine) == []


def test_a_row_that_somebody_holds_is_left_for_tomorrow(engine: Engine) -> None:
    """Nobody waits for anybody."""
    ids = keep(engine, 3)
    sql(engine, OLD.format("handled_at"), ids=ids)
    with engine.begin() as db:
        db.exec_driver_sql("SELECT id FROM events WHERE id = 'evt_1' FOR UPDATE")
        assert clean_up(engine, KEEP)["events"] == 2
    assert left(engine) == ["evt_1"]


def test_heartbeats_of_processes_that_are_gone_go_after_a_day(engine: Engine) -> None:
    """Those that beat stay."""
    watch.did(engine, "web", watch.ANSWERED)
    watch.did(engine, "worker", watch.TICK)
    sql(engine, "UPDATE heartbeats SET at = at - interval '25 hours' WHERE role = 'web'")
    assert clean_up(engine, KEEP) == {"events": 0, "heartbeats": 1}
    assert one(engine, "SELECT role FROM heartbeats") == "worker"


def test_cases_attempts_and_history_stay(engine: Engine) -> None:
    """However old they are: a dispute comes a year later."""
    opened(engine)
    ended = add_case(engine, payment_id="in_2", state="lost", closed_at=START, due_at=None)
    add_attempt(engine, ended, payment_id="in_2", state="declined", settled_at=START)
    sql(engine, "UPDATE attempts SET sent_at = sent_at - interval '5 years'")
    counted = "SELECT (SELECT count(*) FROM cases) + (SELECT count(*) FROM attempts) + (SELECT count(*) FROM history)"
    before = one(engine, counted)
    clean_up(engine, timedelta(days=31))
    assert one(engine, counted) == before


def test_histories_go_some_time_after_their_case_has_ended(engine: Engine) -> None:
    """In batches of two, past an old case that is open; what was disputed stays, for reports."""
    waits, ended = opened(engine), opened(engine, payment(2))
    close = "UPDATE cases SET state = 'lost', due_at = NULL, closed_at = :at WHERE id = :id"
    sql(engine, close, id=ended, at=START + HOUR)
    with engine.begin() as db:
        for what in ("disputed", "failed", "refunded", "failed"):
            record(db, ended, START + HOUR, what, {})
    lately = opened(engine, payment(3), now=START + DAY)
    sql(engine, close, id=lately, at=START + 2 * DAY)
    lines = len(told(engine, waits)), len(told(engine, lately))
    assert forget(engine, START + DAY, batch=2) == 4
    assert (len(told(engine, waits)), len(told(engine, lately))) == lines
    assert told(engine, ended) == ["disputed", "refunded"]
    assert forget(engine, START + DAY, batch=2) == 0


def test_a_history_that_is_young_is_not_looked_through(engine: Engine) -> None:
    """The first batch that ends later is the last one."""
    first, last = opened(engine, now=START + DAY), opened(engine, payment(2), now=START)
    sql(engine, "UPDATE cases SET state = 'lost', due_at = NULL, closed_at = :at", at=START + HOUR)
    assert forget(engine, START + 2 * HOUR, batch=1) == 0
    assert (len(told(engine, first)), len(told(engine, last))) == (2, 2)


def test_events_are_kept_for_longer_than_the_provider_lists_them() -> None:
    """Otherwise a catch-up would bring them again, as new."""
    given: Any = {"keep_events_days": 30}
    with pytest.raises(ValidationError, match="31"):
        Settings(**given)
