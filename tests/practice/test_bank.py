"""Can a worker tell the practice bank from Stripe, and does the bank judge the worker rightly?

The official SDK talks to a bank on a loopback port; every request and answer is checked against Stripe's own
description on the way.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import pytest
import requests
import stripe

from schedules.facts import Card, Decline, FailedPayment
from tests.practice import openapi
from worker.practice import door
from worker.practice.bank import load_world, make_app, make_server
from worker.practice.events import signature
from worker.practice.world import BuiltInWorld

if TYPE_CHECKING:
    from pathlib import Path

    from worker.practice.protocol import World

JSON = dict[str, Any]
START = datetime(2026, 1, 12, 15, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FUNDS = Decline("insufficient_funds", "try_again_later", "51", "26", "issuer_declined", "insufficient_funds")
OLD = Card("OLDoldOLDoldOLD1", "mastercard", "debit", "US", 4, 2027)
NEW = Card("NEWnewNEWnewNEW1", "visa", "credit", "US", 9, 2029)
NEW_CARD: Any = {"type": "payment_method_update"}
KEPT_AS_DRAFT: Any = {"pause_collection": {"behavior": "keep_as_draft"}}
EVERYTHING = [
    "customer.invoice_settings.default_payment_method",
    "default_payment_method",
    "parent.subscription_details.subscription.default_payment_method",
    "payments.data.payment.payment_intent",
]


@dataclass
class Scripted:
    """A world of written-down answers: declines charge by charge, then approvals; acts and updates by instant."""

    declines: list[Decline] = field(default_factory=list)
    acts: list[tuple[str, datetime]] = field(default_factory=list)
    update: datetime | None = None
    payments: int = 1
    decline: Decline = FUNDS
    contacts: list[tuple[datetime, str]] = field(default_factory=list)

    def failures(self) -> Iterable[FailedPayment]:
        """Yield renewals that failed an hour apart."""
        for number in range(1, self.payments + 1):
            names = (f"in_{number}", f"cus_{number}", f"sub_{number}")
            at = START + (number - 1) * HOUR
            yield FailedPayment(*names, 1999, "usd", at, self.decline, OLD, "America/New_York", "en-US", 90)

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the new card once it was entered or updated."""
        entered = any(act == "card" and when <= at for act, when in self.acts if payment_id == "in_1")
        updated = self.update is not None and self.update <= at
        return NEW if entered else replace(OLD, exp_year=2030) if updated else OLD

    def charge(self, payment_id: str, at: datetime) -> Decline | None:  # noqa: ARG002
        """Give the next answer."""
        return self.declines.pop(0) if self.declines else None

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:  # noqa: ARG002
        """Write it down, and have the customer pay an hour later."""
        self.contacts.append((at, notice))
        self.acts.append(("paid", at + HOUR))

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the first written act after this instant; only the first payment's customer acts."""
        coming = [act for act in self.acts if act[1] > after] if payment_id == "in_1" else []
        return min(coming, key=lambda act: act[1], default=None)

    def next_update(self, payment_id: str, after: datetime) -> datetime | None:  # noqa: ARG002
        """Return the written update."""
        return self.update if self.update and self.update > after else None

    def zone(self, payment_id: str) -> str:  # noqa: ARG002
        """Everybody banks in New York."""
        return "America/New_York"

    def close(self) -> None:
        """Nothing to release."""


class CheckedClient(stripe.RequestsClient):
    """The SDK's own client, with both directions held against Stripe's description."""

    def __init__(self, description: openapi.Description) -> None:
        self.session = requests.Session()
        super().__init__(timeout=20, session=self.session)
        self.description = description
        self.seen: set[tuple[str, str]] = set()
        self.headers: Mapping[str, str] = {}

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **more: Any) -> Any:
        """Check the request, send it, check the answer."""
        parts = urlsplit(url)
        self.description.check_request(method, parts.path, post_data or "", parts.query)
        body, status, self.headers = super().request(method, url, headers, post_data, **more)
        self.description.check_response(method, parts.path, status, json.loads(body))
        self.seen.add((method.upper(), self.description.template(parts.path)))
        return body, status, self.headers


@dataclass
class Practice:
    """One bank being served, its clock, and a client of each kind."""

    port: int
    instant: list[datetime]
    http: CheckedClient
    stripe: Any

    def at(self, instant: datetime) -> JSON:
        """Step the clock and let happen what is due."""
        self.instant[0] = instant
        return self.control("advance", {})

    def control(self, name: str, body: JSON | None = None) -> JSON:
        """Ask the control plane."""
        line = HTTPConnection("127.0.0.1", self.port, timeout=20)
        line.request(
            "GET" if body is None else "POST", f"/_practice/{name}", None if body is None else json.dumps(body)
        )
        found: JSON = json.loads(line.getresponse().read())
        line.close()
        return found

    def pay(self, key: str | None = None, invoice: str = "in_1", **params: Any) -> Any:
        """Charge an invoice as the gateway does."""
        options: Any = {"idempotency_key": key} if key else {}
        return self.stripe.v1.invoices.pay(invoice, {"off_session": True, **params}, options)

    def events(self, **params: Any) -> list[Any]:
        """List events, newest first."""
        return list(self.stripe.v1.events.list({"limit": 100, **params}).data)

    @property
    def ledger(self) -> JSON:
        """Return the ledger."""
        return self.control("ledger")


