"""What has happened at the practice bank? Its invoices, cards, charges and events, and what happens next.

The books stand over a world: the world says whether a charge passes and what a customer does; the books keep
what follows from it. They have one clock, business time, and bring themselves up to it before every answer.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from schedules.facts import Decline, FailedPayment
from worker.practice import objects
from worker.practice.access import Access
from worker.practice.answers import Refusal, no_such
from worker.practice.events import NO_REQUEST, Cause, EventLog
from worker.practice.ledger import Ledger
from worker.practice.protocol import World
from worker.practice.records import JSON, Bill, Charged, Customer, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# What becomes of an invoice, or of a payment intent without one, and the event that tells of it.
ENDS = {"paid": "invoice.paid", "uncollectible": "invoice.marked_uncollectible", "void": "invoice.voided"}
INTENT_ENDS = {"paid": "payment_intent.succeeded", "void": "payment_intent.canceled"}


@dataclass(order=True, slots=True)
class _Due:
    """Something that will happen; stale once the bill's version has moved on."""

    at: datetime
    number: int
    kind: str = field(compare=False)
    payment_id: str = field(compare=False)
    version: int = field(compare=False, default=0)


class Books:
    """Everything the bank knows. Not for several threads: one event loop owns it."""

    def __init__(self, world: World, clock: Callable[[], datetime], log: EventLog) -> None:
        self.world, self.clock, self.log = world, clock, log
        self.access = Access()
        self.ledger = Ledger(world)
        self.bills: list[Bill] = []
        self.places: dict[str, int] = {}
        self.methods: dict[str, Method] = {}
        self.customers: dict[str, Customer] = {}
        self.by_tail: dict[str, Bill] = {}
        self.by_subscription: dict[str, Bill] = {}
        self._of_customer: dict[str, list[Bill]] = {}
        self._to_come = {payment.payment_id: payment for payment in world.failures()}
        self._connected: Callable[[str], str | None] = getattr(world, "account", lambda _payment_id: None)
        self.accounts = {None, *map(self._connected, self._to_come)}
        log.account_of = self.account_of
        self._heap: list[_Due] = []
        self._number = 0
        for payment in self._to_come.values():
            self._push(payment.failed_at, "failure", payment.payment_id)

    # What happens by itself

    def next_at(self) -> datetime | None:
        """Return when anything happens next, without the merchant."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None

    def advance(self, now: datetime, most: int | None = None) -> Counter[str]:
        """Make happen what is due, in time order, each at its own instant; count it by kind."""
        happened: Counter[str] = Counter()
        while (at := self.next_at()) is not None and at <= now and (most is None or happened.total() < most):
            due = heapq.heappop(self._heap)
            happened[due.kind] += 1
            self._happen(due)
        return happened

    def _push(self, at: datetime, kind: str, payment_id: str, version: int = 0) -> None:
        self._number += 1
        heapq.heappush(self._heap, _Due(at, self._number, kind, payment_id, version))

    def _is_stale(self, due: _Due) -> bool:
        if due.kind == "failure":
            return False
        bill = self.bill(due.payment_id)
        return bill.status != "open" or bill.version != due.version

    def _happen(self, due: _Due) -> None:
        if due.kind == "failure":
            self._fail(self._to_come.pop(due.payment_id))
            return
        bill = self.bill(due.payment_id)
        match due.kind:
            case "update":
                self.refresh(bill, due.at)
            case "card":
                self._store_card(bill, due.at)
            case "paid":
                self._pay_by_hand(bill, due.at)
            case "cancel":
                self.cancel(bill, due.at, NO_REQUEST)
                self._void(bill, due.at)
        self.look_ahead(bill, due.at)

    def look_ahead(self, bill: Bill, after: datetime) -> None:
        """Ask the world again what comes next for this payment; what was expected before no longer counts."""
        bill.version += 1
        if bill.status != "open":
            return
        act = self.world.next_act(bill.id, after)
        if act is not None:
            self._push(act[1], act[0], bill.id, bill.version)
        next_update = getattr(self.world, "next_update", None)
        update = next_update(bill.id, after) if next_update else None
        if update is not None:
            self._push(update, "update", bill.id, bill.version)

    # The renewal

    def _fail(self, payment: FailedPayment) -> None:
        tail = payment.payment_id.partition("_")[2]
        customer = self._customer(payment)
        method = self._method_for(customer, payment, tail)
        first = Charged(f"ch_{tail}_0", payment.failed_at, method.id, payment.card, payment.decline)
        bill = Bill(payment, tail, [first])
        bill.own_method = None if customer.default == method.id else method.id
        method.refused = payment.decline
        self.places[bill.id] = len(self.bills)
        self.bills.append(bill)
        self.by_tail[tail] = bill
        self._of_customer.setdefault(customer.id, []).append(bill)
        if payment.subscription_id is not None:
            self.by_subscription[payment.subscription_id] = bill
        self._tell_failure(bill, first, NO_REQUEST)
        self.look_ahead(bill, payment.failed_at)

    def _customer(self, payment: FailedPayment) -> Customer:
        customer = self.customers.get(payment.customer_id)
        if customer is None:
            since = payment.failed_at - timedelta(days=payment.tenure_days or 30)
            country, locale, zone = payment.card.country, payment.locale, payment.time_zone
            customer = Customer(payment.customer_id, since, country, locale, zone, payment.currency)
            customer.account = self._connected(payment.payment_id)
            self.customers[customer.id] = customer
        return customer

    def _method_for(self, customer: Customer, payment: FailedPayment, tail: str) -> Method:
        """The first card is the customer's default; another one belongs to its own subscription."""
        for stored in (self.methods[name] for name in customer.methods):
            if not stored.card.differs(payment.card):
                return stored
        method = Method(f"pm_{tail}_0", customer.id, payment.payment_id, payment.card, customer.created)
        self._store(customer, method)
        customer.default = customer.default or method.id
        return method

    def _store(self, customer: Customer, method: Method) -> None:
        self.methods[method.id] = method
        customer.methods.append(method.id)

    # What the customer and the network do

    def refresh(self, bill: Bill, at: datetime) -> None:
        """Take over what the card updater did, if it did anything by now."""
        method = self.method(bill)
        if bill.status != "open" or method.payment_id != bill.id:
            return
        card = self.world.card(bill.id, at)
        stored = self.customers[method.customer_id].methods
        if any(card == self.methods[name].card for name in stored):  # unchanged, or entered as a method of its own
            return
        old = objects.payment_method(method)
        method.card, method.refused = card, None
        new = objects.payment_method(method)
        changed = {key: value for key, value in old[old["type"]].items() if new[new["type"]].get(key) != value}
        self.log.emit("payment_method.automatically_updated", at, new, NO_REQUEST, {old["type"]: changed})

    def _store_card(self, bill: Bill, at: datetime) -> None:
        customer = self.customers[bill.payment.customer_id]
        name = f"pm_{bill.tail}_{len(customer.methods)}"
        method = Method(name, customer.id, bill.id, self.world.card(bill.id, at), at, entered=True)
        previous = {"invoice_settings": {"default_payment_method": customer.default}}
        self._store(customer, method)
        customer.default = method.id
        self.log.emit("payment_method.attached", at, objects.payment_method(method), NO_REQUEST)
        self.log.emit("customer.updated", at, objects.customer_object(customer), NO_REQUEST, previous)

    def _pay_by_hand(self, bill: Bill, at: datetime) -> None:
        method = self.method(bill)
        charged = self._record(bill, method, at, None)
        self.ledger.write(bill, charged, method, NO_REQUEST, by="customer")
        self._end(bill, "paid", at, NO_REQUEST)

    def _void(self, bill: Bill, at: datetime) -> None:
        self._end(bill, "void", at, NO_REQUEST)

    # What the merchant does

    def pay(self, bill: Bill, method: Method | None, at: datetime, cause: Cause) -> Charged:
        """Charge it once; raise ``Refusal`` when it is no longer to be paid."""
        self._require_open(bill)
        if method is None and not bill.invoiced:
            _refuse("confirm", "it's missing a payment method")
        self.refresh(bill, at)
        method = method or self.method(bill)
        # Only the world knows how a card fares; one that is no longer the present one is refused as it was before.
        entered = method.entered and method.id == self.customers[method.customer_id].default
        present = entered or method.card == self.world.card(bill.id, at)
        decline = self.world.charge(bill.id, at) if present or method.refused is None else method.refused
        charged = self._record(bill, method, at, decline)
        self.ledger.write(bill, charged, method, cause, by="merchant")
        if decline is None:
            self._end(bill, "paid", at, cause)
        else:
            self._tell_failure(bill, charged, cause)
        self.look_ahead(bill, at)
        return charged

    def _require_open(self, bill: Bill) -> None:
        self.ledger.refused_on_paid += bill.status == "paid"
        if bill.status == "open":
            return
        if not bill.invoiced:
            status = {"paid": "succeeded", "void": "canceled"}[bill.status]
            _refuse("confirm", f"it has a status of {status}")
        left = f"This invoice can no longer be paid: its status is {bill.status}."
        raise Refusal(400, "Invoice is already paid" if bill.status == "paid" else left)

    def cancel_intent(self, bill: Bill, at: datetime, cause: Cause) -> None:
        """Have a payment intent without an invoice charged no more; raise ``Refusal`` when it is over."""
        if bill.status != "open":
            _refuse("cancel", "it was paid or canceled before")
        self._end(bill, "void", at, cause)
        self.look_ahead(bill, at)

    def mark_uncollectible(self, bill: Bill, at: datetime, cause: Cause) -> None:
        """Write the invoice off."""
        if bill.status != "open":
            raise Refusal(400, f"You can only mark open invoices uncollectible; this one is {bill.status}.")
        self._end(bill, "uncollectible", at, cause)
        self.look_ahead(bill, at)

    def cancel(self, bill: Bill, at: datetime, cause: Cause, said: JSON | None = None) -> None:
        """End the subscription; its open invoice stays as it is."""
        if bill.payment.subscription_id is None or bill.canceled_at is not None:
            return
        bill.canceled_at = at
        bill.cancellation = {"comment": None, "feedback": None, **(said or {}), "reason": "cancellation_requested"}
        self.log.emit("customer.subscription.deleted", at, self.subscription(bill), cause)

    def prefer(self, bill: Bill, method: Method, at: datetime, cause: Cause) -> None:
        """Charge the subscription on this method from now on."""
        if method.id == bill.own_method:
            return
        before, bill.own_method = {"default_payment_method": bill.own_method}, method.id
        self.log.emit("customer.subscription.updated", at, self.subscription(bill), cause, before)

    def stop_retries(self, bill: Bill) -> None:
        """Try this invoice no more by ourselves."""
        bill.advancing = False

    def pause(self, bill: Bill, behavior: str | None, at: datetime, cause: Cause) -> None:
        """Pause the collection of the subscription's next invoices, or resume it; raise ``Refusal`` when it ended."""
        if bill.canceled_at is not None:
            raise Refusal(400, "A canceled subscription can only update its cancellation_details and metadata.")
        if behavior == bill.paused:
            return
        before, bill.paused = {"pause_collection": objects.pause(bill.paused)}, behavior
        self.log.emit("customer.subscription.updated", at, self.subscription(bill), cause, before)

    def notice(self, bill: Bill, at: datetime, notice: str) -> None:
        """The customer received a notice."""
        if bill.status == "open":
            self.world.contact(bill.id, at, notice)
            self.look_ahead(bill, at)

    def _record(self, bill: Bill, method: Method, at: datetime, decline: Decline | None) -> Charged:
        charged = Charged(f"ch_{bill.tail}_{len(bill.charges)}", at, method.id, method.card, decline)
        bill.charges.append(charged)
        method.refused = decline
        return charged

    def _end(self, bill: Bill, status: str, at: datetime, cause: Cause) -> None:
        """Close an invoice and tell of it twice, as Stripe does: what changed, and what that means; an intent, once."""
        before = self.invoice(bill)
        bill.status, bill.closed_at = status, at
        if not bill.invoiced:
            self.log.emit(INTENT_ENDS[status], at, self.intent(bill), cause)
            return
        changed = {key: value for key, value in before.items() if self.invoice(bill)[key] != value}
        self.log.emit("invoice.updated", at, self.invoice(bill), cause, changed)
        self.log.emit(ENDS[status], at, self.invoice(bill), cause)
        if status == "paid":
            self.log.emit("invoice_payment.paid", at, objects.invoice_payment(bill), cause)

    def _tell_failure(self, bill: Bill, charged: Charged, cause: Cause) -> None:
        self.log.emit("charge.failed", charged.at, objects.charge(charged, bill), cause)
        if bill.invoiced:
            self.log.emit("invoice.payment_failed", charged.at, self.invoice(bill), cause)
        else:
            self.log.emit("payment_intent.payment_failed", charged.at, self.intent(bill), cause)

    # Reading

    def bill(self, name: str) -> Bill:
        """Return the invoice; raise ``Refusal`` when there is none (yet)."""
        if name not in self.places:
            raise no_such(name, "invoice")
        return self.bills[self.places[name]]

    def method(self, bill: Bill) -> Method:
        """Return the method Stripe would charge: the subscription's own, else the customer's default."""
        return self.methods[bill.own_method or str(self.customers[bill.payment.customer_id].default)]

    def bills_of(self, customer: str) -> list[Bill]:
        """Return a customer's invoices."""
        return self._of_customer.get(customer, [])

    def invoice(self, bill: Bill) -> JSON:
        """Return the invoice as Stripe would show it."""
        return objects.invoice(bill, self.customers[bill.payment.customer_id])

    def intent(self, bill: Bill) -> JSON:
        """Return the payment intent as Stripe would show it."""
        return objects.payment_intent(bill, self.methods[bill.charges[-1].method_id])

    def subscription(self, bill: Bill) -> JSON:
        """Return the invoice's subscription as Stripe would show it."""
        return objects.subscription(bill, self.customers[bill.payment.customer_id])

    def find(self, name: str) -> JSON:
        """Return any object by its id, as it stands now; raise ``Refusal`` for an unknown one."""
        kind, _, tail = name.partition("_")
        match kind:
            case "in":
                return self.invoice(self.bill(name))
            case "cus" if name in self.customers:
                return objects.customer_object(self.customers[name])
            case "sub" if name in self.by_subscription:
                return self.subscription(self.by_subscription[name])
            case "pm" if name in self.methods:
                return objects.payment_method(self.methods[name])
            case "pi" if tail in self.by_tail:
                return self.intent(self.by_tail[tail])
            case "ch" if tail.rpartition("_")[0] in self.by_tail:
                return self._charge(name)
        raise no_such(name, "object")

    def account_of(self, body: JSON) -> str | None:
        """Return the connected account that an object belongs to; None is the merchant's own."""
        customer = self.bill(body["invoice"]).payment.customer_id if "invoice" in body else body.get("customer")
        return self.customers[customer or body["id"]].account

    def every(self, collection: str) -> list[JSON]:
        """Return all objects of a kind, oldest first."""
        names: dict[str, Iterable[str]] = {
            "charges": (charged.id for bill in self.bills for charged in bill.charges),
            "customers": self.customers,
            "payment_intents": (bill.intent_id for bill in self.bills),
            "payment_methods": self.methods,
            "subscriptions": self.by_subscription,
        }
        return sorted(map(self.find, names[collection]), key=lambda body: int(body["created"]))

    def _charge(self, name: str) -> JSON:
        bill = self.by_tail[name.removeprefix("ch_").rpartition("_")[0]]
        for charged in bill.charges:
            if charged.id == name:
                return objects.charge(charged, bill)
        raise no_such(name, "charge")

    def reach(self, key: str, owner: JSON) -> object:
        """Return what belongs at ``key`` of an object when it is expanded, or ``...`` when nothing does."""
        value = owner.get(key)
        if isinstance(value, str):
            is_id = "_" in value and not key.endswith(("id", "status", "reason", "type"))
            return self.find(value) if is_id else ...
        if key == "payments" and owner.get("object") == "invoice":
            return objects.payments_of(self.bill(owner["id"]))
        return ...


def _refuse(act: str, why: str) -> NoReturn:
    """Refuse what the state of a payment intent does not allow."""
    message = f"You cannot {act} this PaymentIntent because {why}."
    raise Refusal(400, message, code="payment_intent_unexpected_state")
