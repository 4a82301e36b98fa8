"""Who may work on a row, and for how long? Leases with a token, on PostgreSQL's one clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, Connection, Table, and_, column, func, or_, select, update

from worker.models import MACHINE_NOW

# A case waits so long at most for a worker, and there for a thread, as a share of the lease that is taken then: what is
# lost with the queue is found again after it.
PATIENCE = 1 / 3


def claim_due(
    db: Connection, table: Table, now: datetime, limit: int, lease_seconds: float, *which: ColumnElement[bool]
) -> list[tuple[int, str]]:
    """Lease up to ``limit`` rows of ``table`` that are due at ``now`` and that nobody holds, the oldest first.

    Returns their ids, each with the token of its lease. Rows that another claimer is taking are passed over, and so
    are those to which ``which`` does not apply.
    """
    free = or_(table.c.lease_token.is_(None), table.c.lease_until < MACHINE_NOW)
    place = _place_in(table)
    due = select(place.label("place")).where(and_(table.c.due_at <= now, free, *which))
    first = due.order_by(table.c.due_at, table.c.id).limit(limit)
    chosen = first.with_for_update(skip_locked=True).cte("chosen")
    lease = {"lease_token": func.gen_random_uuid(), "lease_until": lease_end(lease_seconds)}
    told = table.c.due_at, table.c.id, table.c.lease_token
    taken = update(table).where(place == chosen.c.place).values(**lease).returning(*told)
    return [(row.id, str(row.lease_token)) for row in sorted(db.execute(taken), key=lambda row: row[:2])]


def _place_in(table: Table) -> ColumnClause[Any]:
    """Return where a row lies: its number would be looked for in an index, which of millions is in no memory."""
    place: ColumnClause[Any] = column("ctid")
    place.table = table
    return place


def lease_end(lease_seconds: float) -> Any:
    """Return the SQL instant, on PostgreSQL's clock, at which a lease taken now runs out."""
    return MACHINE_NOW + timedelta(seconds=lease_seconds)