Serve = Callable[..., Practice]


@pytest.fixture(scope="session")
def description(pytestconfig: pytest.Config) -> openapi.Description:
    """Return Stripe's description, kept between sessions."""
    return openapi.load(pytestconfig.cache.mkdir("openapi"))


@pytest.fixture
def serve(description: openapi.Description) -> Iterator[Serve]:
    """Return a function that serves a bank over a world at 12 January, 15:00 UTC (10:00 in New York)."""
    running: list[Callable[[], None]] = []

    def start(world: World | None = None, webhook: tuple[str, str] | None = None) -> Practice:
        instant = [START]
        listener = create_server(("127.0.0.1", 0))
        server = make_server(make_app(world or Scripted(), lambda: instant[0], webhook))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            listener.close()
            practice.http.session.close()

        running.append(stop)
        port, http = listener.getsockname()[1], CheckedClient(description)
        base: Any = {"api": f"http://127.0.0.1:{port}"}
        client = stripe.StripeClient("sk_test_1", http_client=http, base_addresses=base, max_network_retries=0)
        practice = Practice(port, instant, http, client)
        practice.at(START)
        return practice

    yield start
    for stop in running:
        stop()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _error(error: stripe.StripeError) -> JSON:
    """Return the body of an error; what was not sent is None."""
    assert error.error is not None
    return error.error.to_dict()


# Shapes


def test_every_endpoint_answers_in_the_shape_stripe_describes(serve: Serve) -> None:
    """Each endpoint the bank has is asked through the SDK, and what it says fits Stripe's description."""
    bank = serve(BuiltInWorld(7, 60))
    bank.at(START + 20 * DAY)
    v1 = bank.stripe.v1
    for invoice in v1.invoices.list({"limit": 5, "status": "open"}).data:
        full = v1.invoices.retrieve(invoice.id, {"expand": EVERYTHING})
        payments = v1.invoice_payments.list({"invoice": invoice.id})
        intent = v1.payment_intents.retrieve(
            str(payments.data[0].payment.payment_intent), {"expand": ["latest_charge"]}
        )
        v1.charges.retrieve(intent.latest_charge.id)
        v1.customers.retrieve(full.customer.id)
        stored = v1.customers.payment_methods.list(full.customer.id)
        v1.payment_methods.retrieve(stored.data[0].id)
        v1.subscriptions.retrieve(invoice.parent.subscription_details.subscription)
    listed = v1.events.list({"limit": 100, "types": ["invoice.payment_failed", "invoice.paid"]})
    v1.events.retrieve(listed.data[0].id)
    v1.accounts.retrieve_current()
    v1.subscriptions.update(invoice.parent.subscription_details.subscription, KEPT_AS_DRAFT)
    v1.subscriptions.cancel(invoice.parent.subscription_details.subscription)
    v1.invoices.mark_uncollectible(invoice.id)
    v1.billing_portal.sessions.create({"customer": full.customer.id, "flow_data": NEW_CARD})
    with pytest.raises(stripe.InvalidRequestError):
        v1.invoices.pay(invoice.id)
    assert len(bank.http.seen) == 17


def test_every_event_carries_an_object_stripe_describes(serve: Serve) -> None:
    """A month of the built-in world raises events of every kind the worker may meet, all of the right shape."""
    bank = serve(BuiltInWorld(7, 150))
    for day in range(1, 40):
        bank.at(START + day * DAY)
        for invoice in bank.stripe.v1.invoices.list({"status": "open", "limit": 3}).data:
            bank.control("notice", {"invoice": invoice.id, "notice": "first"})
    page = bank.stripe.v1.events.list({"limit": 100})
    assert {event.type for event in page.auto_paging_iter()} == {
        "charge.failed",
        "customer.subscription.deleted",
        "customer.updated",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.updated",
        "invoice.voided",
        "invoice_payment.paid",
        "payment_method.attached",
        "payment_method.automatically_updated",
    }


def test_an_invoice_shows_its_payments_only_when_they_are_expanded(serve: Serve) -> None:
    """Since 2025-03-31 an invoice has no intent, charge or paid flag; its payments come on request."""
    bank = serve()
    bare = bank.stripe.v1.invoices.retrieve("in_1").to_dict()
    assert not {"payments", "payment_intent", "charge", "paid", "subscription"} & set(bare)
    full = bank.stripe.v1.invoices.retrieve("in_1", {"expand": EVERYTHING}).to_dict()
    intent = full["payments"]["data"][0]["payment"]["payment_intent"]
    assert intent["last_payment_error"]["decline_code"] == "insufficient_funds"
    assert full["customer"]["invoice_settings"]["default_payment_method"]["card"]["fingerprint"] == OLD.fingerprint
    assert full["parent"]["subscription_details"]["subscription"]["default_payment_method"] is None


