"""Which of Stripe's endpoints does the practice bank have, and what do they do to its books?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.practice import objects
from worker.practice.answers import Form, Refusal, expand, listing, no_such, page
from worker.practice.door import Answer, Asked, Door
from worker.practice.events import Cause
from worker.practice.records import seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from starlette.requests import Request

    from worker.practice.books import Books
    from worker.practice.events import Event
    from worker.practice.records import JSON, Bill, Charged, Method

PREFIX = {
    "invoices": "in_",
    "payment_intents": "pi_",
    "charges": "ch_",
    "customers": "cus_",
    "payment_methods": "pm_",
    "subscriptions": "sub_",
}
PAUSES = ("keep_as_draft", "mark_uncollectible", "void")


class Endpoints:
    """The endpoints. One event loop runs each of them to its end, so the books need no lock."""

    def __init__(self, books: Books) -> None:
        self.books, self.door = books, Door()
        self._told_of_updates = getattr(books.world, "next_update", None) is not None

    async def one(self, collection: str, request: Request, form: Form) -> Answer:
        """``GET /v1/<collection>/{id}``."""
        name = request.path_params["id"]
        if not name.startswith(PREFIX[collection]):
            raise no_such(name, collection.removesuffix("s"))
        body = self.books.find(name)
        if not self._told_of_updates:
            customer = body["id"] if collection == "customers" else body["customer"]
            for bill in self.books.bills_of(customer):
                self.books.refresh(bill, self.books.clock())
            body = self.books.find(name)
        return self._shown(body, form)

    async def account(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/account``."""
        return self._shown(objects.account(), form)

    async def invoices(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/invoices``, newest first."""
        want = form.values

        def keep(bill: Bill) -> bool:
            payment = bill.payment
            facts = {"status": bill.status, "customer": payment.customer_id, "subscription": payment.subscription_id}
            return all(want.get(key, fact) == fact for key, fact in facts.items()) and _created(form, bill.created)

        found, more = page(self.books.bills, self.books.places, form, keep)
        return self._shown(listing("/v1/invoices", [self.books.invoice(bill) for bill in found], more=more), form)

    async def invoice_payments(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/invoice_payments?invoice=…``."""
        bills = [self.books.bill(form.values["invoice"])] if "invoice" in form.values else self.books.bills[::-1]
        data = [objects.invoice_payment(bill) for bill in bills]
        data = [each for each in data if form.values.get("status", each["status"]) == each["status"]]
        return self._shown(listing("/v1/invoice_payments", data, more=False), form)

    async def payment_methods(self, request: Request, form: Form) -> Answer:
        """``GET /v1/customers/{id}/payment_methods``, newest first."""
        customer = self.books.customers.get(request.path_params["id"])
        if customer is None:
            raise no_such(request.path_params["id"], "customer")
        stored = [self.books.methods[name] for name in customer.methods]
        places = {method.id: place for place, method in enumerate(stored)}
        kind = form.values.get("type")
        found, more = page(stored, places, form, lambda each: kind in (None, objects.kind(each.card)))
        url = f"/v1/customers/{customer.id}/payment_methods"
        return self._shown(listing(url, [objects.payment_method(each) for each in found], more=more), form)

    async def events(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/events``, newest first."""
        types = set(form.lists.get("types", [])) | ({form.values["type"]} if "type" in form.values else set())
        delivered = {"true": True, "false": False}.get(form.values.get("delivery_success", ""))

        def keep(event: Event) -> bool:
            named = not types or event.type in types
            return named and delivered in (None, event.delivered) and _within(form, event.created)

        log = self.books.log
        found, more = page(log.events, log.places, form, keep)
        return Answer(200, listing("/v1/events", [event.body() for event in found], more=more))

    async def event(self, request: Request, _form: Form) -> Answer:
        """``GET /v1/events/{id}``."""
        name, log = request.path_params["id"], self.books.log
        if name not in log.places:
            raise no_such(name, "event")
        return Answer(200, log.events[log.places[name]].body())

    async def pay(self, request: Request, form: Form) -> Answer:
        """``POST /v1/invoices/{id}/pay``: 200 with the paid invoice, or 402 with the decline."""
        bill = self.books.bill(request.path_params["id"])
        method, cause = self._chosen(form, bill), _cause(request)

        def execute() -> JSON:
            now = self._now()
            charged = self.books.pay(bill, method, now, cause)
            if charged.decline is not None:
                raise self._declined(bill, charged)
            return self._expanded(self.books.invoice(bill), form)

        return await self.door.pay(_asked(request, form, bill), execute)

    async def mark_uncollectible(self, request: Request, form: Form) -> Answer:
        """``POST /v1/invoices/{id}/mark_uncollectible``."""
        bill, cause = self.books.bill(request.path_params["id"]), _cause(request)

        def execute() -> JSON:
            self.books.mark_uncollectible(bill, self._now(), cause)
            return self._expanded(self.books.invoice(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def cancel(self, request: Request, form: Form) -> Answer:
        """``DELETE /v1/subscriptions/{id}``: one that has ended is no longer found."""
        bill = self.books.by_subscription.get(request.path_params["id"])
        if bill is None or bill.canceled_at is not None:
            raise no_such(request.path_params["id"], "subscription")
        said = {key: form.values.get(f"cancellation_details[{key}]") for key in ("comment", "feedback")}
        self.books.cancel(bill, self._now(), _cause(request), said)
        return self._shown(self.books.subscription(bill), form)

    async def pause(self, request: Request, form: Form) -> Answer:
        """``POST /v1/subscriptions/{id}`` with ``pause_collection``: paused in one way, or resumed by an empty text."""
        name, cause = request.path_params["id"], _cause(request)
        bill = self.books.by_subscription.get(name)
        if bill is None:
            raise no_such(name, "subscription")
        wanted = form.values.get("pause_collection[behavior]")
        if wanted not in PAUSES and form.values.get("pause_collection") != "":
            raise Refusal(400, f"Invalid pause_collection[behavior]: must be one of {', '.join(PAUSES)}")

        def execute() -> JSON:
            self.books.pause(bill, wanted, self._now(), cause)
            return self._expanded(self.books.subscription(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    def _now(self) -> datetime:
        """Return the clock's instant, with everything due before it done."""
        now = self.books.clock()
        self.books.advance(now)
        return now

    def _chosen(self, form: Form, bill: Bill) -> Method | None:
        name = form.values.get("payment_method")
        if name is None:
            return None
        if name not in self.books.customers[bill.payment.customer_id].methods:
            raise no_such(name, "PaymentMethod")
        return self.books.methods[name]

    def _declined(self, bill: Bill, charged: Charged) -> Refusal:
        method = self.books.methods[charged.method_id]
        error = objects.card_error(charged, method)
        message, kind = error.pop("message"), error.pop("type")
        return Refusal(402, message, kind, **error, payment_intent=objects.payment_intent(bill, method))

    def _shown(self, body: JSON, form: Form) -> Answer:
        return Answer(200, self._expanded(body, form))

    def _expanded(self, body: JSON, form: Form) -> JSON:
        return expand(body, form.lists["expand"], self.books.reach)


def _cause(request: Request) -> Cause:
    return Cause(request.state.request_id, request.headers.get("idempotency-key"))


def _asked(request: Request, form: Form, bill: Bill) -> Asked:
    return Asked(request.headers.get("idempotency-key"), request.url.path, form.raw, bill.id)


_LIMITS: dict[str, Callable[[int, int], bool]] = {
    "created[gt]": lambda at, limit: at > limit,
    "created[gte]": lambda at, limit: at >= limit,
    "created[lt]": lambda at, limit: at < limit,
    "created[lte]": lambda at, limit: at <= limit,
    "created": lambda at, limit: at == limit,
}


def _within(form: Form, at: int) -> bool:
    return all(limit is None or test(at, limit) for name, test in _LIMITS.items() for limit in [form.whole(name)])


def _created(form: Form, at: datetime) -> bool:
    return _within(form, seconds(at) or 0)
