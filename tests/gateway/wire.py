"""What goes over the wire? Servers in threads, and a record of every request with its answer.

The recorder stands on the server's side: what it holds is what the gateway really sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import create_server
from typing import TYPE_CHECKING, Any

from tests.practice import openapi
from worker.practice.bank import make_server

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON = dict[str, Any]
API = "/v1/"
NOTHING = (b"", b"{}")  # a connection that the bank dropped: what it wrote after that reached nobody


@dataclass
class Exchange:
    """One request and what was answered; a status of 0 is no answer at all."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0
    answer: bytes = b""

    @property
    def key(self) -> str | None:
        """Return the idempotency key."""
        return self.headers.get("idempotency-key")


@dataclass
class Record:
    """Every exchange with one server; ``before`` is called with each request as it arrives."""

    exchanges: list[Exchange] = field(default_factory=list)
    before: Callable[[Exchange], None] | None = None

    def of_api(self) -> list[Exchange]:
        """Return the exchanges with the provider's API, without its control plane."""
        return [each for each in self.exchanges if each.path.startswith(API)]

    def writes(self) -> list[Exchange]:
        """Return the requests that may change something at the provider."""
        return [each for each in self.of_api() if each.method != "GET"]

    def pays(self) -> list[Exchange]:
        """Return the charges that were asked for."""
        return [each for each in self.writes() if each.path.endswith(("/pay", "/confirm"))]

    def check(self, description: openapi.Description, *, answers: bool = True) -> None:
        """Hold everything that was sent, and on wish everything answered, against Stripe's description."""
        for each in self.of_api():
            description.check_request(each.method, each.path, each.body.decode(), each.query)
            if answers and each.answer not in NOTHING:
                description.check_response(each.method, each.path, each.status, json.loads(each.answer))


class Recorder:
    """ASGI middleware that writes exchanges into a record."""

    def __init__(self, app: ASGIApp, record: Record) -> None:
        self._app, self._record = app, record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _exchange(scope)
        self._record.exchanges.append(exchange)
        if self._record.before is not None:
            self._record.before(exchange)

        async def heard() -> Message:
            message = await receive()
            exchange.body += message.get("body", b"")
            return message

        async def said(message: Message) -> None:
            exchange.status = message.get("status", exchange.status)
            exchange.answer += message.get("body", b"")
            await send(message)

        await self._app(scope, heard, said)


def _exchange(scope: MutableMapping[str, Any]) -> Exchange:
    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
    return Exchange(scope["method"], scope["path"], scope["query_string"].decode(), headers)


@contextmanager
def served(app: Starlette, record: Record | None = None) -> Iterator[str]:
    """Serve an application on a free port of this machine; gives its address."""
    if record is not None:
        app.add_middleware(Recorder, record=record)
    with create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "a server did not stop"
