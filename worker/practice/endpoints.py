"""Which of Stripe's endpoints does the practice bank have, and what do they do to its books?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
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
MOST_TYPES = 20
PAUSES = ("keep_as_draft", "mark_uncollectible", "void")


@dataclass(frozen=True, slots=True)
class _Shown:
    id: str
    body: JSON


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

    async def invoices(self, request: Request, form: Form) -> Answer:
        """``GET /v1/invoices``, newest first."""
        want = form.values

        def keep(bill: Bill) -> bool:
            payment = bill.payment
            facts = {
                "status": bill.status,
                "customer": payment.customer_id,
                "subscription": payment.subscription_id,
                "collection_method": "charge_automatically",
            }
            named = all(want.get(key, fact) == fact for key, fact in facts.items())
            mine = self.books.customers[payment.customer_id].account == _account(request)
            return bill.invoiced and mine and named and _created(form, bill.created)

        found, more = page(self.books.bills, self.books.places, form, keep)
        return self._shown(listing("/v1/invoices", [self.books.invoice(bill) for bill in found], more=more), form)

    async def invoice_payments(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/invoice_payments?invoice=…``."""
        bills = [self.books.bill(form.values["invoice"])] if "invoice" in form.values else self.books.bills[::-1]
        data = [objects.invoice_payment(bill) for bill in bills if bill.invoiced]
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

    async def many(self, collection: str, _request: Request, form: Form) -> Answer:
        """``GET /v1/<collection>``, newest first."""
        return self._list(collection, form, lambda _each: True)

    async def subscriptions(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/subscriptions``, newest first: without what was canceled, unless ``status`` asks for it."""
        wanted = {"ended": "canceled"}.get(form.values.get("status", ""), form.values.get("status"))

        def keep(each: _Shown) -> bool:
            status = each.body["status"]
            return status != "canceled" if wanted is None else wanted in ("all", status)

        return self._list("subscriptions", form, keep)

    def _list(self, collection: str, form: Form, keep: Callable[[_Shown], bool]) -> Answer:
        shown = [_Shown(body["id"], body) for body in self.books.every(collection)]
        found, more = page(shown, {each.id: place for place, each in enumerate(shown)}, form, keep)
        return self._shown(listing(f"/v1/{collection}", [each.body for each in found], more=more), form)

    async def webhook_endpoints(self, _request: Request, form: Form) -> Answer:
        """``GET /v1/webhook_endpoints``: the one address that events are sent to, if there is any."""
        log = self.books.log
        data = [objects.webhook_endpoint(log.courier.url, log.wanted)] if log.courier else []
        return self._shown(listing("/v1/webhook_endpoints", data, more=False), form)

    async def events(self, request: Request, form: Form) -> Answer:
        """``GET /v1/events``, newest first."""
        types = set(form.lists.get("types", [])) | ({form.values["type"]} if "type" in form.values else set())
        if len(types) > MOST_TYPES:
            raise Refusal(400, f"You may only specify up to {MOST_TYPES} values for types.", param="types")
        delivered = {"true": True, "false": False}.get(form.values.get("delivery_success", ""))

        def keep(event: Event) -> bool:
            named = not types or event.type in types
            mine = event.account == _account(request)
            return mine and named and delivered in (None, event.delivered) and _within(form, event.created)

        log = self.books.log
        found, more = page(log.events, log.places, form, keep)
        return Answer(200, listing("/v1/events", [event.body() for event in found], more=more))

    async def event(self, request: Request, _form: Form) -> Answer:
        """``GET /v1/events/{id}``."""
        name, log = request.path_params["id"], self.books.log
        if name not in log.places:
            raise no_such(name, "event")
        return Answer(200, log.events[log.places[name]].body())

    async def pay(self, collection: str, request: Request, form: Form) -> Answer:
        """``POST /v1/invoices/{id}/pay``, or of an intent ``…/confirm``: 200 when it is paid, 402 with the decline."""
        bill = self._bill(collection, request)
        method, cause = self._chosen(form, bill), _cause(request)

        def execute() -> JSON:
            now = self._now()
            charged = self.books.pay(bill, method, now, cause)
            if charged.decline is not None:
                raise self._declined(bill, charged)
            return self._expanded(self.books.find(bill.id), form)

        return await self.door.pay(_asked(request, form, bill), execute)

    async def mark_uncollectible(self, request: Request, form: Form) -> Answer:
        """``POST /v1/invoices/{id}/mark_uncollectible``."""
        bill, cause = self._bill("invoices", request), _cause(request)

        def execute() -> JSON:
            self.books.mark_uncollectible(bill, self._now(), cause)
            return self._expanded(self.books.invoice(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def cancel_intent(self, request: Request, form: Form) -> Answer:
        """``POST /v1/payment_intents/{id}/cancel`` of one without an invoice."""
        bill, cause = self._bill("payment_intents", request), _cause(request)

        def execute() -> JSON:
            self.books.cancel_intent(bill, self._now(), cause)
            return self._expanded(self.books.intent(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def cancel(self, request: Request, form: Form) -> Answer:
        """``DELETE /v1/subscriptions/{id}``: one that has ended is no longer found."""
        bill = self.books.by_subscription.get(request.path_params["id"])
        if bill is None or bill.canceled_at is not None:
            raise no_such(request.path_params["id"], "subscription")
        said = {key: form.values.get(f"cancellation_details[{key}]") for key in ("comment", "feedback")}
        self.books.cancel(bill, self._now(), _cause(request), said)
        return self._shown(self.books.subscription(bill), form)

    async def update_invoice(self, request: Request, form: Form) -> Answer:
        """``POST /v1/invoices/{id}`` with ``auto_advance=false``: the bank tries it no more by itself."""
        bill = self._bill("invoices", request)
        if form.values.get("auto_advance") != "false":
            raise Refusal(400, "This bank only turns auto_advance off.")

        def execute() -> JSON:
            self.books.stop_retries(bill)
            return self._expanded(self.books.invoice(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def update_subscription(self, request: Request, form: Form) -> Answer:
        """``POST /v1/subscriptions/{id}``: another ``default_payment_method``, or ``pause_collection``."""
        bill, cause = self.books.by_subscription.get(request.path_params["id"]), _cause(request)
        if bill is None:
            raise no_such(request.path_params["id"], "subscription")
        if "default_payment_method" not in form.values:
            return await self._pause(bill, request, form)
        method = self._chosen(form, bill, "default_payment_method")

        def execute() -> JSON:
            if method is not None:
                self.books.prefer(bill, method, self._now(), cause)
            return self._expanded(self.books.subscription(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def _pause(self, bill: Bill, request: Request, form: Form) -> Answer:
        """Pause the collection in one way, or resume it by an empty text."""
        cause = _cause(request)
        wanted = form.values.get("pause_collection[behavior]")
        if wanted not in PAUSES and form.values.get("pause_collection") != "":
            raise Refusal(400, f"Invalid pause_collection[behavior]: must be one of {', '.join(PAUSES)}")

        def execute() -> JSON:
            self.books.pause(bill, wanted, self._now(), cause)
            return self._expanded(self.books.subscription(bill), form)

        return await self.door.post(_asked(request, form, bill), execute)

    async def portal(self, request: Request, form: Form) -> Answer:
        """``POST /v1/billing_portal/sessions``: a fresh session for changing the card, the one flow there is."""
        customer, flow = form.values.get("customer", ""), form.values.get("flow_data[type]")
        if customer not in self.books.customers:
            raise Refusal(400, f"No such customer: '{customer}'", code="resource_missing", param="customer")
        if flow != "payment_method_update":
            raise Refusal(400, "Invalid flow_data[type]: must be payment_method_update", param="flow_data[type]")
        session = objects.portal_session(request.state.request_id, customer, form.values, self.books.clock())
        key = request.headers.get("idempotency-key")
        return await self.door.post(Asked(key, request.url.path, form.raw, session["id"]), lambda: session)

    def admit(self, request: Request, form: Form) -> None:
        """Raise ``Refusal`` for an account that is not connected, and for an object of another account."""
        account = _account(request)
        if account not in self.books.accounts:
            message = f"The provided key does not have access to account '{account}' (or that account does not exist)."
            raise Refusal(403, message, code="account_invalid")
        for name in (request.path_params.get("id"), form.values.get("customer")):
            if name is not None and self._owner(name, account) != account:
                raise no_such(name, "object")

    def _owner(self, name: str, otherwise: str | None) -> str | None:
        log = self.books.log
        if name in log.places:
            return log.events[log.places[name]].account
        with suppress(Refusal):
            return self.books.account_of(self.books.find(name))
        return otherwise

    def _now(self) -> datetime:
        """Return the clock's instant, with everything due before it done."""
        now = self.books.clock()
        self.books.advance(now)
        return now

    def _bill(self, collection: str, request: Request) -> Bill:
        """Return the invoice, or the payment intent without one, of a path."""
        name = request.path_params["id"]
        if not name.startswith(PREFIX[collection]) or name not in self.books.places:
            raise no_such(name, collection.removesuffix("s"))
        return self.books.bill(name)

    def _chosen(self, form: Form, bill: Bill, key: str = "payment_method") -> Method | None:
        name = form.values.get(key)
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


def _account(request: Request) -> str | None:
    return request.headers.get("stripe-account")


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
