"""What may somebody send? The events that we listen to, changed in every way that JSON, or what is none, allows.

What belongs to the customer holds ``CANARY``: nothing of it may be stored or logged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.builders import START, event, everything, failed_charge, invoice, old_invoice, sql
from worker.inbox import OURS, drain

JSON = dict[str, Any]
CANARY = "Canary of a customer"
THEIRS = {"email": f"{CANARY}@customer.example", "name": CANARY, "description": CANARY, "metadata": {CANARY: CANARY}}
CUSTOMER = {**THEIRS, "id": "cus_1", "object": "customer", "address": {"line1": CANARY, "city": CANARY}}
MARKED = {
    **THEIRS,
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1999,
    "client_secret": f"pi_1_secret_{CANARY}",
    "created": 1_768_230_000,
    "currency": "usd",
    "customer": "cus_1",
    "last_payment_error": {
        "code": "card_declined",
        "message": CANARY,
        "payment_method": {"id": "pm_1", "type": "card"},
    },
    "metadata": {"dunning": "recover", CANARY: CANARY},
    "status": "requires_payment_method",
}
SUBJECTS: dict[str, JSON] = {
    "charge": {**failed_charge(), **THEIRS, "billing_details": CUSTOMER},
    "customer": {**CUSTOMER, "customer": "cus_1"},
    "customer.subscription": {**THEIRS, "id": "sub_1", "customer": "cus_1", "status": "active"},
    "invoice": invoice(**THEIRS, customer_name=CANARY, customer_address=CUSTOMER["address"]),
    "mandate": {**THEIRS, "id": "mandate_1", "payment_method": "pm_1", "customer_acceptance": {"online": THEIRS}},
    "payment_intent": MARKED,
    "payment_method": {**THEIRS, "id": "pm_1", "customer": "cus_1", "billing_details": CUSTOMER, "type": "card"},
}
# What no reader of an event expects somewhere; texts that stand for what JSON's own writer cannot write.
DEEP = {f"DEEP {levels}": levels for levels in (20, 300, 600, 900, 5_000)}
WEIRD: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf"), "", " ", "\0", "\ud800",
    "\x1b[31m", "1", "null", "é" * 200, "x" * 255, "x" * 256, "x" * 3_000, "y" * 70_000, [], {}, [[]], [{}], {"id": 7},
    {"id": "in_1"}, {"id": None}, {"data": [{}]}, {"data": "x"}, ["in_1"], *DEEP,
]  # fmt: skip
VALUES = st.one_of(st.sampled_from(WEIRD), st.integers(), st.floats(), st.text(max_size=12))
FOREIGN = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"{", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5_000, b"\0" * 100]),
)

TABLES = ("history", "outbox", "attempts", "cases", "events")

FUZZ = settings(
    max_examples=max(1_000, settings().max_examples),
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def handle_all(engine: Engine, stored: int) -> None:
    """Handle what was kept and forget it; see that it could be handled, and that nothing of a customer was written."""
    drain(engine, Policy.default(), START)
    [[handled]] = sql(engine, "SELECT count(*) FROM events WHERE handled_at IS NOT NULL")
    failed = sql(engine, "SELECT error, payload FROM events WHERE error IS NOT NULL")
    written_down = everything(engine)
    sql(engine, "".join(f"DELETE FROM {table};" for table in TABLES))  # noqa: S608 - the names stand above
    assert not failed, failed
    assert handled == stored, (handled, stored)
    assert CANARY not in written_down, written_down


def bases() -> Iterator[JSON]:
    """Yield a sound event of every type that is listened to, and the old shape of an invoice."""
    for kind in sorted(OURS):
        subject = next(SUBJECTS[name] for name in sorted(SUBJECTS, reverse=True) if kind.startswith(f"{name}."))
        yield event(kind=kind, subject=subject, data={"object": subject, "previous_attributes": {"status": "draft"}})
    yield event(subject=old_invoice(**THEIRS))


BASES = list(bases())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a value: what holds it, and its key there."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in pairs:
        yield value, key
        yield from places(item)


def place_in(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """Choose a place."""
    found = list(places(value))
    return found[draw(st.integers(0, len(found) - 1))]


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Return one event as bytes: sound, or with some of its fields replaced, left out, doubled or put elsewhere."""
    told = deepcopy(draw(st.sampled_from(BASES)))
    told["id"] = draw(st.sampled_from(["evt_1", "evt_2", "evt_3"]))
    for _ in range(draw(st.integers(0, 4))):
        holder, key = place_in(draw, told)
        match draw(st.sampled_from(["replace", "replace", "replace", "drop", "move", "wrap"])):
            case "replace":
                holder[key] = deepcopy(draw(VALUES))
            case "drop":
                del holder[key]
            case "move":
                other, name = place_in(draw, told)
                holder[key] = deepcopy(other[name])
            case "wrap":
                holder[key] = [holder[key]]
    return draw(damaged(written(told, ascii_only=draw(st.booleans()))))


def written(value: Any, *, ascii_only: bool) -> bytes:
    """Return a value as JSON, with numbers that are none, half characters and depths that its writer refuses."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    for name, levels in DEEP.items():
        text = text.replace(f'"{name}"', '{"a":[' * levels + "]}" * levels)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Return bytes as they are, or cut short, changed at one place, or with a field doubled; rarely something else."""
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "changed", "doubled", "foreign"])):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "changed":
            place = draw(st.integers(0, len(body)))
            return body[:place] + draw(st.binary(max_size=3)) + body[place + draw(st.integers(0, 3)) :]
        case "doubled":
            edge = draw(st.sampled_from([found.end() for found in re.finditer(rb"\{(?=\")", body)] or [0]))
            name = draw(st.sampled_from([b"id", b"type", b"data", b"object", b"customer", b"metadata"]))
            return body[:edge] + b'"%s": %s, ' % (name, written(draw(VALUES), ascii_only=True)) + body[edge:]
        case "foreign":
            return draw(FOREIGN)
    return body
