"""What did the provider tell us, and which case does it concern? Events are kept once, then handled.

An event is a hint: it opens a case, ends one, or asks for another reading of the provider. Nothing acts on its
payload alone, so neither order nor repetition of events matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from babel.numbers import list_currencies
from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Integer,
    Text,
    and_,
    any_,
    bindparam,
    false,
    func,
    literal,
    or_,
    select,
    update,
)

from schedules import Card, Decline, FailedPayment, Policy
from schedules.segments import JOINED
from worker import stops
from worker.bulk import as_rows, insert_all
from worker.cases import Case, record
from worker.evidence import keep_foreign
from worker.failpoints import failpoint
from worker.keys import is_lost, key_of
from worker.logs import about, redact
from worker.models import MACHINE_NOW, OPEN_STATES, cases, events
from worker.personal import CODE, impersonal
from worker.planning import look_again, open_case, open_cases
from worker.readings import FailedCharge, UnknownShape, charge_evidence, instant, is_marked, read_intent, reading_of

CURRENCIES = frozenset(list_currencies())
MOST_TRIES = 5
EARLIEST, LATEST = datetime(2011, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp()
LARGEST_MINOR = 2**53
LONGEST_TEXT = 255  # Stripe promises no more of an id; an index of PostgreSQL takes 2,700 bytes
NUMBERS = ("exp_month", "exp_year")

ONE_OFF = "payment_intent."
FAILED = ("invoice.payment_failed", "invoice.payment_action_required", "payment_intent.payment_failed")
REFUSED = "charge.failed"  # networks limit refused charges and their repetition: one that succeeds is not counted
ENDED = {
    "invoice.paid": "paid",
    "invoice.payment_succeeded": "paid",
    "invoice.voided": "voided",
    "invoice.marked_uncollectible": "voided",
    "payment_intent.succeeded": "paid",
    "payment_intent.canceled": "voided",
}
CHANGED = (
    "invoice.finalized",
    "invoice.updated",
    "payment_method.attached",
    "payment_method.automatically_updated",
    "payment_method.detached",
    "payment_method.updated",
    "customer.source.updated",
    "customer.updated",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "mandate.updated",
)
TAKEN_BACK = {"charge.dispute.created": "disputed", "charge.refunded": "refunded"}
OURS = frozenset((*FAILED, REFUSED, *ENDED, *CHANGED, *TAKEN_BACK))
# Of an invoice that was updated: any other change (a number, a page's address, a counter) is no news to a case.
WATCHED = frozenset(
    (
        "amount_due",
        "amount_paid",
        "amount_remaining",
        "auto_advance",
        "collection_method",
        "default_payment_method",
        "default_source",
        "next_payment_attempt",
        "status",
    )
)


class BadEvent(ValueError):
    """An event that cannot be kept; the message says why."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the provider, checked as far as handling needs it."""

    id: str
    type: str
    account: str | None
    created: datetime
    payload: Mapping[str, Any] = field(repr=False)
    payment: FailedPayment | None = field(default=None, repr=False)  # that failed, of which it tells

    @property
    def ours(self) -> bool:
        """Whether this product listens to this type of event, of an intent that is marked, and what changed matters."""
        idle = self.type == "invoice.updated" and bool(self.before) and not WATCHED & self.before.keys()
        strange = self.type.startswith(ONE_OFF) and not is_marked(self.subject)
        return self.type in OURS and not idle and not strange

    @property
    def before(self) -> Mapping[str, Any]:
        """What was otherwise before the change, as far as the event tells."""
        found = self.payload["data"].get("previous_attributes")
        return found if isinstance(found, dict) else {}

    @property
    def subject(self) -> Mapping[str, Any]:
        """The object that the event is about, as it was when the event was made."""
        found: Mapping[str, Any] = self.payload["data"]["object"]
        return found


def parse_event(value: Any) -> Event:
    """Return the event in a decoded JSON value, one of ours without what is personal in it.

    Raises ``BadEvent`` naming what is missing or wrong.
    """
    if not isinstance(value, dict):
        msg = f"expected an event object, found {_kind(value)}"
        raise BadEvent(msg)
    if str(value.get("object")).startswith("v2."):
        msg = "a thin event carries no object: send snapshot events of API v1 to this endpoint"
        raise BadEvent(msg)
    for key, kind in (("id", str), ("type", str), ("created", int), ("data", dict)):
        if type(value.get(key)) is not kind or not value[key] or (key == "id" and not CODE.fullmatch(value[key])):
            msg = f"event without a valid {key!r}"
            raise BadEvent(msg)
    if not isinstance(value["data"].get("object"), dict):
        msg = "event without a valid 'data.object'"
        raise BadEvent(msg)
    account = None if value.get("account") is None else _text(value, "account", "event")
    event = Event(value["id"], value["type"], account, _instant(value["created"], "created"), value)
    if not event.ours:
        return event
    event = replace(event, payload=_stored(value))  # before its fields are checked: so it is handled
    if event.type in FAILED:
        return replace(event, payment=failed_payment(event))
    _check_fields(event)
    return event