@pytest.mark.parametrize("path", ["payments.data.payment.payment_intent.latest_charge", "status", "nothing"])
def test_what_stripe_does_not_expand_is_refused(serve: Serve, path: str) -> None:
    """More than four levels, a plain value and an unknown field are all errors, as at Stripe."""
    with pytest.raises(stripe.InvalidRequestError, match="expand"):
        serve().stripe.v1.invoices.retrieve("in_1", {"expand": [path]})


def test_a_request_without_a_test_key_is_turned_away(serve: Serve) -> None:
    """A live key or none at all is a 401, before anything else."""
    bank = serve()
    base: Any = {"api": f"http://127.0.0.1:{bank.port}"}
    client = stripe.StripeClient("sk_live_1", http_client=bank.http, base_addresses=base, max_network_retries=0)
    with pytest.raises(stripe.AuthenticationError):
        client.v1.invoices.retrieve("in_1")


@pytest.mark.parametrize("wish", [{"revoked": True}, {"missing": ["rak_event_read"]}, {"newest": "2024-06-20"}])
def test_access_is_refused_as_stripe_refuses_it_until_it_is_given_back(serve: Serve, wish: JSON) -> None:
    """A revoked key, a missing right, a version it does not know: each with its own status, before anything else."""
    bank = serve()
    base: Any = {"api": f"http://127.0.0.1:{bank.port}"}
    client = stripe.StripeClient("rk_test_1", http_client=bank.http, base_addresses=base, max_network_retries=0)
    bank.control("access", wish)
    kind = {"revoked": stripe.AuthenticationError, "missing": stripe.PermissionError}
    with pytest.raises(kind.get(next(iter(wish)), stripe.InvalidRequestError)) as refused:
        client.v1.events.list()
    assert "rk_test_1" not in str(refused.value)
    bank.control("access", {})
    assert client.v1.events.list().data


def test_every_kind_of_object_is_listed_newest_first(serve: Serve) -> None:
    """Page by page; a subscription that was canceled is no longer in the list."""
    bank = serve(Scripted(payments=3))
    bank.at(START + 2 * HOUR)
    bank.stripe.v1.subscriptions.cancel("sub_2")
    found = {
        "charges": ["ch_3_0", "ch_2_0", "ch_1_0"],
        "customers": ["cus_3", "cus_2", "cus_1"],
        "payment_intents": ["pi_3", "pi_2", "pi_1"],
        "payment_methods": ["pm_3_0", "pm_2_0", "pm_1_0"],
        "subscriptions": ["sub_3", "sub_1"],
    }
    for name, ids in found.items():
        every = getattr(bank.stripe.v1, name).list({"limit": 2}).auto_paging_iter()
        assert [each.id for each in every] == ids


def test_unknown_parameters_and_ids_are_named(serve: Serve) -> None:
    """A parameter Stripe does not have is a 400, an invoice that has not failed yet is a 404."""
    bank = serve(Scripted(payments=2))
    line = HTTPConnection("127.0.0.1", bank.port)
    line.request("POST", "/v1/invoices/in_1/pay", "amount=3", {"Authorization": "Bearer sk_test_1"})
    answer = line.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["param"]) == (400, "amount")
    line.close()
    with pytest.raises(stripe.InvalidRequestError) as missing:
        bank.stripe.v1.invoices.retrieve("in_2")
    assert missing.value.code == "resource_missing"
    bank.at(START + HOUR)
    assert bank.stripe.v1.invoices.retrieve("in_2").status == "open"


# Paying


def test_a_decline_is_a_402_with_the_banks_own_codes(serve: Serve) -> None:
    """The error, the intent and the charge all carry the decline, advice and network codes."""
    bank = serve(Scripted([FUNDS]))
    with pytest.raises(stripe.CardError) as refused:
        bank.pay("k1")
    error = _error(refused.value)
    assert refused.value.http_status == 402
    assert refused.value.request_id == bank.http.headers["Request-Id"]
    assert (error["code"], error["decline_code"], error["advice_code"]) == (
        "card_declined",
        "insufficient_funds",
        "try_again_later",
    )
    assert (error["network_decline_code"], error["network_advice_code"]) == ("51", "26")
    charge = bank.stripe.v1.charges.retrieve(error["charge"])
    assert charge.outcome
    assert (charge.outcome.network_status, charge.outcome.type) == ("declined_by_network", "issuer_declined")
    assert error["payment_intent"]["latest_charge"] == charge.id


def test_an_expired_card_is_told_by_the_error_code_alone(serve: Serve) -> None:
    """Stripe names a few declines in ``code`` and leaves ``decline_code`` away."""
    bank = serve(Scripted([Decline("expired_card", outcome_type="issuer_declined")]))
    with pytest.raises(stripe.CardError) as refused:
        bank.pay("k1")
    assert refused.value.code == "expired_card"
    assert _error(refused.value)["decline_code"] is None


