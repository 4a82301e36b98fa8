"""What did the provider tell us, and which case does it concern? Events are kept once, then handled.

An event is a hint: it opens a case, ends one, or asks for another reading of the provider. Nothing acts on its
payload alone, so neither order nor repetition of events matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from babel.numbers import list_currencies
from sqlalchemy import Connection, Engine, Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Decline, FailedPayment, Policy
from worker.cases import keep_foreign, look_again, open_case
from worker.models import MACHINE_NOW, OPEN_STATES, cases, events
from worker.readings import FailedCharge, UnknownShape, charge_evidence, instant, reading_of

CURRENCIES = frozenset(list_currencies())
MOST_TRIES = 5
EARLIEST, LATEST = datetime(2011, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp()
LARGEST_MINOR = 2**53
LONGEST_ID = 255  # Stripe promises no more; an index of PostgreSQL takes 2,700 bytes

PERSONAL = frozenset(
    f"{of}{what}"
    for of in ("", "billing_", "cardholder_", "customer_", "payer_", "shipping_", "verified_")
    for what in ("address", "email", "name", "phone", "shipping", "tax_ids")
) | {"billing_details", "receipt_email"}

FAILED = ("invoice.payment_failed", "invoice.payment_action_required")
REFUSED = "charge.failed"  # networks limit refused charges and their repetition: one that succeeds is not counted
ENDED = {
    "invoice.paid": "paid",
    "invoice.payment_succeeded": "paid",
    "invoice.voided": "voided",
    "invoice.marked_uncollectible": "voided",
}
CHANGED = (
    "payment_method.attached",
    "payment_method.automatically_updated",
    "payment_method.updated",
    "customer.updated",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "charge.dispute.created",
)
OURS = frozenset((*FAILED, REFUSED, *ENDED, *CHANGED))


class BadEvent(ValueError):
    """An event that cannot be kept; the message says why."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the provider, checked as far as handling needs it."""

    id: str
    type: str
    account: str | None
    created: datetime
    payload: Mapping[str, Any]

    @property
    def ours(self) -> bool:
        """Whether this product listens to this type of event."""
        return self.type in OURS

    @property
    def subject(self) -> Mapping[str, Any]:
        """The object that the event is about, as it was when the event was made."""
        found: Mapping[str, Any] = self.payload["data"]["object"]
        return found


def parse_event(value: Any) -> Event:
    """Return the event in a decoded JSON value; raise ``BadEvent`` naming what is missing or wrong."""
    if not isinstance(value, dict):
        msg = f"expected an event object, found {_kind(value)}"
        raise BadEvent(msg)
    for key, kind in (("id", str), ("type", str), ("created", int), ("data", dict)):
        if type(value.get(key)) is not kind or not value[key] or (key == "id" and len(value[key]) > LONGEST_ID):
            msg = f"event without a valid {key!r}"
            raise BadEvent(msg)
    if not isinstance(value["data"].get("object"), dict):
        msg = "event without a valid 'data.object'"
        raise BadEvent(msg)
    account = value.get("account") if isinstance(value.get("account"), str) else None
    event = Event(value["id"], value["type"], account, _instant(value["created"], "created"), value)
    if event.ours:
        _check_storable(value)
    if event.type in FAILED:
        failed_payment(event)
    elif event.type == REFUSED:
        failed_charge(event)
    elif event.type in ENDED:
        _text(event.subject, "id", "invoice")
    return event


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


def _instant(seconds: Any, name: str) -> datetime:
    if type(seconds) is not int or not EARLIEST <= seconds < LATEST:
        msg = f"{name!r} is not a time in seconds: {seconds!r:.40}"
        raise BadEvent(msg)
    return instant(seconds)


def _text(holder: Mapping[str, Any], key: str, where: str) -> str:
    """Return an id, also when the provider expanded it into an object."""
    value = holder.get(key)
    found = value.get("id") if isinstance(value, dict) else value
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST_ID:
        msg = f"{where} without a valid {key!r}"
        raise BadEvent(msg)
    return found