def _stored(value: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored of an event."""
    try:
        told: dict[str, Any] = impersonal(value)
    except ValueError as error:
        raise BadEvent(str(error)) from None
    return told


def _check_fields(event: Event) -> None:
    """Raise ``BadEvent`` naming a field that handling needs and that is missing or wrong."""
    if event.type == REFUSED:
        failed_charge(event)
    elif event.type in ENDED:
        _text(event.subject, "id", _named(event))


def _named(event: Event) -> str:
    """Name what the event is about: an invoice or a payment intent."""
    return event.type.partition(".")[0].replace("_", " ")


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        int: "a number",
        float: "a number",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    """Quote a number or a code, and of anything else the kind only: it may be about a person."""
    plain = value is None or isinstance(value, int | float) or (isinstance(value, str) and CODE.fullmatch(value))
    return f"{value!r:.40}" if plain else _kind(value)


def _instant(seconds: Any, name: str) -> datetime:
    if type(seconds) is not int or not EARLIEST <= seconds < LATEST:
        msg = f"{name!r} is not a time in seconds: {_shown(seconds)}"
        raise BadEvent(msg)
    return instant(seconds)


def _text(holder: Mapping[str, Any], key: str, where: str) -> str:
    """Return an id, also when the provider expanded it into an object."""
    value = holder.get(key)
    found = value.get("id") if isinstance(value, dict) else value
    if not isinstance(found, str) or not CODE.fullmatch(found):
        msg = f"{where} without a valid {key!r}"
        raise BadEvent(msg)
    return found


def failed_payment(event: Event) -> FailedPayment:
    """Return the failed payment of an event: an intent or an invoice of either shape (before and after API 2025-03-31).

    Raises ``BadEvent`` naming the field that is missing or wrong.
    """
    bill, named, one_off = event.subject, _named(event), event.type.startswith(ONE_OFF)
    amount, currency = _money(bill, "amount" if one_off else "amount_remaining", named)
    payment_id, customer_id = _text(bill, "id", named), _text(bill, "customer", named)
    try:
        reading = (read_intent if one_off else reading_of)(dict(bill))
    except UnknownShape as error:
        raise BadEvent(str(error)) from None
    decline = reading.decline or Decline()
    _check_types(reading.charged, decline)
    return FailedPayment(
        payment_id=payment_id,
        customer_id=customer_id,
        subscription_id=_subscription_id(bill),
        amount_minor=amount,
        currency=currency,
        failed_at=event.created,
        decline=decline,
        card=reading.charged,
        plan=None if one_off else _plan(bill),
    )


def _plan(invoice: Mapping[str, Any]) -> str | None:
    """Return the prices of an invoice's lines, of either shape, as far as they are shown; an unknown one tells none."""
    lines = invoice.get("lines")
    shown = lines.get("data") if isinstance(lines, dict) else None
    found = (_price(line) for line in shown if isinstance(line, dict)) if isinstance(shown, list) else ()
    return JOINED.join(sorted({price for price in found if price is not None and CODE.fullmatch(price)})) or None


def _price(line: Mapping[str, Any]) -> str | None:
    pricing = line.get("pricing")
    details = pricing.get("price_details") if isinstance(pricing, dict) else None
    return _id((details if isinstance(details, dict) else line).get("price"))


def _check_types(*evidence: Card | Decline) -> None:
    """Months and years are numbers, all else in a card and a decline is text, if it is there."""
    for fact in evidence:
        for name in fact.__slots__:
            value = getattr(fact, name)
            fits = type(value) is int if name in NUMBERS else isinstance(value, str) and len(value) <= LONGEST_TEXT
            if value is not None and not fits:
                msg = f"{type(fact).__name__.lower()} without a valid {name!r}"
                raise BadEvent(msg)


def _money(holder: Mapping[str, Any], key: str, where: str) -> tuple[int, str]:
    """Return an amount in minor units with its currency."""
    amount, currency = holder.get(key), holder.get("currency")
    if type(amount) is not int or not 0 <= amount <= LARGEST_MINOR:
        msg = f"{where} with a wrong {key!r}: {_shown(amount)}"
        raise BadEvent(msg)
    if not isinstance(currency, str) or currency.upper() not in CURRENCIES:
        msg = f"{where} with an unknown 'currency': {_shown(currency)}"
        raise BadEvent(msg)
    return amount, currency


def failed_charge(event: Event) -> FailedCharge:
    """Return the refused charge of an event, whoever made it; raise ``BadEvent`` naming what is missing or wrong."""
    charge = event.subject
    charge_id, at = _text(charge, "id", "charge"), _instant(charge.get("created"), "created")
    amount, currency = _money(charge, "amount", "charge")
    try:
        card, decline = charge_evidence(dict(charge))
    except UnknownShape as error:
        raise BadEvent(str(error)) from None
    _check_types(card, decline)
    payment_id = _text(charge, "payment_intent", "charge") if charge.get("payment_intent") else charge_id
    return FailedCharge(charge_id, at, payment_id, amount, currency, card, decline)


def _subscription_id(invoice: Mapping[str, Any]) -> str | None:
    parent = invoice.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, dict) else None
    holder = details if isinstance(details, dict) and details.get("subscription") else invoice
    return _text(holder, "subscription", "invoice") if holder.get("subscription") else None


