"""A bank that hides no mistake, and a gate at its door.

At Stripe a paid invoice cannot be paid again. Here it can, under another key: whatever keeps the ledger clean is our
own doing and not the provider's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.practice.books import Books
from worker.practice.events import Cause
from worker.practice.records import Bill, Charged, Method

LONGEST, LOOK = 30.0, 0.01


def without_fence(books: Books) -> None:
    """Let the bank charge what is paid already, as if somebody had made a second payment for the same debt."""
    fenced = books.pay

    def pay(bill: Bill, method: Method | None, at: datetime, cause: Cause) -> Charged:
        if bill.status == "paid":
            bill.status = "open"
        return fenced(bill, method, at, cause)

    books.pay = pay  # type: ignore[method-assign]


def is_payment(scope: Scope) -> bool:
    """Whether a request charges somebody."""
    return scope["type"] == "http" and scope["method"] == "POST" and str(scope["path"]).endswith("/pay")


class Gate:
    """Holds the next payment request, or every one: ``at`` the door, or the answer ``at`` the exit.

    ``asked`` counts the requests that arrived, ``payments`` those that charge.
    """

    def __init__(self) -> None:
        self.at: str | None = None
        self.every = False
        self.asked: Counter[str] = Counter()
        self.reached, self.opened = threading.Event(), threading.Event()

    @property
    def payments(self) -> int:
        """How many requests to charge somebody arrived."""
        return sum(count for path, count in self.asked.items() if path.endswith("/pay"))

    def close(self, at: str, *, every: bool = False) -> None:
        """Hold the next payment request at ``door`` or ``exit``, or all until it is opened."""
        self.at, self.every = at, every
        self.reached.clear()
        self.opened.clear()

    async def wait(self, at: str) -> None:
        """Stand at the gate, if it is closed there, until it is opened."""
        if self.at != at:
            return
        self.at = self.at if self.every else None
        self.reached.set()
        until = time.monotonic() + LONGEST
        while not self.opened.is_set() and time.monotonic() < until:  # noqa: ASYNC110 - opened by another thread
            await asyncio.sleep(LOOK)

    def open(self) -> None:
        """Hold nothing any more."""
        self.at = None
        self.opened.set()


class Gated:
    """The bank behind a gate."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and its answer."""
        if scope["type"] == "http":
            self.gate.asked[scope["path"]] += 1
        if not is_payment(scope):
            await self.app(scope, receive, send)
            return
        await self.gate.wait("door")
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self.app(scope, receive, keep)
        await self.gate.wait("exit")
        for message in kept:
            await send(message)
