"""Values for the tests of the worker, each with a default that a test may overrule.

Everything happens after one failure, on a Monday at 10:00 in New York: a Mastercard without money on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, Text, cast, insert, select, text

from schedules import Card, Decline, FailedPayment, Policy
from worker.models import attempts, cases, history, metadata, outbox
from worker.planning import open_case, step_of
from worker.readings import Reading

JSON = dict[str, Any]
T = TypeVar("T")
START = datetime(2026, 1, 12, 15, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FUNDS = Decline("insufficient_funds", "try_again_later", "51", "26", "issuer_declined")
TECHNICAL = Decline("processing_error", None, "96", None, "issuer_declined")
LOST = Decline("lost_card", "do_not_try_again", "41", "03", "issuer_declined")
CARD = Card("OLDoldOLDoldOLD1", "mastercard", "debit", "US", 4, 2027, "4444")
RENEWED = replace(CARD, exp_year=2031)
ENTERED = Card("NEWnewNEWnewNEW1", "visa", "credit", "US", 9, 2029, "4242")


def payment(number: int = 1, **changes: Any) -> FailedPayment:
    """The renewal that failed."""
    names = (f"in_{number}", f"cus_{number}", f"sub_{number}")
    failed = FailedPayment(*names, 1999, "usd", START, FUNDS, CARD, "America/New_York", "en-US", 90)
    return replace(failed, **changes)


def opened(engine: Engine, failed: FailedPayment | None = None, now: datetime = START) -> int:
    """Open a case and return its number."""
    with engine.begin() as db:
        return open_case(db, failed or payment(), None, Policy.default(), now)


def case_row(**changes: Any) -> JSON:
    """The least that a case needs, due at the start."""
    blank = {"payment_id": "in_1", "customer_id": "cus_1", "amount_minor": 1999, "currency": "usd", "failed_at": START}
    return {**blank, "decline": {}, "failed_card": {}, "card": {}, "due_at": START, **changes}


def attempt_row(case_id: int | None, **changes: Any) -> JSON:
    """The least that an attempt needs: one that was sent and has no answer yet."""
    blank = {"case_id": case_id, "payment_id": "in_1", "number": 1, "idempotency_key": "k1", "state": "sent"}
    return {**blank, "at": START, "card": {}, "amount_minor": 1999, "currency": "usd", **changes}


def add_case(engine: Engine, **changes: Any) -> int:
    """Store a bare case and return its number."""
    with engine.begin() as db:
        return int(db.execute(insert(cases).values(case_row(**changes)).returning(cases.c.id)).scalar_one())


def add_attempt(engine: Engine, case_id: int | None, **changes: Any) -> None:
    """Store a bare attempt."""
    with engine.begin() as db:
        db.execute(insert(attempts).values(attempt_row(case_id, **changes)))


def add_notice(engine: Engine, case_id: int, **changes: Any) -> int:
    """Store a bare message of the outbox, due at the start, and return its number."""
    blank = {"case_id": case_id, "customer_id": "cus_1", "kind": "notice", "name": "first", "channel": "mail"}
    with engine.begin() as db:
        message = insert(outbox).values({**blank, "at": START, "due_at": START, **changes}).returning(outbox.c.id)
        return int(db.execute(message).scalar_one())


def sql(engine: Engine, statement: str, **values: Any) -> list[Row[Any]]:
    """Run one statement and commit; return its rows, if it has any."""
    with engine.begin() as db:
        result = db.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def one(engine: Engine, statement: str, **values: Any) -> Any:
    """Return the only value that a statement finds."""
    [[found]] = sql(engine, statement, **values)
    return found


def the_case(engine: Engine, case_id: int = 1) -> Row[Any]:
    """Return the row of a case."""
    with engine.connect() as db:
        return db.execute(select(cases).where(cases.c.id == case_id)).one()


def reasons_of(engine: Engine, case_id: int = 1) -> list[str]:
    """Return the reasons of the next step of a case."""
    with engine.connect() as db:
        step = step_of(db, case_id)
    assert step is not None
    return list(step["reasons"])


def the_attempts(engine: Engine, case_id: int | None = 1) -> list[Row[Any]]:
    """Return the attempts of a case in the order they were written."""
    with engine.connect() as db:
        return list(db.execute(select(attempts).where(attempts.c.case_id == case_id).order_by(attempts.c.id)))


def told(engine: Engine, case_id: int = 1) -> list[str]:
    """Return what happened to a case, one word for each line of its history."""
    with engine.connect() as db:
        return list(
            db.execute(select(history.c.what).where(history.c.case_id == case_id).order_by(history.c.id)).scalars()
        )


def mail_in(file: Path) -> EmailMessage:
    """Return the message that a file holds."""
    return message_from_bytes(file.read_bytes(), policy=default)


def text_of(mail: EmailMessage, form: str = "plain") -> str:
    """Return what a message says, in plain text or in HTML."""
    body = mail.get_body((form,))
    assert body is not None
    return str(body.get_content())


def everything(engine: Engine) -> str:
    """Return every row of every table as one text."""
    with engine.connect() as db:
        rows = [row for table in metadata.sorted_tables for row in db.execute(select(cast(table.table_valued(), Text)))]
    return "\n".join(row[0] for row in rows)


def invoice(**changes: Any) -> JSON:
    """An open invoice as events have carried it since API 2025-03-31: without its payments, which come on request."""
    shown = {
        "id": "in_1",
        "object": "invoice",
        "amount_due": 1999,
        "amount_remaining": 1999,
        "currency": "usd",
        "customer": "cus_1",
        "customer_email": "ada.1@customer.example",
        "default_payment_method": None,
        "hosted_invoice_url": "https://invoice.stripe.example/i/1",
        "next_payment_attempt": None,
        "parent": {"subscription_details": {"metadata": {}, "subscription": "sub_1"}, "type": "subscription_details"},
        "status": "open",
    }
    return {**shown, **changes}


def old_invoice(**changes: Any) -> JSON:
    """An open invoice as events carried it before API 2025-03-31: charge, intent and subscription at the top."""
    charge = {
        "id": "ch_1",
        "object": "charge",
        "failure_code": "card_declined",
        "outcome": {"network_status": "declined_by_network", "reason": "insufficient_funds", "type": "issuer_declined"},
        "payment_method": "pm_1",
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "country": "DE",
                "exp_month": 8,
                "exp_year": 2028,
                "fingerprint": "fpOLDshape",
                "funding": "credit",
            },
            "type": "card",
        },
        "status": "failed",
    }
    old = {"charge": charge, "paid": False, "payment_intent": None, "subscription": "sub_1"}
    return {**{key: value for key, value in invoice().items() if key != "parent"}, **old, **changes}


def failed_charge(**changes: Any) -> JSON:
    """A refused charge on the stored card as an event carries it; by default one that no invoice asked for."""
    card = {
        name: getattr(CARD, name) for name in ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding")
    }
    shown = {
        "id": "ch_shop",
        "object": "charge",
        "amount": 500,
        "billing_details": {"email": "ada.1@customer.example", "name": "Ada"},
        "created": int((START + HOUR).timestamp()),
        "currency": "usd",
        "customer": "cus_1",
        "failure_code": "card_declined",
        "outcome": {"network_decline_code": "51", "reason": "insufficient_funds", "type": "issuer_declined"},
        "payment_intent": "pi_shop",
        "payment_method": "pm_1",
        "payment_method_details": {"card": card, "type": "card"},
        "status": "failed",
    }
    return {**shown, **changes}


def event(
    name: str = "evt_1", kind: str = "invoice.payment_failed", subject: JSON | None = None, **changes: Any
) -> JSON:
    """An event of the provider; by default the failed renewal."""
    shown = {
        "id": name,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(START.timestamp()),
        "data": {"object": invoice() if subject is None else subject},
        "livemode": False,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    return {**shown, **changes}


def reading(**changes: Any) -> Reading:
    """What the provider shows when a notice is written."""
    blank: dict[str, Any] = dict.fromkeys(("ended", "method_id", "decline", "charge_id"))
    failed = payment()
    shown = Reading(
        payment_id="in_1",
        customer_id="cus_1",
        amount_minor=1999,
        currency="usd",
        card=failed.card,
        charged=failed.card,
        in_flight=False,
        waits_for_customer=False,
        retried_by_provider=False,
        email="ada@customer.example",
        link="https://invoice.stripe.example/i/1",
        **blank,
    )
    return replace(shown, **changes)


def json_lines(*values: Any) -> bytes:
    """Return values as JSON lines; what is bytes already is taken as it is."""
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return b"\n".join(lines) + b"\n"


def at_once(acts: Iterable[Callable[[], T]]) -> list[T]:
    """Run functions in threads that begin together, and return their results in order."""
    acts = list(acts)
    line = Barrier(len(acts))

    def begin(act: Callable[[], T]) -> T:
        line.wait(10)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(begin, acts))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition, ``seconds`` at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
