"""A provider that costs next to nothing: Stripe's answers about any number of invoices, each after a fixed delay.

    python -m benchmarks.provider --port-file F --delay 0.05

The shapes are those of the practice bank, made once; an answer is that text with the ids of one invoice in it. An
invoice ``in_7`` is unpaid until it is charged. ``/counts`` tells how often each route was asked.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import click

from benchmarks.renewals import DECLINE, FAILED_AT, renewal
from schedules import Decline
from worker.practice import objects
from worker.practice.answers import expand
from worker.practice.records import JSON, Bill, Charged, Customer, Method
from worker.stripe_gateway import EXPAND

LATER = FAILED_AT + timedelta(days=3)
TAIL, LAST_CHARGE = "NUMBER", "ch_NUMBER_0"
STATUS = {200: "200 OK", 402: "402 Payment Required", 404: "404 Not Found"}


class Shelf:
    """What the provider says of an invoice that nobody has paid, of one that somebody has, and of one refused."""

    def __init__(self) -> None:
        self.open, self.paid = ({"invoice": _invoice(end), "intent": _intent(end)} for end in (None, "paid"))
        method = _method()
        error = objects.card_error(_charged(DECLINE), method)
        error["payment_intent"] = objects.payment_intent(_bill(None), method)
        self.refusal = _text({"error": error})


class Provider:
    """The invoices that were charged, and the routes that were asked."""

    def __init__(self, *, declines: bool) -> None:
        self.shelf, self.declines = Shelf(), declines
        self.paid: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        """Return status and body of one request."""
        if path == "/counts":
            return 200, json.dumps(self.asked).encode()
        kind, _, rest = path.partition("?")[0].removeprefix("/v1/").partition("/")
        name, _, verb = rest.partition("/")
        tail = name.partition("_")[2]
        route = f"{method} {kind}/{verb}".rstrip("/")
        self.asked[route] += 1
        if route == "POST invoices/pay":
            return self._pay(tail)
        if route in ("GET events", "GET invoices") and not name:  # what the worker looks for when it starts
            return 200, b'{"object": "list", "data": [], "has_more": false, "url": "/v1/nothing"}'
        shown = {"GET invoices": "invoice", "GET payment_intents": "intent"}.get(route)
        return (200, self._shown(shown, tail)) if shown else (404, b'{"error": {"type": "invalid_request_error"}}')

    def _pay(self, tail: str) -> tuple[int, bytes]:
        if not self.declines:
            self.paid.add(tail)
            return 200, self._shown("invoice", tail)
        self.refused[tail] += 1
        return 402, self._of(self.shelf.refusal, tail)

    def _shown(self, kind: str, tail: str) -> bytes:
        return self._of((self.shelf.paid if tail in self.paid else self.shelf.open)[kind], tail)

    def _of(self, text: str, tail: str) -> bytes:
        last = LAST_CHARGE.replace("0", str(self.refused[tail] + (tail in self.paid)))
        return text.replace(LAST_CHARGE, last).replace(TAIL, tail).encode()


class Line(asyncio.Protocol):
    """One connection that stays open: a request, after the delay its answer, the next request."""

    def __init__(self, provider: Provider, delay: float) -> None:
        self._provider, self._delay, self._came = provider, delay, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody calls."""
        self._out = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request once all of it is there."""
        self._came += data
        head, end, body = self._came.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._came = b""
        method, path, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        status, told = self._provider.answer(method, path)
        kind = "Content-Type: application/json\r\nRequest-Id: req_benchmark"
        lines = f"HTTP/1.1 {STATUS[status]}\r\n{kind}\r\nContent-Length: {len(told)}\r\n\r\n"
        self._say(lines.encode("ascii") + told)

    def _say(self, answer: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._out.write, answer)
        else:
            self._out.write(answer)


def _length(head: bytes) -> int:
    found = head.lower().partition(b"\r\ncontent-length:")[2]
    return int(found.partition(b"\r\n")[0] or 0)


def _charged(decline: Decline | None) -> Charged:
    return Charged(LAST_CHARGE, FAILED_AT, _method().id, renewal(TAIL).card, decline)


def _method() -> Method:
    failed = renewal(TAIL)
    return Method(f"pm_{TAIL}_0", failed.customer_id, failed.payment_id, failed.card, FAILED_AT, refused=DECLINE)


def _bill(end: str | None) -> Bill:
    bill = Bill(renewal(TAIL), TAIL, [_charged(None if end else DECLINE)], advancing=False)
    return replace(bill, status=end, closed_at=LATER) if end else bill


def _customer() -> Customer:
    failed, method = renewal(TAIL), _method().id
    since, country = FAILED_AT - timedelta(days=90), failed.card.country
    return Customer(failed.customer_id, since, country, failed.locale, failed.time_zone, "usd", [method], method)


def _invoice(end: str | None) -> str:
    """Return an invoice with all that the worker wants expanded."""
    bill, customer, method = _bill(end), _customer(), _method()
    shown: dict[str, JSON] = {
        customer.id: objects.customer_object(customer),
        str(bill.payment.subscription_id): objects.subscription(bill, customer),
        method.id: objects.payment_method(method),
        bill.intent_id: objects.payment_intent(bill, method),
    }

    def reach(key: str, owner: JSON) -> Any:
        return objects.payments_of(bill) if key == "payments" else shown.get(str(owner.get(key)), owner.get(key))

    return _text(expand(objects.invoice(bill, customer), EXPAND, reach))


def _intent(end: str | None) -> str:
    bill = _bill(end)
    return _text({**objects.payment_intent(bill, _method()), "latest_charge": objects.charge(bill.charges[-1], bill)})


def _text(shown: JSON) -> str:
    return json.dumps(shown)


@click.command()
@click.option("--delay", default=0.0, help="Seconds before each answer.")
@click.option("--declines", is_flag=True, help="Refuse every charge instead of taking it.")
@click.option("--port-file", type=click.Path(path_type=Path), required=True, help="Where to write the port taken.")
def main(delay: float, declines: bool, port_file: Path) -> None:
    """Answer until it is stopped."""
    asyncio.run(_serve(delay, Provider(declines=declines), port_file))


async def _serve(delay: float, provider: Provider, port_file: Path) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Line(provider, delay), "127.0.0.1", 0)
    part = port_file.with_suffix(".part")
    part.write_text(str(server.sockets[0].getsockname()[1]), encoding="ascii")
    part.replace(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    main()
