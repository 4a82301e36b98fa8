"""The worker's own code against a practice bank over HTTP, driven by hand: a bank, its clock and a desk."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection
from socket import create_server
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schedules import Card, Decline, FailedPayment, Policy
from tests.worker.builders import CARD, JSON, START, payment, the_case, until
from worker import charging, inbox
from worker.desk import Desk
from worker.leases import claim_due
from worker.models import attempts, cases
from worker.practice.bank import make_app, make_server
from worker.practice.books import Books
from worker.stripe_gateway import Limiter, StripeGateway

LEASE = 180.0


@dataclass
class Scripted:
    """A world of written-down answers by payment: charges that are not written down are approved."""

    payments: list[FailedPayment] = field(default_factory=lambda: [payment()])
    declines: list[Decline] = field(default_factory=list)
    acts: list[tuple[str, datetime]] = field(default_factory=list)
    updates: list[tuple[datetime, Card]] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)

    def failures(self) -> Iterable[FailedPayment]:
        """Yield the renewals."""
        return self.payments

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the card on which the renewal failed, or the last written update of it."""
        failed = next((each.card for each in self.payments if each.payment_id == payment_id), CARD)
        return next((card for when, card in reversed(self.updates) if when <= at), failed)

    def charge(self, payment_id: str, at: datetime) -> Decline | None:  # noqa: ARG002
        """Give the next answer."""
        return self.declines.pop(0) if self.declines else None

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Nobody reads it."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the first written act after this instant; only the first payment's customer acts."""
        first = payment_id == self.payments[0].payment_id
        coming = [act for act in self.acts if act[1] > after] if first else []
        return min(coming, key=lambda act: act[1], default=None)

    def account(self, payment_id: str) -> str | None:
        """Return the connected account whose renewal it is."""
        return self.accounts.get(payment_id)

    def close(self) -> None:
        """Nothing to release."""


