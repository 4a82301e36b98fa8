"""What is due? One tick finds waiting events, due cases and due messages, and sends their ids to the workers.

Any number of ticks at once is safe: every row is taken by one of them (SKIP LOCKED), the claim is committed before
a hint is sent, and a lost hint only lets its lease run out.

A case that ends its worker takes others with it, which are as suspect as itself. So whoever was in two crashes in a
row is worked on alone; a third one in a row is its own doing, and it is set aside for a person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Integer,
    Row,
    Select,
    Subquery,
    Table,
    bindparam,
    exists,
    func,
    select,
    update,
)

from worker import restored, stops
from worker.cases import record
from worker.desk import Desk
from worker.failpoints import failpoint
from worker.hooks import BY_WEBHOOK
from worker.inbox import WAITING, drain
from worker.leases import PATIENCE, claim_due
from worker.models import INSTANT, MACHINE_NOW, cases, events, outbox
from worker.models import stops as stop_rows

A_SECOND = 10  # are claimed for each second that a hint is good, which is less than one worker does in it
SUSPECT = 2  # crashes in a row
EVENTS = 100  # are handled before cases and messages have their turn
AT_ONCE = 2  # webhooks under way: a slow endpoint holds up as many threads of all workers, and no more

Send = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """What one tick found."""

    events: int
    cases: int
    messages: int
    full: bool = False  # as many cases are due as may be under way, or more


def tick(desk: Desk, send: Send) -> Swept:
    """Handle waiting events, at most ``EVENTS``, then claim what is due and ``send(task, id, token)`` a hint for each.

    After a restore nothing is claimed until every charge of ours is explained.
    """
    first, handled = _first(desk), 0
    if first.event:
        handled = drain(desk.engine, desk.policy, desk.now, EVENTS)
        first = _first(desk)
    if first.restored and not restored.converge(desk.engine, desk.now):
        return Swept(handled, 0, 0)
    due, full = _claim_cases(desk) if first.case else ([], False)
    messages = _claim_messages(desk) if first.message else []
    for case_id, token in due:
        send("dunning.work", case_id, token)
    for message_id, token in messages:
        send("dunning.deliver", message_id, token)
    told = tell(desk, send) if first.message else 0
    return Swept(handled, len(due), len(messages) + told, full)


def _first(desk: Desk) -> Row[Any]:
    """Look what there is to do, in one statement: most ticks find nothing."""
    with desk.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        return db.execute(FIRST, {"now": desk.now}).one()


def tell(desk: Desk, send: Send) -> int:
    """Claim webhooks that are due while few are under way, and send a hint for each; return how many.

    Whoever is done with one calls this too, so a restore has to be asked about here as well.
    """
    with desk.engine.begin() as db:
        if not _seen(db, WEBHOOKS, desk).due:
            return 0
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("webhooks", 0))))
        if any(each.name == stops.RESTORED for each in stops.in_force(db)):
            return 0
        free = max(AT_ONCE - _seen(db, WEBHOOKS, desk).held, 0)
        taken = claim_due(db, outbox, desk.now, free, patience(desk), BY_HOOK)
    for message_id, token in taken:
        send("dunning.tell", message_id, token)
    return len(taken)


def _claim_cases(desk: Desk) -> tuple[list[tuple[int, str]], bool]:
    with desk.engine.begin() as db:
        seen = _seen(db, CASES, desk)
        suspects = seen.suspects
        if suspects:  # they are in nobody's way
            seen = _seen(db, SOUND_CASES, desk)
        taken = _claim(db, cases, desk, seen, FREE, SOUND)
        if suspects:
            _quarantine(db, desk)
            taken += _claim_suspect(db, desk)
        failpoint("before_claim_commit")
    failpoint("after_claim_commit")
    return taken, seen.due >= _most(desk)


def _claim_messages(desk: Desk) -> list[tuple[int, str]]:
    with desk.engine.begin() as db:
        return _claim(db, outbox, desk, _seen(db, MESSAGES, desk), ~BY_HOOK)


def patience(desk: Desk) -> float:
    """Return for how many seconds a hint is good."""
    return PATIENCE * desk.lease_seconds


def _claim(
    db: Connection, table: Table, desk: Desk, seen: Row[Any], *which: ColumnElement[bool]
) -> list[tuple[int, str]]:
    """Claim as many rows as there is room for until the last of them would wait in the queue until it is worthless.

    Beyond that workers would be busy with hints that are worth nothing any more, and the later the more.
    """
    room = _most(desk) - seen.held if seen.due > seen.held else 0
    return claim_due(db, table, desk.now, room, patience(desk), *which) if room > 0 else []


def _most(desk: Desk) -> int:
    """Return how many rows of a table are under way at most."""
    return int(A_SECOND * patience(desk))


def _seen(db: Connection, look: Executable, desk: Desk) -> Row[Any]:
    return db.execute(look, {"now": desk.now, "most": _most(desk)}).one()


def _quarantine(db: Connection, desk: Desk) -> None:
    """Set aside what was claimed three times in a row and never given back."""
    lost = cases.c.due_at <= desk.now, cases.c.lease_until < MACHINE_NOW, cases.c.claims > SUSPECT
    aside = {"quarantined_at": MACHINE_NOW, "lease_token": None, "lease_until": None}
    for row in db.execute(update(cases).where(*lost).values(aside).returning(cases.c.id, cases.c.claims)):
        record(db, row.id, desk.now, "quarantined", {"crashes": row.claims})


def _claim_suspect(db: Connection, desk: Desk) -> list[tuple[int, str]]:
    """Claim one suspect unless one is worked on; nobody else does until we commit."""
    ours = select(func.pg_try_advisory_xact_lock(func.hashtextextended("suspects", 0)))
    if not db.execute(ours).scalar() or _seen(db, SUSPECTS, desk).held:
        return []
    return claim_due(db, cases, desk.now, 1, patience(desk), FREE, ~SOUND)


# The looks, built once. Leases have no index of their own: so a claim stays within the page of its row and touches no
# index. What is held is among the oldest that are due, so no more of them are read than may be under way.

NOW = bindparam("now", type_=INSTANT)


def _front(table: Table, *which: ColumnElement[bool]) -> Subquery:
    told = (table.c[name] for name in ("lease_until", "claims") if name in table.c)
    oldest = select(*told).where(table.c.due_at <= NOW, *which)
    return oldest.order_by(table.c.due_at, table.c.id).limit(bindparam("most", type_=Integer)).subquery()


def _counted(front: Subquery) -> Select[*tuple[int, ...]]:
    held = func.count().filter(front.c.lease_until >= MACHINE_NOW)
    suspects = [func.count().filter(front.c.claims >= SUSPECT).label("suspects")] if "claims" in front.c else []
    return select(func.count().label("due"), held.label("held"), *suspects).select_from(front)


FREE, SOUND, BY_HOOK = cases.c.quarantined_at.is_(None), cases.c.claims < SUSPECT, outbox.c.channel.in_(BY_WEBHOOK)
# The least of all, for which PostgreSQL takes the index whatever it expects; for "is there one" it may read the table.
FIRST_CASE = select(func.min(cases.c.due_at)).where(cases.c.due_at <= NOW, FREE).scalar_subquery()
FIRST_MESSAGE = select(func.min(outbox.c.due_at)).where(outbox.c.due_at <= NOW).scalar_subquery()
FIRST_EVENT = select(func.min(events.c.received_at)).where(WAITING).scalar_subquery()
FIRST = select(
    FIRST_CASE.label("case"),
    FIRST_MESSAGE.label("message"),
    FIRST_EVENT.label("event"),
    exists().where(stop_rows.c.name == stops.RESTORED).label("restored"),
)
CASES, SOUND_CASES, SUSPECTS = (_counted(_front(cases, FREE, *which)) for which in ((), (SOUND,), (~SOUND,)))
MESSAGES, WEBHOOKS = _counted(_front(outbox, ~BY_HOOK)), _counted(_front(outbox, BY_HOOK))
