"""Renewals that failed and are to be charged: the rows of their cases, as the worker itself would have left them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert

from schedules import Card, Decline, Facts, FailedPayment, Policy, next_step
from schedules.steps import as_json
from worker.models import cases
from worker.planning import class_of

FAILED_AT = datetime(2026, 1, 12, 15, tzinfo=UTC)  # a Monday morning in New York
DUE_AT = FAILED_AT + timedelta(days=3, hours=1)  # when the first charge of every one of them has become due
DECLINE = Decline("insufficient_funds", "try_again_later", "51", "26", "issuer_declined")
AMOUNT = 1999
AT_ONCE = 1000
OF_CASE = ("payment_id", "customer_id", "subscription_id", "amount_minor", "currency", "failed_at")
TOLD = (*OF_CASE, "time_zone", "locale", "tenure_days")


def renewal(number: int | str) -> FailedPayment:
    """Return a failed renewal of a customer and a card that no other number has."""
    card = Card(f"card{number}", "mastercard", "debit", "US", 4, 2031, "4444")
    names = (f"in_{number}", f"cus_{number}", f"sub_{number}")
    return FailedPayment(*names, AMOUNT, "usd", FAILED_AT, DECLINE, card, "America/New_York", "en-US", 90)


def add_due(engine: Engine, numbers: range) -> None:
    """Store open cases with these numbers, read once and planned: at ``DUE_AT`` each is to be charged."""
    policy = Policy.default()
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        rows = [_row(number, policy) for number in range(first, min(first + AT_ONCE, numbers.stop))]
        with engine.begin() as db:
            db.execute(insert(cases), rows)


def _row(number: int, policy: Policy) -> dict[str, Any]:
    failed = renewal(number)
    step = next_step(Facts(failed, failed.card, refreshed_at=FAILED_AT, uses=(FAILED_AT,)), policy, FAILED_AT)
    card, method, charge = asdict(failed.card), f"pm_{number}_0", f"ch_{number}_0"
    told: dict[str, Any] = {name: getattr(failed, name) for name in TOLD}
    seen: dict[str, Any] = {"card": card, "method_id": method, "methods_seen": [method], "intent_id": f"pi_{number}"}
    seen |= {"refreshed_at": FAILED_AT, "charge_id": charge, "failed_charge_id": charge}
    planned = {"due_at": step.at, "step": as_json(step), "decline_class": class_of(step)}
    return {**told, "decline": asdict(failed.decline), "failed_card": card, **seen, **planned}