class Overlay:
    """Shows objects of the bank with other values than it keeps: states that it never reaches by itself.

    ``under_way`` holds the writing requests that the bank has not answered yet, whether anybody waits or not.
    """

    def __init__(self, app: ASGIApp, changes: Mapping[str, JSON], under_way: list[str]) -> None:
        self.app, self.changes, self.under_way = app, changes, under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the bank answer, and change what is read."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1"):
            self.under_way.append(scope["path"])
            try:
                await self.app(scope, receive, send)
            finally:
                self.under_way.remove(scope["path"])
            return
        if scope["type"] != "http" or not self.changes:
            await self.app(scope, receive, send)
            return
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self.app(scope, receive, keep)
        shown = json.loads(b"".join(message.get("body", b"") for message in kept))
        self._change(shown)
        body = json.dumps(shown).encode()
        headers = [pair for pair in kept[0]["headers"] if pair[0] != b"content-length"]
        await send({**kept[0], "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    def _change(self, node: Any) -> None:
        if isinstance(node, dict):
            node.update(self.changes.get(str(node.get("object")), {}))
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            self._change(each)


@dataclass
class Bench:
    """One bank, the case table, and the business clock that both go by. ``shown`` overlays what the bank shows."""

    engine: Engine
    port: int
    instant: list[datetime]
    shown: dict[str, JSON]
    under_way: list[str]
    books: Books
    policy: Policy = field(default_factory=Policy.default)
    live: bool = True
    read_seconds: float = 5
    key: str = "sk_test_1"
    limiter: Limiter | None = None

    def desk(self, now: datetime) -> Desk:
        """Step the clock and return what a worker works with at this instant."""
        self.instant[0] = now
        gateway = StripeGateway(self.key, f"http://127.0.0.1:{self.port}", 2, self.read_seconds, self.limiter)
        return Desk(self.engine, gateway, self.policy, self.live, LEASE, now)

    def claim(self, now: datetime) -> list[tuple[int, UUID]]:
        """Claim what is due, as the sweep does."""
        with self.engine.begin() as db:
            return [(number, UUID(token)) for number, token in claim_due(db, cases, now, 100, LEASE)]

    def work(self, now: datetime) -> int:
        """Do what is due at this instant; return how many cases were."""
        desk = self.desk(now)
        due = self.claim(now)
        for number, token in due:
            charging.work(desk, number, token)
        return len(due)

    def go_on(self, case_id: int = 1) -> datetime:
        """Step the clock to the instant at which the case is due, and do what is due; return that instant.

        Machine time stands still between two instants: what a worker left behind at the bank ends first.
        """
        until(lambda: not self.under_way)
        now: datetime = max(the_case(self.engine, case_id).due_at, self.instant[0])
        assert self.work(now)
        return now

    def run(self, case_id: int = 1, most: int = 200) -> None:
        """Go on until the case has ended."""
        for _ in range(most):
            if the_case(self.engine, case_id).closed_at is not None:
                return
            self.go_on(case_id)
        raise AssertionError(f"case {case_id} does not end")  # noqa: EM102, TRY003

    def hear(self, now: datetime) -> None:
        """Let happen at the bank what is due, then keep and handle every event it tells of."""
        self.instant[0] = now
        self.control("advance", {})
        line = HTTPConnection("127.0.0.1", self.port, timeout=20)
        line.request("GET", "/v1/events?limit=100", headers={"Authorization": "Bearer sk_test_1"})
        told = [inbox.parse_event(each) for each in json.loads(line.getresponse().read())["data"]]
        line.close()
        with self.engine.begin() as db:
            inbox.keep(db, [event for event in reversed(told) if event.ours])
        inbox.drain(self.engine, self.policy, now)

    def control(self, name: str, body: JSON | None = None) -> JSON:
        """Ask the bank's control plane."""
        line = HTTPConnection("127.0.0.1", self.port, timeout=20)
        method, sent = ("GET", None) if body is None else ("POST", json.dumps(body))
        line.request(method, f"/_practice/{name}", sent)
        found: JSON = json.loads(line.getresponse().read())
        line.close()
        return found

    def fault(self, kind: str, **more: Any) -> None:
        """Have the next payment request go wrong."""
        self.control("faults", {"kind": kind, **more})

    def charge_elsewhere(self, now: datetime, payment_id: str = "in_1") -> None:
        """Have somebody else charge an invoice: a person in the dashboard, or another program."""
        self.desk(now).gateway.pay(payment_id, f"shop-{now.isoformat()}")

    @property
    def ledger(self) -> list[JSON]:
        """Return every charge the bank saw, renewals left out."""
        found: list[JSON] = self.control("ledger")["attempts"]
        return found

    @property
    def summary(self) -> JSON:
        """Return the bank's verdict."""
        found: JSON = self.control("ledger")["summary"]
        return found

    def agrees(self) -> None:
        """Both sides tell the same: each of our charges at the bank is one settled attempt, none approved twice."""
        keys = {each["idempotency_key"]: each["approved"] for each in self.ledger if each["by"] == "merchant"}
        seen = {key: approved for key, approved in keys.items() if not key.startswith("shop-")}
        with self.engine.connect() as db:
            rows = db.execute(select(attempts).where(attempts.c.state.not_in(("not_executed", "foreign")))).all()
        assert {row.idempotency_key: row.state for row in rows} == {
            key: "succeeded" if approved else "declined" for key, approved in seen.items()
        }
        assert self.summary["double_charges"] == 0


class Street:
    """One server for many banks: the one opened last answers. A server a test would take longer than the test."""

    def __init__(self) -> None:
        self.bank: ASGIApp = Starlette()
        self._listener = create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._server = make_server(Starlette(routes=[Mount("/", self._answer)]))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.bank(scope, receive, send)

    def open(self, engine: Engine, world: Scripted | None = None, **settings: Any) -> Bench:
        """Open a bank over a world."""
        instant, shown, under_way = [START], dict[str, JSON](), list[str]()
        app = make_app(world or Scripted(), lambda: instant[0])
        app.add_middleware(Overlay, changes=shown, under_way=under_way)
        self.bank = app
        return Bench(engine, self.port, instant, shown, under_way, app.state.books, **settings)

    def close(self) -> None:
        """Stop the server."""
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()


Serve = Callable[..., Bench]
