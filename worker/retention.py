"""What is not needed any more? Handled events, heartbeats and, where asked for, old histories, in short transactions.

Cases, attempts and messages stay: they are what a budget, a dispute and an operator ask about years later.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, Table, delete, select, tuple_

from worker.models import MACHINE_NOW, cases, events, heartbeats, history

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


def forget(engine: Engine, before: datetime, batch: int = BATCH) -> int:
    """Delete the histories of cases that ended before an instant of business time; return how many lines went.

    What was disputed and refunded stays: reports subtract it. Lines are looked through in the order of their numbers,
    which is about that of their instants, and not beyond the first batch that ends later.
    """
    ended, kept = select(cases.c.id).where(cases.c.closed_at < before), history.c.what.in_(("disputed", "refunded"))
    total = after = 0
    while True:
        some = select(history.c.id, history.c.at).where(history.c.id > after).order_by(history.c.id).limit(batch)
        with engine.begin() as db:
            looked = db.execute(some).all()
            if not looked:
                return total
            among = history.c.id.between(looked[0].id, looked[-1].id), history.c.at < before
            total += db.execute(delete(history).where(*among, ~kept, history.c.case_id.in_(ended))).rowcount
        if looked[-1].at >= before:
            return total
        after = looked[-1].id


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