def test_a_charge_that_stripe_blocked_itself_looks_generic_but_was_never_sent(serve: Serve) -> None:
    """Only the charge's outcome tells a block from a plain decline."""
    blocked = Decline("generic_decline", outcome_type="blocked", outcome_reason="previously_declined_do_not_retry")
    bank = serve(Scripted([blocked]))
    with pytest.raises(stripe.CardError) as refused:
        bank.pay("k1")
    charge = bank.stripe.v1.charges.retrieve(_error(refused.value)["charge"])
    assert charge.outcome
    assert (charge.outcome.type, charge.outcome.network_status) == ("blocked", "not_sent_to_network")


def test_a_paid_invoice_cannot_be_paid_again(serve: Serve) -> None:
    """The second payment under another key is a 400, and the ledger tells that somebody tried."""
    bank = serve()
    assert bank.pay("k1").status == "paid"
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        bank.pay("k2")
    summary = bank.ledger["summary"]
    assert (summary["approved"], summary["refused_on_paid"], summary["double_charges"]) == (1, 1, 0)


def test_a_written_off_invoice_is_not_paid(serve: Serve) -> None:
    """After mark_uncollectible a payment is a 400 and nothing is charged."""
    bank = serve()
    assert bank.stripe.v1.invoices.mark_uncollectible("in_1").status == "uncollectible"
    with pytest.raises(stripe.InvalidRequestError):
        bank.pay("k1")
    assert bank.ledger["attempts"] == []


def test_a_paused_subscription_shows_it_and_tells_it_once(serve: Serve) -> None:
    """Pausing is an event with what was before; a second time changes nothing, and an empty text resumes."""
    bank = serve()
    subscriptions = bank.stripe.v1.subscriptions
    for _ in range(2):
        paused = subscriptions.update("sub_1", KEPT_AS_DRAFT)
    assert paused.pause_collection.to_dict() == {"behavior": "keep_as_draft", "resumes_at": None}
    assert (paused.status, bank.stripe.v1.invoices.retrieve("in_1").status) == ("past_due", "open")
    [told] = bank.events(type="customer.subscription.updated")
    assert told.data.object["pause_collection"] == paused.pause_collection
    assert told.data.previous_attributes.to_dict() == {"pause_collection": None}
    assert subscriptions.update("sub_1", {"pause_collection": ""}).pause_collection is None


def test_a_subscription_that_ended_is_not_paused(serve: Serve) -> None:
    """A canceled one is a 400, an unknown one a 404, and nothing is told."""
    bank = serve()
    bank.stripe.v1.subscriptions.cancel("sub_1")
    for name, status in (("sub_1", 400), ("sub_2", 404)):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            bank.stripe.v1.subscriptions.update(name, KEPT_AS_DRAFT)
        assert refused.value.http_status == status
    assert bank.events(type="customer.subscription.updated") == []


def test_an_older_card_is_refused_as_it_was_before(serve: Serve) -> None:
    """Paying with the method that failed repeats its decline although a better card is stored by now."""
    bank = serve(Scripted(acts=[("card", START + HOUR)]))
    bank.at(START + 2 * HOUR)
    with pytest.raises(stripe.CardError) as refused:
        bank.pay("k1", payment_method="pm_1_0")
    assert _error(refused.value)["decline_code"] == "insufficient_funds"
    assert bank.pay("k2", payment_method="pm_1_1").status == "paid"


def test_somebody_elses_card_is_not_found(serve: Serve) -> None:
    """A payment method of another customer is a 404."""
    bank = serve(Scripted(payments=2))
    bank.at(START + HOUR)
    with pytest.raises(stripe.InvalidRequestError) as missing:
        bank.pay("k1", payment_method="pm_2_0")
    assert missing.value.http_status == 404


# Idempotency


def test_one_key_is_one_charge_even_when_it_was_declined(serve: Serve) -> None:
    """The same key replays the first decline, although the bank would approve now; a new key charges."""
    bank = serve(Scripted([FUNDS]))
    ids = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refused:
            bank.pay("k1")
        ids.append(_error(refused.value)["charge"])
    assert ids[0] == ids[1]
    assert bank.http.headers["Idempotent-Replayed"] == "true"
    assert len(bank.ledger["attempts"]) == 1
    assert bank.pay("k2").status == "paid"


def test_a_key_with_other_parameters_is_an_error(serve: Serve) -> None:
    """Stripe compares the parameters, and answers 400 idempotency_error."""
    bank = serve(Scripted([FUNDS]))
    with pytest.raises(stripe.CardError):
        bank.pay("k1")
    with pytest.raises(stripe.IdempotencyError):
        bank.pay("k1", payment_method="pm_1_0")