def _check_storable(value: Any) -> None:
    """PostgreSQL's JSON takes neither NUL characters, lone surrogates nor numbers that are not finite."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            stack += item
        elif isinstance(item, float) and item - item != 0:
            msg = "contains a number that is not finite"
            raise BadEvent(msg)
        elif isinstance(item, str) and ("\x00" in item or any("\ud800" <= c <= "\udfff" for c in item)):
            msg = "contains characters that are not valid UTF-8 text"
            raise BadEvent(msg)


def failed_payment(event: Event) -> FailedPayment:
    """Return the failed renewal in an invoice event of either shape (before and after API 2025-03-31).

    Raises ``BadEvent`` naming the field that is missing or wrong.
    """
    invoice = event.subject
    amount, currency = _money(invoice, "amount_remaining", "invoice")
    payment_id, customer_id = _text(invoice, "id", "invoice"), _text(invoice, "customer", "invoice")
    try:
        reading = reading_of(dict(invoice))
    except UnknownShape as error:
        raise BadEvent(str(error)) from None
    return FailedPayment(
        payment_id=payment_id,
        customer_id=customer_id,
        subscription_id=_subscription_id(invoice),
        amount_minor=amount,
        currency=currency,
        failed_at=event.created,
        decline=reading.decline or Decline(),
        card=reading.charged,
    )


def _money(holder: Mapping[str, Any], key: str, where: str) -> tuple[int, str]:
    """Return an amount in minor units with its currency."""
    amount, currency = holder.get(key), holder.get("currency")
    if type(amount) is not int or not 0 <= amount <= LARGEST_MINOR:
        msg = f"{where} with a wrong {key!r}: {amount!r:.40}"
        raise BadEvent(msg)
    if not isinstance(currency, str) or currency.upper() not in CURRENCIES:
        msg = f"{where} with an unknown 'currency': {currency!r:.40}"
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
    if card.fingerprint is not None:
        _text({"fingerprint": card.fingerprint}, "fingerprint", "card")
    payment_id = _text(charge, "payment_intent", "charge") if charge.get("payment_intent") else charge_id
    return FailedCharge(charge_id, at, payment_id, amount, currency, card, decline)


def _subscription_id(invoice: Mapping[str, Any]) -> str | None:
    parent = (invoice.get("parent") or {}).get("subscription_details") or {}
    found = parent.get("subscription") or invoice.get("subscription")
    return found.get("id") if isinstance(found, dict) else found


def keep(db: Connection, batch: list[Event]) -> set[str]:
    """Store events that are not known yet; return the ids that were new. The caller commits."""
    rows = [{"id": e.id, "type": e.type, "account": e.account, "payload": _impersonal(e.payload)} for e in batch]
    if not rows:
        return set()
    statement = upsert(events).values(rows).on_conflict_do_nothing().returning(events.c.id)
    return set(db.execute(statement).scalars())


def _impersonal(value: Any) -> Any:
    """Return a payload without what names or finds a person: it is read from the provider when it is needed."""
    if isinstance(value, Mapping):
        return {key: None if key in PERSONAL else _impersonal(item) for key, item in value.items()}
    return [_impersonal(item) for item in value] if isinstance(value, list) else value


def drain(engine: Engine, policy: Policy, now: datetime, most: int = 1000) -> int:
    """Handle up to ``most`` waiting events, each in a transaction of its own; return how many were taken.

    A failing event is kept with its error, tried again later a few times, and holds up no other.
    """
    for taken in range(most):
        if not _handle_next(engine, policy, now):
            return taken
    return most


def _handle_next(engine: Engine, policy: Policy, now: datetime) -> bool:
    waiting = or_(events.c.retry_at.is_(None), events.c.retry_at < MACHINE_NOW)
    chosen = select(events).where(events.c.handled_at.is_(None), events.c.tries < MOST_TRIES, waiting)
    with engine.begin() as db:
        row = db.execute(
            chosen.order_by(events.c.received_at, events.c.id).limit(1).with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return False
        done: dict[str, Any] = {"handled_at": MACHINE_NOW, "error": None}
        try:
            with db.begin_nested():
                handle(db, parse_event(row.payload), policy, now)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is kept with the event and tried again
            done = {"error": f"{type(error).__name__}: {error}"[:500], "retry_at": MACHINE_NOW + _later(row.tries)}
        db.execute(update(events).where(events.c.id == row.id).values(tries=events.c.tries + 1, **done))
    return True


def _later(tries: int) -> timedelta:
    return timedelta(minutes=2**tries)


def handle(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """Apply one event to the cases it concerns."""
    if event.type in FAILED:
        _failed(db, event, policy, now)
    elif event.type == REFUSED:
        _refused(db, event, policy, now)
    elif event.type in ENDED:
        # A void may follow the customer's cancelation: a reading tells, so only a payment ends the case at once.
        news = {"ended": "paid"} if ENDED[event.type] == "paid" else {}
        for row in _open(db, cases.c.payment_id == _text(event.subject, "id", "invoice")):
            look_again(db, row, policy, now, **news)
    else:
        for row in _open(db, _concerns(event)):
            look_again(db, row, policy, now)


def _failed(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """A renewal failed: open its case. For a known case only a charge that we did not make is news."""
    payment = failed_payment(event)
    known = _open(db, cases.c.payment_id == payment.payment_id)
    if not known:
        open_case(db, payment, event.account, policy, now)
    for row in known:
        if not _made_by_us(event):
            look_again(db, row, policy, now)


def _refused(db: Connection, event: Event, policy: Policy, now: datetime) -> None:
    """Somebody charged a card and was refused: it uses up the card's budget, and the customer's cases are read."""
    if _made_by_us(event):
        return
    known = _open(db, _concerns(event))  # locked before the charge is written, as when a reading writes it
    keep_foreign(db, failed_charge(event))
    for row in known:
        look_again(db, row, policy, now)


def _made_by_us(event: Event) -> bool:
    request = event.payload.get("request")
    key = request.get("idempotency_key") if isinstance(request, dict) else None
    return isinstance(key, str) and key.startswith("dunning-")


def _open(db: Connection, condition: Any) -> list[Row[Any]]:
    """Return the open cases that an event concerns, locked in one order so that two handlers never deadlock."""
    found = select(cases).where(condition, cases.c.state.in_(OPEN_STATES)).order_by(cases.c.id)
    return list(db.execute(found.with_for_update()))


def _concerns(event: Event) -> Any:
    subject = event.subject
    if event.type.startswith("customer.subscription."):
        return cases.c.subscription_id == subject.get("id")
    if event.type == "customer.updated":
        return cases.c.customer_id == subject.get("id")
    if event.type == "charge.dispute.created":
        return cases.c.charge_id == subject.get("charge")
    customer = subject.get("customer")
    return cases.c.customer_id == (customer.get("id") if isinstance(customer, dict) else customer)


def waiting(db: Connection) -> int:
    """Return how many events are not handled yet and will be tried."""
    open_ones = events.c.handled_at.is_(None), events.c.tries < MOST_TRIES
    return int(db.execute(select(func.count()).select_from(events).where(*open_ones)).scalar_one())
