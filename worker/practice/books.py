"""What has happened at the practice bank? Its invoices, cards, charges and events, and what happens next.

The books stand over a world: the world says whether a charge passes and what a customer does; the books keep
what follows from it. They have one clock, business time, and bring themselves up to it before every answer.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from schedules.facts import Card, Decline, FailedPayment
from worker.practice import objects
from worker.practice.answers import Refusal, no_such
from worker.practice.events import NO_REQUEST, Cause, EventLog
from worker.practice.ledger import Ledger
from worker.practice.records import JSON, Bill, Charged, Customer, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class World(Protocol):
    """What a simulation or a bank plays against: see the design page."""

    def failures(self) -> Iterable[FailedPayment]:
        """Yield the failed renewals in time order."""

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the stored card at an instant."""

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Charge it; ``None`` is an approval."""

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Tell the customer."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the customer's own first act later than ``after``."""

    def close(self) -> None:
        """Release what the world holds."""


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
        self.ledger = Ledger(world)
        self.bills: list[Bill] = []
        self.places: dict[str, int] = {}
        self.methods: dict[str, Method] = {}
        self.customers: dict[str, Customer] = {}
        self.by_tail: dict[str, Bill] = {}
        self.by_subscription: dict[str, Bill] = {}
        self._of_customer: dict[str, list[Bill]] = {}
        self._to_come = {payment.payment_id: payment for payment in world.failures()}
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
        tail = payment.payment_id.removeprefix("in_")
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
        if card == method.card:
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
        for each in self._of_customer[customer.id]:
            each.own_method = None
        self.log.emit("payment_method.attached", at, objects.payment_method(method), NO_REQUEST)
        self.log.emit("customer.updated", at, objects.customer_object(customer), NO_REQUEST, previous)

    def _pay_by_hand(self, bill: Bill, at: datetime) -> None:
        method = self.method(bill)
        charged = self._record(bill, method, at, None)
        self.ledger.write(bill, charged, method, NO_REQUEST, by="customer")
        self._settle_paid(bill, at, NO_REQUEST)

    def _void(self, bill: Bill, at: datetime) -> None:
        bill.status, bill.closed_at = "void", at
        self.log.emit("invoice.voided", at, self.invoice(bill), NO_REQUEST)

    # What the merchant does

    def pay(self, bill: Bill, method: Method | None, at: datetime, cause: Cause) -> Charged:
        """Charge the invoice once; raise ``Refusal`` when it is no longer to be paid."""
        if bill.status == "paid":
            self.ledger.refused_on_paid += 1
            raise Refusal(400, "Invoice is already paid")
        if bill.status != "open":
            raise Refusal(400, f"This invoice can no longer be paid: its status is {bill.status}.")
        self.refresh(bill, at)
        current = self.method(bill)
        method = method or current
        # Only the world knows how the current card fares; an older one is refused as it was before.
        old = method is not current and method.card != current.card
        decline = method.refused or Decline(code="generic_decline") if old else self.world.charge(bill.id, at)
        charged = self._record(bill, method, at, decline)
        self.ledger.write(bill, charged, method, cause, by="merchant")
        if decline is None:
            self._settle_paid(bill, at, cause)
        else:
            self._tell_failure(bill, charged, cause)
        self.look_ahead(bill, at)
        return charged

    def mark_uncollectible(self, bill: Bill, at: datetime, cause: Cause) -> None:
        """Write the invoice off."""
        if bill.status != "open":
            raise Refusal(400, f"You can only mark open invoices uncollectible; this one is {bill.status}.")
        bill.status, bill.closed_at = "uncollectible", at
        self.log.emit("invoice.marked_uncollectible", at, self.invoice(bill), cause)
        self.look_ahead(bill, at)

    def cancel(self, bill: Bill, at: datetime, cause: Cause, said: JSON | None = None) -> None:
        """End the subscription; its open invoice stays as it is."""
        if bill.payment.subscription_id is None or bill.canceled_at is not None:
            return
        bill.canceled_at = at
        bill.cancellation = {"comment": None, "feedback": None, **(said or {}), "reason": "cancellation_requested"}
        self.log.emit("customer.subscription.deleted", at, self.subscription(bill), cause)

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

    def _settle_paid(self, bill: Bill, at: datetime, cause: Cause) -> None:
        bill.status, bill.closed_at = "paid", at
        self.log.emit("invoice_payment.paid", at, objects.invoice_payment(bill), cause)
        self.log.emit("invoice.paid", at, self.invoice(bill), cause)

    def _tell_failure(self, bill: Bill, charged: Charged, cause: Cause) -> None:
        self.log.emit("charge.failed", charged.at, objects.charge(charged, bill), cause)
        self.log.emit("invoice.payment_failed", charged.at, self.invoice(bill), cause)

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
                bill = self.by_tail[tail]
                return objects.payment_intent(bill, self.methods[bill.charges[-1].method_id])
            case "ch" if tail.rpartition("_")[0] in self.by_tail:
                return self._charge(name)
        raise no_such(name, "object")

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
