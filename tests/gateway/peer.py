"""How does one talk to ``localstripe``? A process of its own, and a front that speaks for what it lacks.

localstripe is a Stripe that nobody here wrote; its charges, invoices and states are its own. The front changes only
words: it leaves out of a request what localstripe would answer with a fault, and adds to an invoice the two fields
that every real one has. What the gateway sent is recorded before that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import requests
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.gateway.wire import Record, served
from worker.stripe_gateway import StripeGateway

JSON = dict[str, Any]
KEY = "sk_test_peer"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
GOOD, FAILS_WHEN_CHARGED, WANTS_THE_CUSTOMER = "4242424242424242", "4000000000000341", "4000008260003178"
# localstripe keeps its data in one file that all of them on a machine would share: this one keeps none.
SERVE = """
import socket
from aiohttp import web
from localstripe.resources import store
from localstripe.server import app
store.dump_to_disk = lambda: None
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
web.run_app(app, sock=listener, print=None)
"""


@dataclass
class Peer:
    """One localstripe, the gateway that talks to it through the front, and what the gateway sent."""

    url: str
    gateway: StripeGateway
    record: Record

    def ask(self, method: str, path: str, **form: Any) -> JSON:
        """Do as the merchant's own backend would."""
        answer = requests.request(method, f"{self.url}/v1/{path}", data=form, headers=AUTHORIZED, timeout=20)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:200]}"
        found: JSON = answer.json()
        return found

    def customer(self, number: str) -> str:
        """Return a new customer who pays with this card."""
        customer = str(self.ask("POST", "customers", email="someone@customer.example")["id"])
        self.store_card(customer, number)
        return customer

    def store_card(self, customer: str, number: str) -> None:
        """Store a card as the customer's default."""
        card = {"card[number]": number, "card[exp_month]": 8, "card[exp_year]": 2030, "card[cvc]": "123"}
        method = self.ask("POST", "payment_methods", type="card", **card)["id"]
        self.ask("POST", f"payment_methods/{method}/attach", customer=customer)
        self.ask("POST", f"customers/{customer}", **{"invoice_settings[default_payment_method]": method})

    def subscribe(self, customer: str) -> JSON:
        """Return the first invoice of a new subscription; its card is charged at once, and it may stay open."""
        product = self.ask("POST", "products", name="Practice", type="service")["id"]
        plan = self.ask("POST", "plans", product=product, currency="usd", amount=1999, interval="month")["id"]
        form = {"customer": customer, "items[0][plan]": plan, "enable_incomplete_payments": "true"}
        subscription = self.ask("POST", "subscriptions", **form)
        found = subscription["latest_invoice"]
        return self.ask("GET", f"invoices/{found['id'] if isinstance(found, dict) else found}")

    def charges(self, customer: str) -> list[str]:
        """Return the status of every charge of a customer, as localstripe itself tells it, oldest first."""
        found = self.ask("GET", f"charges?customer={customer}&limit=100")["data"]
        return [str(each["status"]) for each in found]


@contextmanager
def localstripe() -> Iterator[Peer]:
    """Run localstripe and its front for the time of a context; nothing is left running."""
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            record = Record()
            with served(_front(url), record) as front:
                yield Peer(url, StripeGateway(KEY, front, 2, 20), record)
        finally:
            process.kill()


def _front(url: str) -> Starlette:
    async def carry(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(_carry, url, request, body)

    return Starlette(routes=[Route("/{path:path}", carry, methods=["GET", "POST", "DELETE"])])


def _carry(url: str, request: Request, body: bytes) -> Response:
    asked = request.query_params.multi_items()
    query = [(key, value) for key, value in asked if not key.startswith("expand")]
    wanted = [SPOKEN.get(value, value) for key, value in asked if key.startswith("expand")]
    query += [("expand[]", value) for value in wanted if value is not None]
    # An intent of localstripe keeps its method, the one that we name, and knows no other.
    unknown = {"off_session", "payment_method"} if request.url.path.endswith("/confirm") else {"off_session"}
    form = {key: value for key, value in parse_qsl(body.decode()) if key not in unknown}
    target = f"{url}{request.url.path}?{urlencode(query)}"
    answer = requests.request(request.method, target, data=form, headers=AUTHORIZED, timeout=20)
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return Response(answer.content, answer.status_code)
    return JSONResponse(as_stripe_would(answer.json()), answer.status_code)


# What can be expanded under other names, or not at all, in the old shape.
SPOKEN = {
    "default_payment_method": None,
    "parent.subscription_details.subscription.default_payment_method": "parent.subscription_details.subscription",
    "payments.data.payment.payment_intent": "payment_intent",
}
LACKING = {"off_session", "default_payment_method", "payments.data.payment.payment_intent"}


def as_stripe_would(body: JSON) -> JSON:
    """Add what an invoice of localstripe lacks: what is left to pay, and that nobody retries it by itself."""
    if body.get("object") == "invoice":
        body = {**body, "amount_remaining": body["amount_due"] - body["amount_paid"], "next_payment_attempt": None}
    return body
