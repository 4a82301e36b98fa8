"""What is done once a day, by whichever worker comes first? Beat asks every hour, and any number of beats may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.models import MACHINE_NOW, jobs

AGAIN = timedelta(hours=23)
GIVEN_UP = timedelta(minutes=50)  # whoever began and was not heard of again


def begin(engine: Engine, name: str) -> bool:
    """Take a job on; False when it was done within a day, or another one is at it."""
    idle = jobs.c.begun_at < MACHINE_NOW - GIVEN_UP
    due = or_(jobs.c.done_at.is_(None), jobs.c.done_at < MACHINE_NOW - AGAIN)
    row = upsert(jobs).values(name=name)
    again = {"begun_at": MACHINE_NOW}
    taken = row.on_conflict_do_update(index_elements=["name"], set_=again, where=idle & due).returning(jobs.c.name)
    with engine.begin() as db:
        return db.execute(taken).first() is not None


def done(engine: Engine, name: str, result: dict[str, Any]) -> None:
    """Write down what came of a job."""
    with engine.begin() as db:
        db.execute(update(jobs).where(jobs.c.name == name).values(done_at=MACHINE_NOW, result=result))


def last(db: Connection, name: str) -> Row[Any] | None:
    """Return ``done_at`` and ``result`` of the last time that a job was done."""
    ended = jobs.c.name == name, jobs.c.done_at.is_not(None)
    return db.execute(select(jobs).where(*ended)).one_or_none()
