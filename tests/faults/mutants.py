"""What if one rule of the protocol were missing? Each function breaks one, in the process that calls it.

They exist for the tests only: a rule whose absence no test sees could as well not be there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, select, update

from schedules import Policy
from worker import acts, charging, inbox, notices, stripe_gateway, sweep, tasks
from worker.cases import lock
from worker.desk import Desk
from worker.failpoints import failpoint
from worker.models import MACHINE_NOW, cases, events, outbox
from worker.notices import Item


def swap(module: ModuleType, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Put what ``make`` makes of a function in its place."""
    setattr(module, name, make(getattr(module, name)))


def fresh_key_per_try() -> None:
    """Every try of a request goes out under a key of its own."""
    swap(stripe_gateway, "_options", lambda own: lambda account, key=None: own(account, key and f"{key}-{uuid4()}"))


def no_fence_on_the_invoice() -> None:
    """An attempt without an outcome keeps nobody from making another one. (The test drops the indexes as well.)"""
    swap(acts, "under_way", lambda _own: lambda _db, _case_ids: set())


def claim_without_lease() -> None:
    """Whatever is due is taken, whoever holds it."""

    def make(own: Any) -> Any:
        def seen(db: Connection, *more: Any) -> Any:
            db.execute(update(cases).where(cases.c.lease_token.is_not(None)).values(lease_until=MACHINE_NOW))
            return own(db, *more)

        return seen

    swap(sweep, "_seen", make)


def settle_without_token() -> None:
    """An answer is written down by whoever has it, also by one whose lease is gone."""
    swap(charging, "lock_held", lambda _own: lambda db, tokens: {each: lock(db, each) for each in tokens})


def mail_before_commit() -> None:
    """A notice leaves before it is committed that somebody has taken it."""
    hand_over: list[Any] = []

    def make(own: Any) -> Any:
        def take(desk: Desk, message_id: int, hint: UUID) -> list[Item]:
            with desk.engine.connect() as db:
                message = db.execute(select(outbox).where(outbox.c.id == message_id)).one()
                case = db.execute(select(cases).where(cases.c.id == message.case_id)).one()
            hand_over[0](desk, tasks.mailbox(), [Item(message, case, other_card=False)])
            taken: list[Item] = own(desk, message_id, hint)
            return taken

        return take

    def done(own: Any) -> Any:
        hand_over.append(own)
        return lambda _desk, _mailbox, items: [None] * len(items)

    swap(notices, "_take", make)
    swap(notices, "_hand_over", done)


def handled_before_it_is() -> None:
    """An event is marked as handled, and then handled."""

    def handle_next(engine: Engine, policy: Policy, now: datetime) -> bool:
        with engine.begin() as db:
            row = db.execute(select(events).where(events.c.handled_at.is_(None)).limit(1)).one_or_none()
            if row is None:
                return False
            db.execute(update(events).where(events.c.id == row.id).values(handled_at=MACHINE_NOW))
        failpoint("before_event_commit")
        with engine.begin() as db:
            inbox.handle(db, inbox.parse_event(row.payload), policy, now)
        return True

    swap(inbox, "_handle_failed", lambda _own: lambda *_given: 0)
    swap(inbox, "_handle_next", lambda _own: handle_next)