def test_a_key_in_use_and_a_locked_invoice_are_not_executed(serve: Serve) -> None:
    """While a slow payment runs, its key is a 409 and another key on the invoice a 429; one charge is made."""
    bank = serve()
    bank.control("faults", {"kind": "timeout_after", "seconds": 1.5})
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(bank.pay, "k1")
        until(lambda: len(bank.ledger["attempts"]) == 1)
        with pytest.raises(stripe.APIError) as in_use:
            bank.pay("k1")
        with pytest.raises(stripe.RateLimitError) as locked:
            bank.pay("k2")
        assert slow.result().status == "paid"
    assert (in_use.value.http_status, _error(in_use.value)["code"]) == (409, "idempotency_key_in_use")
    assert _error(locked.value)["code"] == "lock_timeout"
    assert bank.pay("k1").status == "paid"
    assert len(bank.ledger["attempts"]) == 1


def test_a_key_is_forgotten_after_a_day_of_machine_time() -> None:
    """Up to 24 hours a key replays, from then on it makes a new request."""
    machine, executed = [1000.0], [0]
    entrance = door.Door(machine=lambda: machine[0])

    def execute() -> JSON:
        executed[0] += 1
        return {}

    for at, expected in ((0, 1), (24 * 3600 - 1, 1), (24 * 3600, 2)):
        machine[0] = 1000.0 + at
        asyncio.run(entrance.pay(door.Asked("k1", "/pay", (), "in_1"), execute))
        assert executed[0] == expected


# Faults


@pytest.mark.parametrize(
    ("kind", "error", "charged"),
    [
        ("429", stripe.RateLimitError, 0),
        ("409", stripe.APIError, 0),
        ("500_before", stripe.APIError, 0),
        ("500_after", stripe.APIError, 1),
        ("reset_before", stripe.APIConnectionError, 0),
        ("reset_after", stripe.APIConnectionError, 1),
    ],
)
def test_a_fault_charges_or_does_not_as_its_name_says(
    serve: Serve, kind: str, error: type[stripe.StripeError], charged: int
) -> None:
    """The client sees the error; what the bank did shows in its ledger and in the invoice."""
    bank = serve()
    assert bank.control("faults", {"kind": kind}) == {"planned": 1}
    with pytest.raises(error):
        bank.pay("k1")
    assert len(bank.ledger["attempts"]) == charged
    assert bank.stripe.v1.invoices.retrieve("in_1").status == ("paid" if charged else "open")


@pytest.mark.parametrize("kind", ["429", "409", "500_before", "reset_before", "reset_after"])
def test_the_same_key_after_a_fault_ends_in_one_charge(serve: Serve, kind: str) -> None:
    """What failed before execution was not saved, what failed after it replays: both end paid, charged once."""
    bank = serve()
    bank.control("faults", {"kind": kind})
    with pytest.raises(stripe.StripeError):
        bank.pay("k1")
    assert bank.pay("k1").status == "paid"
    assert bank.ledger["summary"]["approved"] == 1


def test_a_500_after_charging_is_replayed_for_its_key(serve: Serve) -> None:
    """Asking again under the key brings the same 500 although the invoice is paid: only reading helps."""
    bank = serve()
    bank.control("faults", {"kind": "500_after"})
    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            bank.pay("k1")
        assert broken.value.http_status == 500
    assert bank.stripe.v1.invoices.retrieve("in_1").status == "paid"


def test_random_faults_repeat_with_their_seed_and_can_be_cleared(serve: Serve) -> None:
    """A probability with a seed hits the same requests on every bank, until the faults are cleared."""

    def hits() -> list[bool]:
        bank, hit = serve(Scripted([FUNDS] * 30)), []
        bank.control("faults", {"kind": "429", "probability": 0.5, "seed": 3})
        for number in range(12):
            with pytest.raises((stripe.RateLimitError, stripe.CardError)) as refused:
                bank.pay(f"k{number}")
            hit.append(refused.type is stripe.RateLimitError)
        bank.control("faults", {"clear": True})
        with pytest.raises(stripe.CardError):
            bank.pay("last")
        return hit

    first = hits()
    assert first == hits()
    assert 0 < sum(first) < 12


def test_an_unknown_fault_is_refused(serve: Serve) -> None:
    """A misspelt fault must not pass for a test without faults."""
    assert "No such fault" in serve().control("faults", {"kind": "500_befor"})["error"]["message"]


# Events and webhooks


@dataclass
class Shop:
    """The merchant's endpoint: what arrived, and how it answers."""

    url: str
    answers: list[int]
    arrived: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        """Return the types of the events that were taken."""
        return [json.loads(body)["type"] for body, _ in self.arrived]


