"""What is not needed any more? Handled events and heartbeats, deleted in short transactions.

Cases, attempts, messages and history stay: they are what a budget, a dispute and an operator ask about years later.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, Engine, Table, delete, select, tuple_

from worker.models import MACHINE_NOW, events, heartbeats

BATCH = 1000
SILENT = timedelta(days=1)


def clean_up(engine: Engine, keep_events: timedelta, batch: int = BATCH) -> dict[str, int]:
    """Delete what is old; return how many rows of each table went. Events that wait or were given up stay."""
    old_event = events.c.handled_at < MACHINE_NOW - keep_events
    old_beat = heartbeats.c.at < MACHINE_NOW - SILENT
    return {
        "events": _delete(engine, events, old_event, batch),
        "heartbeats": _delete(engine, heartbeats, old_beat, batch),
    }


def _delete(engine: Engine, table: Table, old: ColumnElement[bool], batch: int) -> int:
    """Delete in batches; rows that somebody has locked are left for tomorrow."""
    key = list(table.primary_key.columns)
    some = select(*key).where(old).limit(batch).with_for_update(skip_locked=True)
    total, gone = 0, batch
    while gone == batch:
        with engine.begin() as db:
            gone = db.execute(delete(table).where(tuple_(*key).in_(some))).rowcount
        total += gone
    return total
