"""How does one practise against Stripe? A Stripe-shaped server over a world of banks and customers.

    python -m worker.practice.bank --port 0 --port-file F --seed 7 --payments 200 --clock-file C

Under ``/v1`` it answers like Stripe, under ``/_practice`` it is driven: see ``control.py``.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.clock import business_now
from worker.practice import worlds
from worker.practice.answers import Form, Refusal, read_form
from worker.practice.books import Books
from worker.practice.control import Control
from worker.practice.door import Answer
from worker.practice.endpoints import PREFIX, Endpoints
from worker.practice.events import Courier, EventLog
from worker.practice.objects import API_VERSION
from worker.practice.protocol import World
from worker.practice.world import BuiltInWorld

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

Stripe = Callable[[Request, Form], Awaitable[Answer]]
TOO_MANY = 429


def make_app(
    world: World,
    clock: Callable[[], datetime],
    webhook: tuple[str, str] | None = None,
    events: frozenset[str] | None = None,
) -> Starlette:
    """Return the bank as an application; ``webhook`` is (address, secret), ``events`` the types sent there."""
    log = EventLog(events, Courier(*webhook) if webhook else None)
    books = Books(world, clock, log)
    endpoints = Endpoints(books)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        if log.courier is not None:
            log.courier.stop()
        world.close()

    routes = [*_stripe_routes(endpoints), *Control(books, endpoints.door).routes()]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.books = books
    return app


def _stripe_routes(stripe: Endpoints) -> list[Route]:
    cursors = ("limit", "starting_after", "ending_before")
    wanted = ("created", "delivery_success", "type", "types", *cursors)
    of_charges = ("off_session", "payment_method")
    of_invoices = ("collection_method", "created", "customer", "status", "subscription")
    table: list[tuple[str, str, Stripe, tuple[str, ...]]] = [
        ("GET", "/account", stripe.account, ()),
        ("GET", "/events", stripe.events, wanted),
        ("GET", "/events/{id}", stripe.event, ()),
        ("GET", "/invoices", stripe.invoices, (*of_invoices, *cursors)),
        ("GET", "/subscriptions", stripe.subscriptions, ("status", *cursors)),
        ("GET", "/invoice_payments", stripe.invoice_payments, ("invoice", "status", *cursors)),
        ("GET", "/customers/{id}/payment_methods", stripe.payment_methods, ("type", *cursors)),
        ("GET", "/webhook_endpoints", stripe.webhook_endpoints, cursors),
        ("POST", "/invoices/{id}/pay", partial(stripe.pay, "invoices"), of_charges),
        ("POST", "/payment_intents/{id}/confirm", partial(stripe.pay, "payment_intents"), of_charges),
        ("POST", "/payment_intents/{id}/cancel", stripe.cancel_intent, ("cancellation_reason",)),
        ("POST", "/billing_portal/sessions", stripe.portal, ("customer", "flow_data", "return_url")),
        ("POST", "/invoices/{id}/mark_uncollectible", stripe.mark_uncollectible, ()),
        ("POST", "/subscriptions/{id}", stripe.update_subscription, ("default_payment_method", "pause_collection")),
        ("POST", "/invoices/{id}", stripe.update_invoice, ("auto_advance",)),
        ("DELETE", "/subscriptions/{id}", stripe.cancel, ("cancellation_details", "invoice_now", "prorate")),
    ]
    table += [("GET", f"/{collection}/{{id}}", partial(stripe.one, collection), ()) for collection in PREFIX]
    others = PREFIX.keys() - {"invoices", "subscriptions"}
    table += [("GET", f"/{name}", partial(stripe.many, name), cursors) for name in others]
    return [
        Route(f"/v1{path}", partial(_answer, stripe, handler, known), methods=[method])
        for method, path, handler, known in table
    ]


async def _answer(stripe: Endpoints, handler: Stripe, known: tuple[str, ...], request: Request) -> Response:
    """Answer one request of the API: admit it, bring the books up to now, and dress what comes out."""
    books, request.state.request_id = stripe.books, f"req_{secrets.token_hex(7)}"
    books.ledger.requests[request.method] += 1
    try:
        books.access.admit(request)
        form = read_form(request.url.query, await request.body(), known)
        books.advance(books.clock())
        stripe.admit(request, form)
        answer = await handler(request, form)
    except Refusal as refusal:
        answer = Answer(refusal.status, refusal.body)
    if answer.reset and (transport := getattr(request.state, "transport", None)) is not None:
        _reset(transport)
    return _dress(answer, request)


def _dress(answer: Answer, request: Request) -> Response:
    headers = {"Request-Id": request.state.request_id, "Stripe-Version": API_VERSION}
    if key := request.headers.get("idempotency-key"):
        headers["Idempotency-Key"] = key
    if answer.status == TOO_MANY:
        headers |= {"Retry-After": "1", "Stripe-Rate-Limited-Reason": "endpoint-rate"}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    body = json.dumps(answer.body, separators=(",", ":"), ensure_ascii=False)
    return Response(body, answer.status, headers, "application/json")


def _reset(transport: asyncio.Transport) -> None:
    """Drop the connection the hard way: the client sees a reset, not an end."""
    line = transport.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Line(H11Protocol):
    """HTTP over a connection that answers at once and that the application can drop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Show the connection to the application as ``request.state.transport``."""
        super().connection_made(transport)
        # asyncio does this only for sockets made with an explicit protocol; without it an answer waits 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}


def make_server(app: Starlette) -> uvicorn.Server:
    """Return a server for the bank, without logs of its own."""
    return uvicorn.Server(uvicorn.Config(app, http=Line, log_level="warning", access_log=False, ws="none"))


def load_world(place: str, seed: int, payments: int) -> World:
    """Make a world of the class named by ``FILE.py:CLASS``."""
    try:
        return worlds.load_world(place, seed, payments)
    except worlds.WorldError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, help="0: any free port.")
@click.option("--port-file", type=click.Path(path_type=Path), help="Written with the port once the bank listens.")
@click.option("--seed", default=7, show_default=True)
@click.option("--payments", default=200, show_default=True)
@click.option("--days", default=45, show_default=True)
@click.option("--clock-file", type=click.Path(path_type=Path), help="Holds one ISO instant; else the real clock.")
@click.option("--webhook-url")
@click.option("--webhook-secret", default="whsec_practice", show_default=True)
@click.option("--webhook-events", help="Comma list of event types; else all.")
@click.option("--world", "place", help="FILE.py:CLASS instead of the built-in world.")
def main(  # noqa: PLR0913, PLR0917 - one argument per option
    host: str,
    port: int,
    port_file: Path | None,
    seed: int,
    payments: int,
    days: int,
    clock_file: Path | None,
    webhook_url: str | None,
    webhook_secret: str,
    webhook_events: str | None,
    place: str | None,
) -> None:
    """Serve the practice bank until it is stopped."""
    world: World = load_world(place, seed, payments) if place else BuiltInWorld(seed, payments, days)
    webhook = (webhook_url, webhook_secret) if webhook_url else None
    types = frozenset(webhook_events.split(",")) if webhook_events else None
    app = make_app(world, partial(business_now, clock_file), webhook, types)
    listener = socket.create_server((host, port), backlog=128)
    _announce(host, listener.getsockname()[1], port_file)
    make_server(app).run(sockets=[listener])


def _announce(host: str, port: int, port_file: Path | None) -> None:
    if port_file is not None:
        part = port_file.with_suffix(".part")
        part.write_text(str(port), encoding="ascii")
        part.replace(port_file)
    click.echo(f"practice bank on http://{host}:{port}")


if __name__ == "__main__":
    main()
