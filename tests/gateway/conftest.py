"""What the gateway's suites share: banks served over HTTP, each with the record of what was sent to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.gateway.wire import Record, served
from tests.practice import openapi
from tests.stories.scripted import FAILED_AT, Scripted, a_payment
from worker.practice.bank import make_app
from worker.stripe_gateway import StripeGateway

JSON = dict[str, Any]


@dataclass
class Bank:
    """One practice bank, the gateway that talks to it, and what went over the wire."""

    url: str
    gateway: StripeGateway
    record: Record
    clock: list[datetime]

    def at(self, now: datetime) -> None:
        """Step the clock and let happen what is due."""
        self.clock[0] = now
        self.control("advance", {})

    def fail(self, kind: str, times: int = 1, seconds: float = 1) -> None:
        """Plan faults of the next payment requests."""
        self.control("faults", {"kind": kind, "times": times, "seconds": seconds})

    def control(self, name: str, body: JSON | None = None) -> JSON:
        """Ask the control plane."""
        url = f"{self.url}/_practice/{name}"
        answer = requests.get(url, timeout=20) if body is None else requests.post(url, json=body, timeout=20)
        found: JSON = answer.json()
        return found

    @property
    def charges(self) -> list[bool]:
        """Say of each charge that the bank really made whether it was approved."""
        return [each["approved"] for each in self.control("ledger")["attempts"]]


@dataclass
class Canned:
    """A provider that gives written-down answers: (status, body) in order, the last one again and again."""

    answers: list[tuple[int, JSON | str]]
    record: Record = field(default_factory=Record)
    gateway: StripeGateway = field(init=False)

    async def answer(self, _request: Request) -> Response:
        """Give the next answer."""
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response(body if isinstance(body, str) else json.dumps(body), status, {"Request-Id": "req_canned"})


BankOf = Callable[..., Bank]
CannedOf = Callable[..., Canned]


@pytest.fixture(scope="session")
def description(pytestconfig: pytest.Config) -> openapi.Description:
    """Return Stripe's description, kept between sessions."""
    return openapi.load(pytestconfig.cache.mkdir("openapi"))


@pytest.fixture
def bank_of(description: openapi.Description) -> Iterator[BankOf]:
    """Return a function that serves a practice bank over a scripted world, a minute after the renewals failed.

    At the end everything sent and answered is held against Stripe's description.
    """
    with ExitStack() as stack:
        banks: list[Bank] = []

        def start(world: Scripted | None = None, *, read_seconds: float = 20, key: str = "sk_test_1") -> Bank:
            clock, record = [FAILED_AT], Record()
            app = make_app(world or Scripted((a_payment(),)), lambda: clock[0])
            url = stack.enter_context(served(app, record))
            bank = Bank(url, StripeGateway(key, url, 2, read_seconds), record, clock)
            banks.append(bank)
            bank.at(FAILED_AT)
            return bank

        yield start
        for bank in banks:
            bank.record.check(description)


@pytest.fixture
def canned_of(description: openapi.Description) -> Iterator[CannedOf]:
    """Return a function that serves written-down answers; what was sent is held against Stripe's description."""
    with ExitStack() as stack:
        all_canned: list[Canned] = []

        def start(*answers: tuple[int, JSON | str]) -> Canned:
            canned = Canned(list(answers))
            routes = [Route("/{path:path}", canned.answer, methods=["GET", "POST", "DELETE"])]
            url = stack.enter_context(served(Starlette(routes=routes), canned.record))
            canned.gateway = StripeGateway("sk_test_1", url, 2, 20)
            all_canned.append(canned)
            return canned

        yield start
        for canned in all_canned:
            canned.record.check(description, answers=False)
