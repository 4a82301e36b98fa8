"""Cases that wait: a few live their first week through the product itself, and are then multiplied by SQL.

The multiplied rows differ from the lived ones in their ids, which have the lengths and the order of Stripe's, in the
fingerprints of their cards, and in when they failed and are due.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from socket import create_server
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Engine, text

from schedules import Policy
from worker import charging, inbox, sweep
from worker.desk import Desk
from worker.models import cases
from worker.practice.bank import make_app, make_server
from worker.practice.people import START
from worker.practice.world import BuiltInWorld
from worker.stripe_gateway import StripeGateway

LIVED, WEEK, A_LOOK = 100, timedelta(days=7), timedelta(hours=12)
NOW = START + WEEK
LATER = f"timestamptz '{NOW}' + interval '1 day' + interval '30 days' * ((n * 7919) % 1000003) / 1000003"
BATCH = 100_000


def _made(prefix: str) -> str:
    """Return the SQL of an id of what was made with the case: those made later stand behind."""
    return f"'{prefix}_1q' || lpad(to_hex(n), 8, '0') || 'LkdIwH' || left(md5('{prefix}' || n), 8)"


def _older(prefix: str, digits: int = 23) -> str:
    """Return the SQL of an id of what may be of any age."""
    return f"'{prefix}_1' || left(md5('{prefix}' || n), {digits})"


def _card(column: str) -> str:
    """Return the SQL of a card with another number."""
    other = f"replace(CAST({column} AS text), {column} ->> 0, left(md5('card' || n), 16))"
    return f"coalesce(CAST({other} AS json), {column})"


CUSTOMER = _older("cus", 13)
IDS = {
    "payment_id": _made("in"),
    "intent_id": _made("pi"),
    "charge_id": _made("ch"),
    "failed_charge_id": _made("ch"),
    "customer_id": CUSTOMER,
    "subscription_id": _older("sub"),
    "method_id": _older("pm"),
}
OTHERWISE = {
    "id": f"{LIVED} + n",
    "card": _card("card"),
    "failed_card": _card("failed_card"),
    "failed_at": f"timestamptz '{START}' + interval '7 days' * (n % 604800) / 604800",
    "due_at": LATER,
}
NUMBERS = "generate_series(CAST(:first AS bigint), :last) n"
LIKE_IT = f"""
    WITH like_it AS (SELECT row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS places, cases.*
                       FROM cases WHERE closed_at IS NULL AND id <= {LIVED})"""  # noqa: S608 - our own constants


def live(engine: Engine, span: timedelta = WEEK) -> None:
    """Open a day's failed renewals and work on them for a week, with a bank that answers; those left wait."""
    with _bank() as (clock, gateway):
        for step in range(1, span // A_LOOK + 1):
            clock[0] = START + step * A_LOOK
            _catch_up(engine, gateway, clock[0])
            _work(Desk(engine, gateway, Policy.default(), live=True, lease_seconds=180, now=clock[0]))


@contextmanager
def _bank() -> Iterator[tuple[list[datetime], StripeGateway]]:
    """Run the practice bank over the built-in world; give its clock, and the gateway to it."""
    clock, world = [START], BuiltInWorld(1, LIVED, days=29)
    with create_server(("127.0.0.1", 0)) as listener:
        server = make_server(make_app(world, lambda: clock[0]))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield clock, StripeGateway("sk_test_1", f"http://127.0.0.1:{listener.getsockname()[1]}", 2, 10)
        finally:
            server.should_exit = True
            thread.join(20)


def _catch_up(engine: Engine, gateway: StripeGateway, now: datetime) -> None:
    told = gateway.events(inbox.OURS, now - A_LOOK, now)
    with engine.begin() as db:
        inbox.keep(db, [event for event in map(inbox.parse_event, told) if event.ours])


def _work(desk: Desk) -> None:
    """Do everything that is due at this instant."""
    sent: list[tuple[str, int, str]] = []
    while sweep.tick(desk, lambda *hint: sent.append(hint)).cases:
        for task, row_id, token in sent:
            if task == "dunning.work":
                charging.work(desk, row_id, UUID(token))
        sent.clear()


def multiply(engine: Engine, count: int, begin: int = 0) -> None:
    """Add so many waiting cases, numbered on from ``begin``."""
    _for_all(engine, _cases(), count, begin)


def multiply_others(engine: Engine, count: int) -> None:
    """Add to the first so many of these cases the history, attempts and events of those that they are like."""
    for statement in (_history(), _attempts(), _events()):
        _for_all(engine, statement, count, 0)


def _for_all(engine: Engine, statement: str, count: int, begin: int) -> None:
    for first in range(begin + 1, begin + count + 1, BATCH):
        bounds = {"first": first, "last": min(first + BATCH, begin + count + 1) - 1}
        with engine.begin() as db:
            db.execute(text("SET LOCAL statement_timeout = 0"))
            db.execute(text(statement), bounds)


def _cases() -> str:
    values = ", ".join(map(_value, cases.c))
    likes = f"SELECT {values} FROM {NUMBERS} JOIN like_it ON place = n % places ORDER BY n"  # noqa: S608
    return f"INSERT INTO cases ({', '.join(cases.c.keys())}) {LIKE_IT} {likes}"


def _value(column: Column[Any]) -> str:
    if column.name in IDS:
        return f"CASE WHEN {column.name} IS NOT NULL THEN {IDS[column.name]} END"
    return OTHERWISE.get(column.name, column.name)


def _history() -> str:
    return f"""INSERT INTO history (case_id, at, what, detail) {LIKE_IT}
        SELECT {LIVED} + n, at, what, detail FROM {NUMBERS} JOIN like_it ON place = n % places
          JOIN history ON case_id = like_it.id ORDER BY at"""  # noqa: S608


def _attempts() -> str:
    names = "number, state, at, sent_at, settled_at, card, amount_minor, currency, decline, by_updater, waited"
    values = ", ".join(f"tried.{name}" for name in names.split(", "))
    return f"""INSERT INTO attempts (case_id, payment_id, idempotency_key, fingerprint, charge_id, {names}) {LIKE_IT}
        SELECT {LIVED} + n, {_made("in")}, overlay(idempotency_key placing md5('key' || n) from 9 for 32),
               left(md5('card' || n), 16), {_made("ch")}, {values}
          FROM {NUMBERS} JOIN like_it ON place = n % places JOIN attempts tried ON case_id = like_it.id
         WHERE tried.state = 'declined' ORDER BY tried.at"""  # noqa: S608


def _events() -> str:
    return f"""INSERT INTO events (id, type, payload, received_at, handled_at, tries) {LIKE_IT}
        SELECT 'evt_1q' || md5(events.id || n), type, CAST(replace(CAST(payload AS text), customer_id, {CUSTOMER})
               AS jsonb), received_at, handled_at, tries
          FROM {NUMBERS} JOIN like_it ON place = n % places
          JOIN events ON payload #>> '{{data,object,customer}}' = customer_id"""  # noqa: S608
