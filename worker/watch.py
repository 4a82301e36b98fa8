"""Is somebody at work? Heartbeats are written by work that was done, not by a process that merely lives.

A tick that was done shows that beat, the broker, a worker and the database work together. All ages are machine time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, extract, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import SQLAlchemyError

from worker import database, inbox, jobs, stops
from worker.limits import circuit
from worker.models import MACHINE_NOW, cases, heartbeats

OFTEN_ENOUGH = timedelta(seconds=5)
LATE_TICKS, LATE_SECONDS = 6, 30.0  # whichever is later
TICK, SENT, ANSWERED = "dunning.tick", "sent", "answered"


def did(engine: Engine, role: str, what: str) -> None:
    """Note that this process did something, at most every few seconds; a note that fails costs no work."""
    row = upsert(heartbeats).values(role=role, name=f"{socket.gethostname()}:{os.getpid()}", what=what)
    old = heartbeats.c.at < MACHINE_NOW - OFTEN_ENOUGH
    again = row.on_conflict_do_update(index_elements=list(heartbeats.primary_key), set_={"at": MACHINE_NOW}, where=old)
    with suppress(SQLAlchemyError), engine.begin() as db:
        db.execute(again)


class Pulse:
    """Notes what one process does, and asks no database before the next note is due."""

    def __init__(self, engine: Engine, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._role, self._clock = engine, role, clock
        self._next: dict[str, float] = {}

    def did(self, what: str) -> None:
        """Note that this process did something."""
        at = self._clock()
        if at >= self._next.get(what, at):
            self._next[what] = at + OFTEN_ENOUGH.total_seconds()
            did(self._engine, self._role, what)


@dataclass(frozen=True, slots=True)
class Health:
    """What is to be known about an installation. ``why`` tells what keeps it from being ready."""

    live: bool
    why: tuple[str, ...]
    shown: dict[str, Any]

    @property
    def ready(self) -> bool:
        """Whether work is done."""
        return not self.why

    def as_json(self) -> dict[str, Any]:
        """Return it as ``/healthz`` tells it."""
        return {"healthy": self.live, "live": True, "ready": self.ready, "why": list(self.why), **self.shown}


def health(engine: Engine, tick_seconds: float, now: datetime) -> Health:
    """Look at the database and at what was done lately; not ``live`` when the database does not answer."""
    try:
        database.require_current(engine)
        with engine.connect() as db:
            return Health(live=True, why=tuple(_late(db, tick_seconds)), shown=_shown(db, now))
    except database.MigrationMissing as error:
        return Health(live=True, why=(str(error),), shown={})
    except SQLAlchemyError as error:
        return Health(live=False, why=(f"database: {type(error).__name__}",), shown={})


def _late(db: Connection, tick_seconds: float) -> list[str]:
    limit = max(LATE_TICKS * tick_seconds, LATE_SECONDS)
    done, sent = age(db, "worker", TICK), age(db, "beat", SENT)
    if done is not None and done <= limit:
        return []
    since = "no tick yet" if done is None else f"no tick for {done:.0f} s"
    if sent is None or sent > limit:
        return [f"{since}: is beat running?"]
    return [f"{since}, though beat sent one {sent:.0f} s ago: is a worker running, and is the broker within its reach?"]


def _shown(db: Connection, now: datetime) -> dict[str, Any]:
    audit = jobs.last(db, "audit")
    return {
        "events_waiting": inbox.waiting(db),
        "cases_due": due(db, now)[0],
        "cases_quarantined": quarantined(db),
        "provider": circuit(db),
        "stopped": stops.shown(db),
        "audit": audit and {"at": audit.done_at.isoformat(), **audit.result},
    }


def quarantined(db: Connection) -> int:
    """Return how many open cases are set aside for a person."""
    aside = cases.c.quarantined_at.is_not(None), cases.c.closed_at.is_(None)
    return int(db.execute(select(func.count()).select_from(cases).where(*aside)).scalar_one())


def age(db: Connection, role: str, what: str) -> float | None:
    """Return for how many seconds no process of a role has done something, or None when none ever did."""
    latest = select(func.max(heartbeats.c.at)).where(heartbeats.c.role == role, heartbeats.c.what == what)
    found = db.execute(select(extract("epoch", MACHINE_NOW - latest.scalar_subquery()))).scalar()
    return None if found is None else float(found)


def due(db: Connection, now: datetime) -> tuple[int, float]:
    """Return how many cases are due, and for how many seconds of business time the oldest of them is."""
    waiting = cases.c.due_at <= now, cases.c.quarantined_at.is_(None)
    number, oldest = db.execute(select(func.count(), func.min(cases.c.due_at)).where(*waiting)).one()
    return number, (now - oldest).total_seconds() if oldest else 0.0
