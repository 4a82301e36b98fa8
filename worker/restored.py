"""What did we do that this database has forgotten? After a restore from a backup the provider's events tell.

``dunning restored``, or the first event that names a charge of ours without an attempt, puts the installation into a
mode in which it only reads: nothing is claimed and nothing is charged. It ends by itself once the events are read to
their end and handled, every charge of ours has its attempt again, and every open case will be read before it moves.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules.facts import by_name
from worker import stops
from worker.attempts import KEY_LIFE
from worker.cases import Case, save, under_way
from worker.catchup import LATE, accounts, cursor_of
from worker.endings import means_of
from worker.evidence import keep_foreign, next_number
from worker.facts import known
from worker.inbox import ENDED, FAILED, REFUSED, Event, failed_charge, failed_payment, parse_event, waiting
from worker.keys import NAMED, lost, payment_of
from worker.logs import log
from worker.models import MACHINE_NOW, OPEN_STATES, attempts, cases, cursors, events
from worker.models import stops as stop_rows


def converge(engine: Engine, now: datetime) -> bool:
    """Explain what can be explained; True when nothing is left of a restore, and work may go on."""
    with engine.begin() as db:
        since = db.execute(select(stop_rows.c.at).where(stop_rows.c.name == stops.RESTORED).with_for_update()).scalar()
        if since is None:
            return True
        if waiting(db) or not _read_to_the_end(db, accounts(engine), since):
            return False
        found = lost(db)
        left = [key for key in found if not _explain(db, key, now)]
        if not left:
            _read_all_again(db, now)
            stops.lift(db, stops.RESTORED)
    if left:
        log.error("charges of ours that nobody can explain", keys=left)
        return False
    log.warning("every charge is explained after a restore", written=len(found))
    return True


def _read_to_the_end(db: Connection, of: list[str | None], since: datetime) -> bool:
    """Whether every account's events were read up to where the mode began."""
    read = cursors.c.name.in_([cursor_of(account) for account in of]), cursors.c.position >= since - LATE
    return len(db.execute(select(cursors.c.name).where(*read)).all()) == len(of)


def _read_all_again(db: Connection, now: datetime) -> None:
    """Let every open case be looked at now, and none move on what it knew before the restore."""
    every = select(cases.c.id).where(cases.c.state.in_(OPEN_STATES)).order_by(cases.c.id).with_for_update()
    held = every.cte("held")
    fresh = {"news": cases.c.news + 1, "due_at": func.least(cases.c.due_at, now)}
    db.execute(update(cases).where(cases.c.id == held.c.id).values(**fresh))


def _explain(db: Connection, key: str, now: datetime) -> bool:
    """Write the attempt of a key down, as the events tell it; False when there is no place for it."""
    told = [
        parse_event(each)
        for each in db.execute(
            select(events.c.payload).where(NAMED.in_([key])).order_by(events.c.received_at)
        ).scalars()
    ]
    payment_id = payment_of(db, key)
    row = db.execute(select(cases).where(cases.c.payment_id == payment_id).with_for_update()).one_or_none()
    case = Case(row) if row else None
    refused = next((failed_charge(each) for each in told if each.type == REFUSED), None)
    if refused is not None and not any(ENDED.get(each.type) == "paid" for each in told):
        keep_foreign(db, refused, case.id if case else None)
        ours = {"idempotency_key": key, "payment_id": payment_id, "state": "declined"}
        named = update(attempts).where(attempts.c.idempotency_key == refused.id).values(**ours)
        written = db.execute(named.returning(attempts)).one_or_none()
    else:
        values = _attempt(db, told, case) | {"idempotency_key": key, "payment_id": payment_id}
        new = upsert(attempts).values(values).on_conflict_do_nothing().returning(attempts)
        written = db.execute(new).one_or_none()
    if case is not None and written is not None:
        _remember(db, case, written, now)
    return written is not None


def _attempt(db: Connection, told: list[Event], case: Case | None) -> dict[str, Any]:
    """Return an attempt of which no refused charge tells: what is not known of it will be read from the provider."""
    failed = next((failed_payment(each) for each in told if each.type in FAILED), None)
    if any(ENDED.get(each.type) == "paid" for each in told):
        state = "succeeded"
    elif failed is not None:
        state = "declined"
    else:
        state = "unknown" if _can_wait(db, case) else "not_executed"
    at = min(each.created for each in told)
    return {
        "case_id": case.id if case else None,
        "number": next_number(case.id if case else None),
        "state": state,
        "at": at,
        "sent_at": at - KEY_LIFE,  # with which method it left is not known: it is read, and never sent again
        "settled_at": None if state == "unknown" else MACHINE_NOW,
        "card": case.card if case else {},
        "fingerprint": case.card.get("fingerprint") if case else None,
        "amount_minor": case.amount_minor if case else 0,
        "currency": case.currency if case else "",
        "decline": by_name(failed.decline) if failed and state == "declined" else None,
        "charge_before": case.charge_id if case else None,
    }


def _can_wait(db: Connection, case: Case | None) -> bool:
    """Whether the case is open and no other attempt of it waits: the reading that settles that one settles both."""
    return case is not None and case.state in OPEN_STATES and not under_way(db, [case.id])


def _remember(db: Connection, case: Case, attempt: Row[Any], now: datetime) -> None:
    """Tell the case's history, and by which means its money came back, if it did."""
    case.note(now, "restored", {"attempt": attempt.number, "state": attempt.state})
    if case.state == "recovered":
        case.change(recovered_by=means_of(case, known(db, [case], now)[case.id], case.closed_at))
    save(db, [case])
