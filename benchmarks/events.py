"""The events that are taken in: failed renewals as Stripe sends them, about 2.8 kB each, every id in them new."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from worker.inbox import parse_event
from worker.practice.events import signature

SECRET = "whsec_benchmark"  # noqa: S105 - of nobody
AMOUNT = 1999


def bodies(count: int) -> Iterator[bytes]:
    """Yield so many events, each as the bytes of one line."""
    template, created = json.dumps(_event(), separators=(",", ":")), str(int(time.time()))
    for _ in range(count):
        name = uuid4().hex[:24]
        yield template.replace("NUMBER", name).replace('"CREATED"', created).encode()


def signed(body: bytes) -> str:
    """Return the header that proves an event to a process whose secret is ``SECRET``."""
    return signature(SECRET, body, int(time.time()))


def _event() -> dict[str, Any]:
    return {
        "id": "evt_NUMBER",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": "CREATED",
        "data": {"object": _invoice(), "previous_attributes": {"attempt_count": 0, "attempted": False}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "invoice.payment_failed",
    }


def _invoice() -> dict[str, Any]:
    return {
        "id": "in_NUMBER",
        "object": "invoice",
        "account_country": "US",
        "account_name": "Practice Street",
        "amount_due": AMOUNT,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": AMOUNT,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 1,
        "attempted": True,
        "auto_advance": True,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None, "status": None},
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": "CREATED",
        "currency": "usd",
        "custom_fields": None,
        "customer": "cus_NUMBER",
        "customer_address": {"city": "Springfield", "country": "US", "line1": "1 Main Street", "postal_code": "62701"},
        "customer_email": "ada.lovelace@customer.example",
        "customer_name": "Ada Lovelace",
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "ending_balance": 0,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": "https://invoice.stripe.example/i/acct_1/test_NUMBER",
        "invoice_pdf": "https://pay.stripe.example/invoice/acct_1/test_NUMBER/pdf",
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": {
            "object": "list",
            "data": [_line()],
            "has_more": False,
            "total_count": 1,
            "url": "/v1/invoices/lines",
        },
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": "A1B2C3D4-0001",
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": "sub_NUMBER"},
            "type": "subscription_details",
        },
        "period_end": "CREATED",
        "period_start": "CREATED",
        "starting_balance": 0,
        "status": "open",
        "status_transitions": {"finalized_at": "CREATED", "paid_at": None, "voided_at": None},
        "subtotal": AMOUNT,
        "total": AMOUNT,
        "total_taxes": [],
        "webhooks_delivered_at": "CREATED",
    }


def _line() -> dict[str, Any]:
    return {
        "id": "il_NUMBER",
        "object": "line_item",
        "amount": AMOUNT,
        "currency": "usd",
        "description": "1 × Practice plan (at $19.99 / month)",
        "discountable": True,
        "invoice": "in_NUMBER",
        "livemode": False,
        "metadata": {},
        "parent": {
            "subscription_item_details": {"proration": False, "subscription": "sub_NUMBER"},
            "type": "subscription_item_details",
        },
        "period": {"end": "CREATED", "start": "CREATED"},
        "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}, "unit_amount_decimal": "1999"},
        "quantity": 1,
        "taxes": [],
    }


def script(*, whole: bool = True) -> str:
    """Return what pgbench does for each event: store it as we do, and with ``whole`` open its case and its history."""
    event = parse_event(json.loads(next(bodies(1))))
    mine = event.subject["id"].removeprefix("in_")
    payload = json.dumps(event.payload, separators=(",", ":")).replace(mine, ":name").replace("'", "''")
    lines = [KEEP.replace("PAYLOAD", payload)]
    return "\n".join(
        ["\\set name random(1, 1000000000000000000)", "BEGIN;", *lines, *([OPEN] if whole else []), "END;"]
    )


KEEP = "INSERT INTO events (id, type, payload) VALUES ('evt_:name', 'invoice.payment_failed', 'PAYLOAD');"
OPEN = """INSERT INTO cases
 (payment_id, customer_id, subscription_id, amount_minor, currency, failed_at, decline, failed_card, card, due_at, step)
 VALUES ('in_:name', 'cus_:name', 'sub_:name', 1999, 'usd', now(), '{}', '{}', '{}', now(), '{"step": "refresh"}')
 RETURNING id \\gset
INSERT INTO history (case_id, at, what, detail) VALUES (:id, now(), 'opened', '{}');"""
