"""What is due? One tick finds waiting events, due cases and due messages, and sends their ids to the workers.

Any number of ticks at once is safe: every row is taken by one of them (SKIP LOCKED), the claim is committed before
a hint is sent, and a lost hint only lets its lease run out.

A case that ends its worker takes others with it, which are as suspect as itself. So whoever was in two crashes in a
row is worked on alone; a third one in a row is its own doing, and it is set aside for a person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, func, select, update

from worker import restored, stops
from worker.cases import record
from worker.charging import Desk
from worker.failpoints import failpoint
from worker.hooks import BY_WEBHOOK
from worker.inbox import drain
from worker.leases import claim_due
from worker.models import MACHINE_NOW, cases, outbox

# A hint waits for a worker so long, as a share of the lease that the worker takes then: what is lost with the queue is
# found again after it.
PATIENCE = 1 / 3
A_SECOND = 5  # are claimed for each second of that, which is less than one worker does in it
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


def tick(desk: Desk, send: Send) -> Swept:
    """Handle waiting events, at most ``EVENTS``, then claim what is due and ``send(task, id, token)`` a hint for each.

    After a restore nothing is claimed until every charge of ours is explained.
    """
    handled = drain(desk.engine, desk.policy, desk.now, EVENTS)
    if not restored.converge(desk.engine, desk.now):
        return Swept(handled, 0, 0)
    due, messages = _claim_cases(desk), _claim_messages(desk)
    for case_id, token in due:
        send("dunning.work", case_id, token)
    for message_id, token in messages:
        send("dunning.deliver", message_id, token)
    return Swept(handled, len(due), len(messages) + tell(desk, send))


def tell(desk: Desk, send: Send) -> int:
    """Claim webhooks that are due while few are under way, and send a hint for each; return how many.

    Whoever is done with one calls this too, so a restore has to be asked about here as well.
    """
    by_webhook = outbox.c.channel.in_(BY_WEBHOOK)
    held = select(func.count()).where(by_webhook, outbox.c.lease_until >= MACHINE_NOW)
    with desk.engine.begin() as db:
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("webhooks", 0))))
        if any(each.name == stops.RESTORED for each in stops.in_force(db)):
            return 0
        free = max(AT_ONCE - db.execute(held).scalar_one(), 0)
        taken = claim_due(db, outbox, desk.now, free, patience(desk), by_webhook)
    for message_id, token in taken:
        send("dunning.tell", message_id, token)
    return len(taken)


def _claim_cases(desk: Desk) -> list[tuple[int, str]]:
    with desk.engine.begin() as db:
        _quarantine(db, desk.now)
        free = cases.c.quarantined_at.is_(None)
        room = _room(db, cases, desk)
        taken = claim_due(db, cases, desk.now, room, patience(desk), free, cases.c.claims < SUSPECT)
        if _nobody_is_alone(db):
            taken += claim_due(db, cases, desk.now, 1, patience(desk), free, cases.c.claims >= SUSPECT)
        failpoint("before_claim_commit")
    failpoint("after_claim_commit")
    return taken


def _claim_messages(desk: Desk) -> list[tuple[int, str]]:
    with desk.engine.begin() as db:
        room = _room(db, outbox, desk)
        return claim_due(db, outbox, desk.now, room, patience(desk), outbox.c.channel.not_in(BY_WEBHOOK))


def patience(desk: Desk) -> float:
    """Return for how many seconds a hint is good."""
    return PATIENCE * desk.lease_seconds


def _room(db: Connection, table: Table, desk: Desk) -> int:
    """Return how many more rows can be claimed before the last of them would wait in the queue until it is worthless.

    Beyond that workers would be busy with hints that are worth nothing any more, and the later the more.
    """
    held = select(func.count()).where(table.c.lease_until >= MACHINE_NOW)
    return max(int(A_SECOND * patience(desk)) - int(db.execute(held).scalar_one()), 0)


def _quarantine(db: Connection, now: datetime) -> None:
    """Set aside what was claimed three times in a row and never given back."""
    lost = cases.c.lease_token.is_not(None), cases.c.lease_until < MACHINE_NOW, cases.c.claims > SUSPECT
    aside = {"quarantined_at": MACHINE_NOW, "lease_token": None, "lease_until": None}
    for row in db.execute(update(cases).where(*lost).values(aside).returning(cases.c.id, cases.c.claims)):
        record(db, row.id, now, "quarantined", {"crashes": row.claims})


def _nobody_is_alone(db: Connection) -> bool:
    """Whether the place of the one suspect that is worked on is free, and ours until the transaction ends."""
    ours = select(func.pg_try_advisory_xact_lock(func.hashtextextended("suspects", 0)))
    held = select(cases.c.id).where(cases.c.lease_until >= MACHINE_NOW, cases.c.claims >= SUSPECT)
    return bool(db.execute(ours).scalar()) and db.execute(held.limit(1)).first() is None
