"""How is something handled again? An event is put back among those that wait, a failed job is asked for again.

Both are safe at any time and while workers run: an event is a hint, which opens one case or asks for a reading, and
no job charges but by a lease, an attempt written down and the provider's own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.inbox import MOST_TRIES
from worker.logs import redact
from worker.models import MACHINE_NOW, cases, events, failures, outbox

AGAIN: dict[str, Any] = {"handled_at": None, "tries": 0, "retry_at": None, "error": None}
TABLES = {"dunning.work": cases, "dunning.deliver": outbox, "dunning.tell": outbox}
Send = Callable[[str], object]
GIVEN_UP = (events.c.handled_at.is_(None), events.c.tries >= MOST_TRIES)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event or job: whether it is handled again, and why, or why not."""

    asked: str
    done: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def chosen(db: Connection, limit: int | None, *which: ColumnElement[bool]) -> list[str]:
    """Return the ids of the stored events that are meant, the oldest first."""
    found = select(events.c.id).where(*which).order_by(events.c.received_at, events.c.id).limit(limit)
    return list(db.execute(found).scalars())


def replay_events(engine: Engine, ids: Iterable[str], *, dry: bool) -> Iterator[Verdict]:
    """Let each event be handled again by the next tick; tell why that is allowed, or why it is not done."""
    for event_id in ids:
        with engine.begin() as db:
            row = db.execute(select(events).where(events.c.id == event_id).with_for_update()).one_or_none()
            verdict = _verdict(db, event_id, row)
            if verdict.done and not dry:
                db.execute(update(events).where(events.c.id == event_id).values(AGAIN))
        yield verdict


def _verdict(db: Connection, event_id: str, row: Row[Any] | None) -> Verdict:
    if row is None:
        return Verdict(event_id, done=False, why="no such event; `dunning sync` reads those that Stripe still lists")
    if row.handled_at is None and row.tries < MOST_TRIES:
        return Verdict(event_id, done=False, why="it waits already, and is handled by the next tick")
    subject = row.payload["data"]["object"].get("id")
    found = db.execute(select(cases.c.id, cases.c.state).where(cases.c.payment_id == subject)).one_or_none()
    case = f"case {found.id} ({found.state})" if found else "the customer's open cases"
    before = f"given up: {row.error}" if row.handled_at is None else "handled before"
    return Verdict(event_id, done=True, why=f"{before}; {case} can only be read again, nothing is charged by an event")


# Jobs


def note_failure(engine: Engine, task: str, row_id: int | None, error: BaseException) -> None:
    """Keep a job that ended in an error nobody expected: one row for each, with its count."""
    told = redact(f"{type(error).__name__}: {error}")[:500]
    new = upsert(failures).values(task=task, row_id=row_id, error=told)
    more = {"error": told, "count": failures.c.count + 1, "last_at": MACHINE_NOW}
    with engine.begin() as db:
        db.execute(new.on_conflict_do_update(index_elements=["task", "row_id"], set_=more))


def failed_jobs(db: Connection) -> list[Row[Any]]:
    """Return the jobs that failed and were neither replayed nor dropped since, the latest first."""
    return list(db.execute(select(failures).order_by(failures.c.last_at.desc(), failures.c.id)))


def take(db: Connection, job_id: int) -> Row[Any] | None:
    """Remove a failed job from the list, and return it; None when it is not there."""
    return db.execute(delete(failures).where(failures.c.id == job_id).returning(failures)).one_or_none()


def replay_jobs(engine: Engine, ids: Iterable[int], now: datetime, send: Send, *, dry: bool) -> Iterator[Verdict]:
    """Let each failed job be done again; what is about a case or a message is made due, and claimed like all else."""
    for job_id in ids:
        with engine.connect() as db, db.begin() as transaction:
            job = take(db, job_id)
            if job is not None and job.task in TABLES:
                _make_due(db, TABLES[job.task], job.row_id, now)
            if dry:
                transaction.rollback()
        if job is None:
            yield Verdict(str(job_id), done=False, why="no such failed job")
            continue
        if job.task not in TABLES and not dry:
            send(job.task)
        yield Verdict(str(job_id), done=True, why=f"{job.task}: {_how(job)}")


def _make_due(db: Connection, table: Table, row_id: int, now: datetime) -> None:
    """Bring forward what is open; whoever claims it decides anew whether anything is to be done."""
    mine = table.c.id == row_id, table.c.due_at > now
    db.execute(update(table).where(*mine).values(due_at=now))


def _how(job: Row[Any]) -> str:
    if job.task in TABLES:
        return f"number {job.row_id} is due now; it is claimed and decided anew"
    return "asked for again"
