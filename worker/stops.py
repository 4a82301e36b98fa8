"""What keeps everybody from charging? Rows that each worker reads in the transaction that writes an attempt down.

``operator``: a person has stopped it. ``restored``: this database has forgotten charges of ours, and nothing is acted
upon until they are explained (``worker.restored``).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules.steps import utc_text
from worker.cases import Case
from worker.models import history, stops

OPERATOR, RESTORED = "operator", "restored"
DOOR = func.hashtextextended("dunning stops", 0)
HOLD_OPEN = select(func.pg_advisory_xact_lock_shared(DOOR))
LOOK_AGAIN = timedelta(minutes=5)
IN_FORCE = select(stops).order_by(stops.c.at, stops.c.name)


def stop(engine: Engine, name: str, reason: str, now: datetime) -> bool:
    """Stop charging; once this returns, nobody writes another attempt down. False: it was stopped so before."""
    with engine.begin() as db:
        new = put(db, name, reason, now)
    with engine.begin() as db:  # whoever has not seen the row holds the door open until the attempt is committed
        db.execute(select(func.pg_advisory_xact_lock(DOOR)))
    return new


def put(db: Connection, name: str, reason: str, now: datetime) -> bool:
    """Write a stop down, without waiting for those who are writing an attempt; say whether it is new."""
    row = upsert(stops).values(name=name, at=now, reason=reason).on_conflict_do_nothing()
    return db.execute(row.returning(stops.c.name)).first() is not None


def lift(db: Connection, name: str) -> bool:
    """Take a stop away; say whether there was one."""
    return db.execute(delete(stops).where(stops.c.name == name)).rowcount > 0


def in_force(db: Connection) -> list[Row[Any]]:
    """Return the stops, the oldest first."""
    return list(db.execute(IN_FORCE))


def shown(db: Connection) -> list[dict[str, str]]:
    """Return the stops as people and machines are told of them."""
    return [{"by": each.name, "since": utc_text(each.at), "why": each.reason} for each in in_force(db)]


def reason(db: Connection) -> str | None:
    """Return why nothing is charged, or None; then nobody can stop it unseen before the transaction ends."""
    db.execute(HOLD_OPEN)
    return "; ".join(f"{each.name}, {each.reason}" for each in in_force(db)) or None


def hold_back(db: Connection, case: Case, why: str, now: datetime) -> None:
    """Charging is stopped: give a case back, to be looked at again. Its history tells once."""
    told = {"why": f"charging is stopped: {why}"}
    before = history.c.case_id == case.id, history.c.what == "held_back", history.c.detail == told
    if db.execute(select(history.c.id).where(*before).limit(1)).first() is None:
        case.note(now, "held_back", told)
    case.let_go(now + LOOK_AGAIN)