@contextmanager
def shop(answers: list[int]) -> Iterator[Shop]:
    """Serve an endpoint that gives these answers first, then 200."""

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = open_shop.answers.pop(0) if open_shop.answers else 200
            if status == 200:
                open_shop.arrived.append((body, self.headers["Stripe-Signature"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    open_shop = Shop(f"http://127.0.0.1:{server.server_port}/webhooks/stripe", answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield open_shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_webhooks_verify_with_the_sdk_and_come_in_order(serve: Serve) -> None:
    """Every event of a failed renewal and its recovery arrives once, signed with the shared secret, in order."""
    with shop([]) as merchant:
        bank = serve(webhook=(merchant.url, "whsec_1"))
        bank.pay("k1")
        until(lambda: bank.control("pending")["pending"] == 0)
        paid = ["invoice.updated", "invoice.paid", "invoice_payment.paid"]
        assert merchant.types == ["charge.failed", "invoice.payment_failed", *paid]
        for body, header in merchant.arrived:
            event = stripe.Webhook.construct_event(body, header, "whsec_1")
            assert event.type in merchant.types
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(merchant.arrived[0][0], merchant.arrived[0][1], "whsec_2")


def test_a_webhook_that_was_not_taken_is_sent_again(serve: Serve) -> None:
    """Two errors of the endpoint delay the event; it arrives in the end and only then counts as delivered."""
    with shop([500, 503]) as merchant:
        bank = serve(webhook=(merchant.url, "whsec_1"))
        until(lambda: bank.control("pending")["pending"] == 0)
        assert sorted(merchant.types) == ["charge.failed", "invoice.payment_failed"]
        assert bank.events(delivery_success=False) == []
        assert bank.control("pending")["given_up"] == 0


def test_an_endpoint_named_later_gets_what_comes_later(serve: Serve) -> None:
    """A driver that learns the worker's port only afterwards can still name it."""
    with shop([]) as merchant:
        bank = serve()
        bank.control("webhook", {"url": merchant.url, "secret": "whsec_1"})
        bank.pay("k1")
        until(lambda: len(merchant.arrived) == 3)
        assert merchant.types == ["invoice.updated", "invoice.paid", "invoice_payment.paid"]


def test_a_dead_endpoint_does_not_hold_up_the_api(serve: Serve) -> None:
    """With nobody listening the payment is answered at once and the events wait."""
    with create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    bank = serve(webhook=(url, "whsec_1"))
    began = time.monotonic()
    assert bank.pay("k1").status == "paid"
    assert time.monotonic() - began < 2
    assert bank.control("pending")["pending"] == 5
    assert len(bank.events(delivery_success=False)) == 5


def test_signatures_are_stripes(serve: Serve) -> None:  # noqa: ARG001 - the SDK alone is the judge
    """A payload signed by the bank passes the SDK's own check, a changed one does not."""
    now = int(time.time())
    header = signature("whsec_1", b"{}", now)
    assert stripe.WebhookSignature.verify_header("{}", header, "whsec_1", 300)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header("[]", header, "whsec_1", 300)


def test_events_of_our_own_request_carry_its_id_and_key(serve: Serve) -> None:
    """The key ties an event to exactly our request; the renewal's own failure has neither."""
    bank = serve(Scripted([FUNDS]))
    with pytest.raises(stripe.CardError) as refused:
        bank.pay("k1")
    ours, _, renewal, _ = bank.events()
    assert ours.request
    assert renewal.request
    assert (ours.request.idempotency_key, ours.request.id) == ("k1", refused.value.request_id)
    assert (renewal.request.idempotency_key, renewal.request.id) == (None, None)
    assert ours.data.object["attempt_count"] == 1


def test_events_are_listed_newest_first_and_paged_from_the_last_seen(serve: Serve) -> None:
    """Catching up with ending_before yields the missed events oldest first, by type when asked."""
    bank = serve(Scripted(payments=7))
    bank.at(START + 6 * HOUR)
    ids = [event.id for event in bank.events()]
    assert len(ids) == 14
    later = bank.stripe.v1.events.list({"ending_before": ids[9], "limit": 2})
    assert [event.id for event in later.data] == ids[7:9]
    assert [event.id for event in later.auto_paging_iter()] == ids[:9][::-1]
    failed = bank.events(types=["charge.failed"], created={"gte": int((START + 5 * HOUR).timestamp())})
    assert [event.data.object["id"] for event in failed] == ["ch_7_0", "ch_6_0"]


def test_invoices_are_listed_by_status_customer_and_subscription(serve: Serve) -> None:
    """Filters narrow the list, and pages follow each other without a gap."""
    bank = serve(Scripted(payments=5))
    bank.at(START + 5 * HOUR)
    bank.pay("k", "in_3")
    invoices = bank.stripe.v1.invoices
    assert [each.id for each in invoices.list({"status": "paid"}).data] == ["in_3"]
    assert [each.id for each in invoices.list({"customer": "cus_2"}).data] == ["in_2"]
    assert [each.id for each in invoices.list({"subscription": "sub_4"}).data] == ["in_4"]
    paged = invoices.list({"limit": 2, "status": "open"}).auto_paging_iter()
    assert [each.id for each in paged] == ["in_5", "in_4", "in_2", "in_1"]


# What happens by itself


def test_time_brings_what_is_due_each_at_its_own_instant(serve: Serve) -> None:
    """One step over several instants makes everything happen in time order, stamped with its own time."""
    update, leaves = START + 90 * HOUR / 60, START + 3 * HOUR
    bank = serve(Scripted(payments=2, update=update, acts=[("cancel", leaves)]))
    assert bank.control("next")["next"] == (START + HOUR).isoformat()
    step = bank.at(START + DAY)
    assert step["happened"] == {"failure": 1, "update": 2, "cancel": 1}
    assert (step["more"], step["next"]) == (False, None)
    stamps = [event.created for event in bank.events()][::-1]
    assert stamps == sorted(stamps)
    assert stamps[-1] == int(leaves.timestamp())


def test_the_api_never_shows_the_past(serve: Serve) -> None:
    """When the clock has moved, a request sees what happened meanwhile even before the driver says so."""
    bank = serve(Scripted(acts=[("paid", START + HOUR)]))
    bank.instant[0] = START + 2 * HOUR
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        bank.pay("k1")


def test_a_step_of_the_merchant_makes_the_old_expectation_void(serve: Serve) -> None:
    """Once the invoice is paid nothing more is to come from this customer."""
    bank = serve(Scripted(acts=[("paid", START + DAY)]))
    assert bank.control("next")["next"] == (START + DAY).isoformat()
    bank.pay("k1")
    assert bank.control("next")["next"] is None
    assert bank.at(START + 2 * DAY)["happened"] == {}
    assert bank.ledger["summary"]["approved"] == 1


def test_an_updated_card_keeps_its_method_and_says_what_changed(serve: Serve) -> None:
    """The network renews the expiry under the same payment method, and an event carries the old values."""
    bank = serve(Scripted(update=START + HOUR))
    bank.at(START + 2 * HOUR)
    event = bank.events(type="payment_method.automatically_updated")[0]
    assert event.data.object["id"] == "pm_1_0"
    assert event.data.previous_attributes.to_dict() == {"card": {"exp_year": 2027}}
    card = bank.stripe.v1.payment_methods.retrieve("pm_1_0").card
    assert card
    assert (card.exp_year, card.fingerprint) == (2030, OLD.fingerprint)


def test_a_world_that_tells_no_updates_shows_them_when_read(serve: Serve) -> None:
    """Without ``next_update`` the bank finds the new card at the next read."""
    world = Scripted(update=START + HOUR)
    world.next_update = None  # type: ignore[assignment, method-assign]
    bank = serve(world)
    bank.at(START + 2 * HOUR)
    bank.stripe.v1.invoices.retrieve("in_1")
    card = bank.stripe.v1.payment_methods.retrieve("pm_1_0").card
    assert card
    assert card.exp_year == 2030


def test_a_stored_card_becomes_the_default(serve: Serve) -> None:
    """The customer's own card is attached, becomes the default, and is the one charged next."""
    bank = serve(Scripted(acts=[("card", START + HOUR)]))
    bank.at(START + 2 * HOUR)
    kinds = [event.type for event in bank.events()][:2]
    assert kinds == ["customer.updated", "payment_method.attached"]
    customer = bank.stripe.v1.customers.retrieve("cus_1")
    assert customer.invoice_settings
    assert customer.invoice_settings.default_payment_method == "pm_1_1"
    bank.pay("k1")
    assert bank.ledger["attempts"][0]["fingerprint"] == NEW.fingerprint


def test_a_customer_who_leaves_voids_the_invoice(serve: Serve) -> None:
    """The subscription ends by the customer's wish and its open invoice with it."""
    bank = serve(Scripted(acts=[("cancel", START + HOUR)]))
    bank.at(START + 2 * HOUR)
    subscription = bank.stripe.v1.subscriptions.retrieve("sub_1")
    assert subscription.cancellation_details
    assert (subscription.status, subscription.cancellation_details.reason) == ("canceled", "cancellation_requested")
    assert bank.stripe.v1.invoices.retrieve("in_1").status == "void"


def test_a_notice_reaches_the_customer_and_is_answered(serve: Serve) -> None:
    """What the driver passes on reaches the world, and the act it causes happens in its time."""
    world = Scripted()
    bank = serve(world)
    answer = bank.control("notice", {"invoice": "in_1", "notice": "please_update"})
    assert world.contacts == [(START, "please_update")]
    assert answer == {"next": (START + HOUR).isoformat()}
    bank.at(START + HOUR)
    assert bank.stripe.v1.invoices.retrieve("in_1").status == "paid"
    assert bank.ledger["summary"]["approved_by_customer"] == 1


def test_two_invoices_on_one_card_share_the_method(serve: Serve) -> None:
    """A customer with two subscriptions on one card has one payment method, and a new card serves both."""

    class Twice(Scripted):
        def failures(self) -> Iterable[FailedPayment]:
            return (replace(payment, customer_id="cus_1") for payment in super().failures())

    bank = serve(Twice(payments=2, acts=[("card", START + 2 * HOUR)]))
    bank.at(START + HOUR)
    assert [each.id for each in bank.stripe.v1.customers.payment_methods.list("cus_1").data] == ["pm_1_0"]
    bank.at(START + 3 * HOUR)
    bank.pay("k", "in_2")
    assert bank.ledger["attempts"][0]["fingerprint"] == NEW.fingerprint


# The ledger


def test_the_ledger_judges_hours_by_the_issuers_true_zone(serve: Serve) -> None:
    """00:29 and 06:00 in New York are open, 00:30 and 05:59 are not; a fresh own card is counted apart."""
    bank = serve(Scripted([FUNDS] * 9, acts=[("card", START + 10 * DAY + timedelta(minutes=30))]))
    midnight = datetime(2026, 1, 14, 5, tzinfo=UTC)
    own_card = START + 10 * DAY + timedelta(minutes=30)
    minutes = (29, 30, 359, 360)
    for number, minute in enumerate(minutes):
        bank.at(midnight + timedelta(minutes=minute))
        with pytest.raises(stripe.CardError):
            bank.pay(f"k{number}")
    assert [each["off_hours"] for each in bank.ledger["attempts"]] == [False, True, True, False]
    bank.at(own_card + 59 * HOUR / 60)
    with pytest.raises(stripe.CardError):
        bank.pay("own")
    assert bank.ledger["attempts"][-1]["own_card"] is True
    summary = bank.ledger["summary"]
    assert (summary["off_hours"], summary["off_hours_own_card"]) == (2, 0)


def test_a_night_charge_on_a_card_just_entered_is_counted_apart(serve: Serve) -> None:
    """Within an hour after the customer stored a card, the hour is the customer's own choice."""
    entered = datetime(2026, 1, 14, 7, tzinfo=UTC)
    bank = serve(Scripted([FUNDS] * 2, acts=[("card", entered)]))
    for key, after in (("soon", HOUR), ("late", HOUR + timedelta(minutes=1))):
        bank.at(entered + after)
        with pytest.raises(stripe.CardError):
            bank.pay(key)
    summary = bank.ledger["summary"]
    assert (summary["off_hours"], summary["off_hours_own_card"]) == (1, 1)


def test_the_ledger_counts_requests_and_writes(serve: Serve) -> None:
    """Observing costs reads only: writes count every request that is not a GET."""
    bank = serve()
    bank.stripe.v1.invoices.retrieve("in_1")
    bank.stripe.v1.events.list()
    assert bank.ledger["summary"]["writes"] == 0
    bank.pay("k1")
    summary = bank.ledger["summary"]
    assert (summary["requests"], summary["writes"]) == ({"GET": 2, "POST": 1}, 1)


def test_an_attempt_is_written_down_with_its_key(serve: Serve) -> None:
    """Each charge shows invoice, instant, local time, key and who made it."""
    bank = serve()
    bank.pay("k1")
    (attempt,) = bank.ledger["attempts"]
    assert attempt["request_id"] == bank.http.headers["Request-Id"]
    assert {key: attempt[key] for key in ("invoice", "local", "approved", "idempotency_key", "by")} == {
        "invoice": "in_1",
        "local": "2026-01-12T10:00:00-05:00",
        "approved": True,
        "idempotency_key": "k1",
        "by": "merchant",
    }
    assert bank.ledger["approvals"] == {"in_1": 1}


# The program


def test_any_world_in_a_file_can_stand_behind_the_bank(tmp_path: Path) -> None:
    """FILE.py:CLASS is made with the seed and the number of payments; a place without a file is refused."""
    lines = ["from worker.practice.world import BuiltInWorld", "class Mine(BuiltInWorld):", "    mine = True"]
    (tmp_path / "mine.py").write_text("\n".join(lines), encoding="utf-8")
    world = load_world(f"{tmp_path}/mine.py:Mine", 3, 5)
    assert getattr(world, "mine", False)
    assert list(world.failures()) == list(BuiltInWorld(3, 5).failures())
    with pytest.raises(click.BadParameter):
        load_world("Mine", 3, 5)


def test_the_program_serves_on_a_free_port_and_follows_the_clock_file(tmp_path: Path) -> None:
    """It writes its port once it listens, and what it shows follows the instant in the file."""
    clock, port = tmp_path / "clock", tmp_path / "port"
    clock.write_text("2026-01-05T00:00:00+00:00", encoding="ascii")
    command = [sys.executable, "-m", "worker.practice.bank", "--payments", "20", "--seed", "3"]
    files = ["--port", "0", "--port-file", str(port), "--clock-file", str(clock)]
    with subprocess.Popen([*command, *files], stdout=subprocess.DEVNULL) as program:
        try:
            until(port.exists)
            line = HTTPConnection("127.0.0.1", int(port.read_text(encoding="ascii")), timeout=20)
            counts = []
            for day in ("05", "15", "25"):
                clock.write_text(f"2026-01-{day}T00:00:00+00:00", encoding="ascii")
                line.request("POST", "/_practice/advance")
                counts.append(json.loads(line.getresponse().read())["happened"].get("failure", 0))
            line.close()
        finally:
            program.terminate()
    assert counts[0] == 0
    assert counts[1] > 0
    assert sum(counts) == 20
