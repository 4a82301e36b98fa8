"""Nineteen subscriptions, and what became of them in a January: written such that a reader can count."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, insert

from tests.worker.builders import add_case
from worker.models import subscriptions

NOW = datetime(2026, 2, 10, tzinfo=UTC)
SAID = "cancellation_requested"  # also of what our own worker ended
Row = tuple[int, str, str, int | None, str, str | None, str, str, str | None, str, str | None, str | None]

# number, customer, currency, a month, plan, country, method, paying since, ended, status, reason, feedback
TOWN: list[Row] = [
    (1, "cus_1", "usd", 1000, "basic", "US", "card", "2025-12-01", None, "active", None, None),
    (2, "cus_2", "usd", 2000, "pro", "US", "card", "2025-06-01", "2026-01-10", "canceled", SAID, "too_expensive"),
    (3, "cus_3", "usd", 1000, "basic", "US", "card", "2024-11-15", "2026-01-20", "canceled", "payment_failed", None),
    (
        4,
        "cus_4",
        "eur",
        1500,
        "basic",
        "DE",
        "sepa_debit",
        "2025-03-01",
        "2026-01-15",
        "canceled",
        "payment_disputed",
        None,
    ),
    (
        5,
        "cus_5",
        "usd",
        1000,
        "basic",
        "US",
        "card",
        "2025-11-10",
        "2026-01-12",
        "canceled",
        SAID,
        None,
    ),  # by our worker
    (6, "cus_6", "eur", 2500, "pro", "DE", "card", "2024-01-01", None, "past_due", None, None),  # we gave it up
    (7, "cus_7", "usd", 1000, "basic", "US", "card", "2025-10-05", None, "active", None, None),
    (8, "cus_7", "usd", 500, "addon", "US", "card", "2025-11-05", "2026-01-18", "canceled", None, None),
    (9, "cus_8", "jpy", 980, "basic", "JP", "card", "2025-10-10", "2026-02-05", "canceled", SAID, None),
    (10, "cus_9", "usd", None, "metered", None, "card", "2025-08-01", "2026-01-30", "canceled", SAID, "unused"),
    (11, "cus_10", "usd", 700, "basic", "US", "card", "2025-12-01", None, "gone", None, None),
    (12, "cus_11", "usd", 700, "basic", "US", "card", "2026-02-15", None, "trialing", None, None),
    (13, "cus_12", "usd", 700, "basic", "US", "card", "2026-01-20", "2026-01-05", "canceled", SAID, None),
    (14, "cus_13", "usd", 700, "basic", "US", "card", "2026-01-05", "2026-01-25", "canceled", SAID, None),
    (
        15,
        "cus_14",
        "eur",
        1500,
        "basic",
        "DE",
        "card",
        "2025-05-05",
        "2026-01-31",
        "canceled",
        SAID,
        "switched_service",
    ),
    (16, "cus_14", "eur", 2000, "pro", "DE", "card", "2026-01-20", None, "active", None, None),
    (17, "cus_15", "usd", 700, "basic", "US", "card", "2025-02-01", "2026-03-01", "canceled", SAID, None),
    (18, "cus_16", "usd", 900, "basic", "US", "card", "2025-01-01", "2025-11-30", "canceled", "payment_failed", None),
    (19, "acct_1/cus_1", "usd", 1000, "basic", "US", "card", "2025-12-01", "2026-01-08", "canceled", SAID, None),
]


def instant(day: str | None) -> datetime | None:
    """Return noon of a day, in UTC."""
    return None if day is None else datetime.fromisoformat(f"{day}T12:00:00+00:00")


def subscription(*row: Any) -> dict[str, Any]:
    """Return the row of the table for a line above; before a customer can stand an account."""
    number, customer, currency, monthly, plan, country, method, started, ended, status, reason, feedback = row
    account, _, name = customer.rpartition("/")
    of = {"id": f"sub_{number}", "account": account or None, "customer_id": name, "status": status, "plan": plan}
    paid = {"currency": currency, "amount_minor": monthly, "monthly_minor": monthly, "card": {}, "method": method}
    when = {"started_at": instant(started), "ended_at": instant(ended), "country": country}
    return {**of, **paid, **when, "reason": reason, "feedback": feedback}


def add_subscription(engine: Engine, *row: Any, **changes: Any) -> None:
    """Store a subscription."""
    with engine.begin() as db:
        db.execute(insert(subscriptions).values({**subscription(*row), **changes}))


def give_up(engine: Engine, number: int, day: str, **changes: Any) -> int:
    """Store the case of a subscription that ended in vain at noon of a day, and return its number."""
    ended = {"state": "lost", "due_at": None, "closed_at": instant(day)}
    names = {"payment_id": f"in_{number}_{day}", "subscription_id": f"sub_{number}"}
    return add_case(engine, **{**names, **ended, **changes})


def settle(engine: Engine) -> None:
    """Store the town: its subscriptions, and the cases of two of them."""
    for row in TOWN:
        add_subscription(engine, *row)
    give_up(engine, 5, "2026-01-11")  # and ended the subscription a day later
    give_up(engine, 6, "2026-01-25")  # and left it as it was
    give_up(engine, 6, "2026-02-05")  # the next renewal of it failed too: it had been lost before