def keep(db: Connection, batch: list[Event], *, handled: bool = False) -> set[str]:
    """Store events that are not known yet, to be handled or handled already; return the ids that were new.

    The caller commits.
    """
    ordered = sorted(batch, key=lambda event: event.id)  # so that two who store the same events never deadlock
    rows = [{"id": e.id, "type": e.type, "account": e.account, "payload": dict(e.payload)} for e in ordered]
    if not rows:
        return set()
    return set(db.execute(KEEP_HANDLED if handled else KEEP, as_rows(events, rows)).scalars())


def take_in(db: Connection, batch: list[Event], policy: Policy, now: datetime) -> set[str]:
    """Store new events, those that open a case as handled already; return the ids that were new. The caller commits."""
    once = {event.id: event for event in batch}
    for known in db.execute(select(events.c.id).where(_one_of(once))).scalars():
        del once[known]
    handled = _open_failed(db, list(once.values()), policy, now)
    done = keep(db, [once.pop(name) for name in handled], handled=True)
    return done | keep(db, list(once.values()))


def _one_of(ids: Iterable[str]) -> Any:
    return events.c.id == any_(literal(list(ids), ARRAY(Text)))


def drain(engine: Engine, policy: Policy, now: datetime, most: int = 1000) -> int:
    """Handle up to ``most`` waiting events; return how many were taken.

    Those that open a case are handled together, all others in a transaction of their own. A failing event is kept with
    its error, tried again later a few times, and holds up no other.
    """
    for taken in range(_handle_failed(engine, policy, now, most), most):
        if not _handle_next(engine, policy, now):
            return taken
    return most


def _oldest(found: Any, most: Any) -> Any:
    """Return the query for the first events that are found, locked; what somebody else has locked is passed over."""
    ordered = found.order_by(events.c.received_at, events.c.id)
    return ordered.limit(most).with_for_update(skip_locked=True)


# Built once: every look for events asks them, and every batch is kept by them.


def _keeping(**state: Any) -> Any:
    new = insert_all(events, ("id", "type", "account", "payload"), **state)
    return new.on_conflict_do_nothing().returning(events.c.id)


KEEP, KEEP_HANDLED = _keeping(), _keeping(handled_at=MACHINE_NOW, tries=literal(1))
WAITING = and_(
    events.c.handled_at.is_(None),
    events.c.tries < MOST_TRIES,
    or_(events.c.retry_at.is_(None), events.c.retry_at < MACHINE_NOW),
)
NEXT = _oldest(select(events).where(WAITING), 1)
NEW_FAILURES = _oldest(
    select(events.c.payload).where(events.c.handled_at.is_(None), events.c.tries == 0, events.c.type.in_(FAILED)),
    bindparam("most", type_=Integer),
)


def _handle_failed(engine: Engine, policy: Policy, now: datetime, most: int) -> int:
    """Open the cases of waiting events in one transaction; return how many events were handled by that."""
    with engine.begin() as db:
        found = []
        for payload in db.execute(NEW_FAILURES, {"most": most}).scalars():
            with suppress(Exception):  # whatever it is, that event is found again by itself, and kept with its error
                found.append(parse_event(payload))
        handled = _open_failed(db, found, policy, now)
        if handled:
            db.execute(update(events).where(_one_of(handled)).values(handled_at=MACHINE_NOW, tries=1))
            failpoint("before_event_commit")
    return len(handled)


def _open_failed(db: Connection, batch: list[Event], policy: Policy, now: datetime) -> set[str]:
    """Open the cases of payments that failed and have none, all or none; return the ids of the events that told.

    What else events may ask for is looked at one by one: charges of ours, and payments that have a case.
    """
    told = [(event, event.payment) for event in reversed(batch) if not _made_by_us(event)]
    first = {payment.payment_id: (event.id, payment, event.account) for event, payment in told if payment}
    if not first:
        return set()
    try:
        with db.begin_nested():
            opened = open_cases(db, [each[1:] for each in first.values()], policy, now)
    except Exception:  # noqa: BLE001 - one of them does not fit, and none shall suffer: each is handled by itself
        return set()
    return {first[payment_id][0] for payment_id in opened}


