"""What did we miss? Events that never reached us, and open invoices of which no event ever told.

The provider lists its events for thirty days. They are read in slices of time, the oldest slice first: whatever is
made meanwhile lies in a later one. A cursor for each account says up to when everything is known. It moves with the
events of its slice, in one transaction, and only from where the reader found it: any number of readers is safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, select, union, update
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Decline
from worker.cases import Case
from worker.inbox import FAILED, OURS, BadEvent, Event, failed_payment, keep, parse_event
from worker.models import MACHINE_NOW, OPEN_STATES, cases, cursors, events
from worker.planning import look_again, open_case
from worker.readings import instant
from worker.stripe_gateway import NoAccess, Refused

if TYPE_CHECKING:
    from worker.desk import Desk
    from worker.ingest import Counts
    from worker.readings import Reading

LISTED = timedelta(days=30)  # how long Stripe lists an event
LATE = timedelta(minutes=10)  # an event may be listed later than it was made, and two clocks differ
FIRST, LONGEST = timedelta(hours=1), timedelta(days=1)  # of the slices: the first one, and where little happens
FEW = 100  # events of a slice, after which the next one may be longer
BATCH = 500
CHARGED_WITHIN = timedelta(days=7)  # of an invoice's making: days pass until it is finalized and charged
NEVER = timedelta(0)


def accounts(engine: Engine) -> list[str | None]:
    """Return the accounts to look at: the merchant's own, and the connected ones of which we have heard."""
    with engine.connect() as db:
        heard = union(*(select(table.c.account).where(table.c.account.is_not(None)) for table in (events, cases)))
        return [None, *sorted(db.execute(heard).scalars())]


def cursor_of(account: str | None) -> str:
    """Return the name of the cursor over an account's events."""
    return f"events {account}" if account else "events"


def missed_events(  # noqa: PLR0913 - what to read, where to count, where to begin
    desk: Desk,
    counts: Counts,
    account: str | None = None,
    *,
    first: timedelta = LONGEST,
    since: datetime | None = None,
    pause: timedelta = NEVER,
) -> Iterator[int]:
    """Keep the events listed since the cursor, counting in ``counts``; yields how many each slice held.

    ``first``: how far to go back where there is no cursor yet. ``since``: put the cursor there. ``pause``: do
    nothing when another reader began within it. Raises ``GatewayError``; what was kept stays kept.
    """
    name = cursor_of(account)
    position = _begin(desk.engine, name, desk.now - first, since, pause)
    begin, end = max(position or desk.now, desk.now - LISTED), desk.now + LATE
    width = FIRST
    while position is not None and begin < end:
        until = min(begin + width, end)
        listed = desk.gateway.events(OURS, begin, until, account)
        known = max(position, min(until, desk.now - LATE))
        found = _keep(desk.engine, name, (position, known), _parsed(listed, account, counts), counts)
        begin, position = until if found == known else found, found
        width = min(2 * width, LONGEST) if len(listed) < FEW else FIRST
        yield len(listed)


def _begin(engine: Engine, name: str, first: datetime, since: datetime | None, pause: timedelta) -> datetime | None:
    """Return where a cursor stands, and note that its reading begins; None when another began within ``pause``."""
    moved = {"begun_at": MACHINE_NOW, **({"position": since} if since else {})}
    row = upsert(cursors).values(name=name, position=since or first)
    idle = cursors.c.begun_at < MACHINE_NOW - pause
    taken = row.on_conflict_do_update(index_elements=["name"], set_=moved, where=idle).returning(cursors.c.position)
    with engine.begin() as db:
        return db.execute(taken).scalar()


def _parsed(listed: list[dict[str, Any]], account: str | None, counts: Counts) -> list[Event]:
    """Return the events to keep; what cannot be read, or is none of ours, is counted here."""
    found = []
    for each in listed:
        try:
            event = parse_event({**each, "account": account or each.get("account")})  # an own list may not name it
        except BadEvent as error:
            counts.rejected.append({"event": str(each.get("id")), "reason": str(error)})
            continue
        if event.ours:
            found.append(event)
        else:
            counts.ignore(event)
    return found


