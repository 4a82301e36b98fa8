"""What did the practice bank tell the merchant? Events, and the courier that delivers them signed."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import http.client
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from worker.practice.objects import API_VERSION
from worker.practice.records import JSON, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

RETRY_SECONDS = (0.1, 0.3, 1, 3, 10, 30)
TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Cause:
    """The API request behind a change; a change of the bank's or the customer's own has neither."""

    request_id: str | None = None
    key: str | None = None


NO_REQUEST = Cause()


@dataclass(slots=True)
class Event:
    """One event; ``delivered`` also when nobody wants it delivered."""

    id: str
    type: str
    created: int
    data: JSON
    cause: Cause
    delivered: bool = True
    account: str | None = None

    def body(self) -> JSON:
        """Return the event object."""
        return {
            "id": self.id,
            "object": "event",
            **({"account": self.account} if self.account else {}),
            "api_version": API_VERSION,
            "created": self.created,
            "data": self.data,
            "livemode": False,
            "pending_webhooks": int(not self.delivered),
            "request": {"id": self.cause.request_id, "idempotency_key": self.cause.key},
            "type": self.type,
        }


def signature(secret: str, payload: bytes, at: int) -> str:
    """Return Stripe's signature header for a payload sent at this Unix second."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


class Courier:
    """Delivers events to one address in the order of creation, and again a few times what was not taken."""

    def __init__(self, url: str, secret: str) -> None:
        self._parts, self._secret = urlsplit(url), secret
        self._heap: list[tuple[float, int, int, Event]] = []
        self._wake, self._stopping = threading.Condition(), False
        self._line: http.client.HTTPConnection | None = None
        self._moved = False
        self.pending = self.given_up = self._count = 0
        threading.Thread(target=self._run, name="courier", daemon=True).start()

    def send(self, event: Event) -> None:
        """Take an event for delivery and return at once."""
        event.delivered = False
        with self._wake:
            self.pending, self._count = self.pending + 1, self._count + 1
            heapq.heappush(self._heap, (0.0, self._count, 0, event))
            self._wake.notify()

    def redirect(self, url: str, secret: str) -> None:
        """Deliver to another address from now on, also what still waits."""
        with self._wake:
            self._parts, self._secret, self._moved = urlsplit(url), secret, True

    @property
    def url(self) -> str:
        """Return the address that events are sent to."""
        return self._parts.geturl()

    def stop(self) -> None:
        """Deliver nothing more."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            number, tries, event = job
            taken = self._post(json.dumps(event.body(), separators=(",", ":")).encode())
            self._settle(number, tries + 1, event, taken=taken)
        self._hang_up()

    def _next(self) -> tuple[int, int, Event] | None:
        with self._wake:
            while not self._stopping:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[1:]
                self._wake.wait(wait)
        return None

    def _settle(self, number: int, tries: int, event: Event, *, taken: bool) -> None:
        with self._wake:
            if not taken and tries <= len(RETRY_SECONDS):
                ready = time.monotonic() + RETRY_SECONDS[tries - 1]
                heapq.heappush(self._heap, (ready, number, tries, event))
                return
            self.pending, self.given_up = self.pending - 1, self.given_up + (not taken)
            event.delivered = taken

    def _post(self, payload: bytes) -> bool:
        now = int(time.time())
        headers = {"Content-Type": "application/json", "Stripe-Signature": signature(self._secret, payload, now)}
        try:
            line = self._line = self._connect() if self._line is None or self._moved else self._line
            line.request("POST", self._parts.path or "/", payload, headers)
            answer = line.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return False
        return 200 <= answer.status < 300

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None

    def _connect(self) -> http.client.HTTPConnection:
        self._hang_up()
        self._moved = False
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "127.0.0.1", self._parts.port, timeout=TIMEOUT_SECONDS)


@dataclass
class EventLog:
    """Every event, oldest first; those of a type in ``wanted`` are given to the courier."""

    wanted: frozenset[str] | None = None
    courier: Courier | None = None
    events: list[Event] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    account_of: Callable[[JSON], str | None] = lambda _body: None

    def emit(self, kind: str, at: datetime, body: JSON, cause: Cause, previous: JSON | None = None) -> None:
        """Record that ``body`` changed at ``at``, and hand the event over for delivery."""
        data = {"object": body} if previous is None else {"object": body, "previous_attributes": previous}
        name, account = f"evt_{self.tag}{len(self.events) + 1:06d}", self.account_of(body)
        event = Event(name, kind, seconds(at) or 0, data, cause, account=account)
        self.places[event.id] = len(self.events)
        self.events.append(event)
        if self.courier is not None and (self.wanted is None or kind in self.wanted):
            self.courier.send(event)