def _handle_next(engine: Engine, policy: Policy, now: datetime) -> bool:
    with engine.begin() as db:
        row = db.execute(NEXT).one_or_none()
        if row is None:
            return False
        done: dict[str, Any] = {"handled_at": MACHINE_NOW, "error": None}
        try:
            with db.begin_nested(), about(event_id=row.id):
                handle(db, parse_event(row.payload), policy, now)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is kept with the event and tried again
            done = {
                "error": redact(f"{type(error).__name__}: {error}")[:500],
                "retry_at": MACHINE_NOW + _later(row.tries),
            }
        db.execute(update(events).where(events.c.id == row.id).values(tries=events.c.tries + 1, **done))
        failpoint("before_event_commit")
    return True


def _later(tries: int) -> timedelta:
    return timedelta(minutes=2**tries)


def handle(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """Apply one event to the cases it concerns."""
    key = key_of(event.payload)
    if key is not None and is_lost(db, key):
        stops.put(db, stops.RESTORED, "the provider knows charges of ours that this database does not", now)
    if event.type in FAILED:
        _failed(db, event, policy, now)
    elif event.type == REFUSED:
        _refused(db, event, policy, now)
    elif event.type in ENDED:
        # A void may follow the customer's cancelation: a reading tells, so only a payment ends the case at once.
        news = {"ended": "paid"} if ENDED[event.type] == "paid" else {}
        look_again(db, _open(db, cases.c.payment_id == _text(event.subject, "id", _named(event))), policy, now, **news)
    elif not _made_by_us(event):
        look_again(db, _open(db, _concerns(event)), policy, now)
    if event.type in TAKEN_BACK:
        _taken_back(db, event, now)


def _taken_back(db: Connection, event: Event, now: datetime) -> None:
    """Money that was won back is disputed or refunded: its case has ended and stays so, and its history tells."""
    detail = {"charge": _id(event.subject.get("charge")) or event.subject.get("id"), "event": event.id}
    for row in db.execute(select(cases.c.id).where(_concerns(event), cases.c.state == "recovered")):
        record(db, row.id, now, TAKEN_BACK[event.type], detail)


def _failed(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """A payment failed: open its case. For a known case only a charge that we did not make is news."""
    payment = event.payment or failed_payment(event)
    known = _open(db, cases.c.payment_id == payment.payment_id)
    if not known:
        open_case(db, payment, event.account, policy, now)
    elif not _made_by_us(event):
        look_again(db, known, policy, now)


def _refused(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """Somebody charged a card and was refused: it uses up the card's budget, and the customer's cases are read."""
    if _made_by_us(event):
        return
    known = _open(db, _concerns(event))  # locked before the charge is written, as when a reading writes it
    keep_foreign(db, failed_charge(event))
    look_again(db, known, policy, now)


def _made_by_us(event: Event) -> bool:
    return key_of(event.payload) is not None


def _open(db: Connection, condition: Any) -> list[Case]:
    """Return the open cases that an event concerns, locked in one order so that two handlers never deadlock."""
    found = select(cases).where(condition, cases.c.state.in_(OPEN_STATES)).order_by(cases.c.id)
    return [Case(row) for row in db.execute(found.with_for_update())]


def _concerns(event: Event) -> Any:
    """Return the condition under which an event concerns a case; one that names nothing concerns none."""
    subject, kind = event.subject, event.type
    if kind.startswith("invoice."):
        return _is(cases.c.payment_id, subject.get("id"))
    if kind.startswith("customer.subscription."):
        whose = _is(cases.c.customer_id, subject.get("customer"))  # the fewer indexes, the smaller a waiting case
        return and_(whose, _is(cases.c.subscription_id, subject.get("id")))
    if kind == "customer.updated":
        return _is(cases.c.customer_id, subject.get("id"))
    if kind == "mandate.updated":
        return _is(cases.c.method_id, subject.get("payment_method"))
    if kind in TAKEN_BACK:
        return _is(cases.c.intent_id, subject.get("payment_intent"))
    # A method that was detached has no customer any more: whose it was stands in what was before.
    return _is(cases.c.customer_id, subject.get("customer") or event.before.get("customer"))


def _is(column: Any, value: Any) -> Any:
    name = _id(value)
    return false() if name is None else column == name


def _id(value: Any) -> str | None:
    """Return an id, also of an object that stands in its place; None for anything else."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def waiting(db: Connection) -> int:
    """Return how many events are not handled yet and will be tried."""
    open_ones = events.c.handled_at.is_(None), events.c.tries < MOST_TRIES
    return int(db.execute(select(func.count()).select_from(events).where(*open_ones)).scalar_one())