def _keep(engine: Engine, name: str, move: tuple[datetime, datetime], found: list[Event], counts: Counts) -> datetime:
    """Keep events and move the cursor, unless another reader moved it; return where it stands."""
    here = cursors.c.name == name
    with engine.begin() as db:
        new = sum(len(keep(db, found[start : start + BATCH])) for start in range(0, len(found), BATCH))
        db.execute(update(cursors).where(here, cursors.c.position == move[0]).values(position=move[1]))
        position: datetime = db.execute(select(cursors.c.position).where(here)).scalar_one()
    counts.new, counts.duplicate = counts.new + new, counts.duplicate + len(found) - new
    return position


def sweep_invoices(
    desk: Desk, account: str | None = None, *, every: timedelta = NEVER, pause: timedelta = NEVER
) -> tuple[int, int]:
    """Compare the cases with the open invoices of an account; return how many were opened, and are read again.

    Nothing is done when the last one was within ``every``, or another began within ``pause``. Raises ``GatewayError``.
    """
    name = f"invoices {account}" if account else "invoices"
    position = _begin(desk.engine, name, desk.now - LISTED, None, pause)
    if position is None or (every and position > desk.now - every):
        return 0, 0
    since = desk.now - timedelta(days=desk.policy.deadline_days) - CHARGED_WITHIN
    found = {invoice["id"]: invoice for invoice in desk.gateway.open_invoices(since, account)}
    with desk.engine.begin() as db:
        again = _look_again_at_closed(db, desk, account, list(found))
        known = set(db.execute(select(cases.c.payment_id).where(cases.c.payment_id.in_(found))).scalars())
    unheard = [invoice for payment_id, invoice in found.items() if payment_id not in known]
    opened = sum(_open(desk, invoice, account) for invoice in unheard if invoice.get("attempted"))
    with desk.engine.begin() as db:
        db.execute(update(cursors).where(cursors.c.name == name).values(position=desk.now))
    return opened, again


def _look_again_at_closed(db: Connection, desk: Desk, account: str | None, still_open: list[str]) -> int:
    """Have the open cases read again whose invoice is not among the open ones any more."""
    theirs = cases.c.account.is_not_distinct_from(account), cases.c.state.in_(OPEN_STATES)
    closed = cases.c.payment_id.startswith("in_"), cases.c.payment_id.not_in(still_open)
    found = select(cases).where(*theirs, *closed).order_by(cases.c.id).with_for_update()
    gone = [Case(row) for row in db.execute(found)]
    look_again(db, gone, desk.policy, desk.now)
    return len(gone)


def _open(desk: Desk, invoice: dict[str, Any], account: str | None) -> bool:
    """Open the case of an invoice that was charged in vain, unless that is too long ago; say whether it was opened."""
    try:
        reading = desk.gateway.read(invoice["id"], account)
        failed_at = reading.charged_at or instant(invoice["created"])
        told = Event(invoice["id"], FAILED[0], account, failed_at, {"data": {"object": invoice}})
        payment = replace(failed_payment(told), decline=reading.decline or Decline(), card=reading.charged)
    except NoAccess:
        raise
    except (BadEvent, Refused):  # one invoice that nobody can read holds up no other
        return False
    if not _owed(reading) or failed_at <= desk.now - timedelta(days=desk.policy.deadline_days):
        return False
    with desk.engine.begin() as db:
        open_case(db, payment, account, desk.policy, desk.now)
    return True


def _owed(reading: Reading) -> bool:
    """Whether a charge has failed, or waits for the customer; one that is under way may still pass."""
    return reading.ended is None and (reading.waits_for_customer or not reading.in_flight)
