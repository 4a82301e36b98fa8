"""What does the provider show of its subscriptions, and what becomes of it in the table?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Bench, Serve
from tests.worker.builders import START, one, sql
from worker.practice.events import NO_REQUEST
from worker.readings import UnknownShape
from worker.subscriptions import Counts, keep, read_all, read_subscription

JANUARY, FEBRUARY, MARCH = (int(datetime(2026, month, 1, tzinfo=UTC).timestamp()) for month in (1, 2, 3))


def at(seconds: int) -> datetime:
    """Return an instant as it is stored."""
    return datetime.fromtimestamp(seconds, UTC)


def price(amount: int | None = 1200, interval: str = "month", count: int = 1, **more: Any) -> dict[str, Any]:
    """Return a price as the provider shows it."""
    return {
        "id": "price_1",
        "unit_amount": amount,
        "recurring": {"interval": interval, "interval_count": count},
        **more,
    }


def shown(*prices: dict[str, Any], quantity: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a subscription with everything expanded: a card of its own and the customer's default beneath it."""
    items = [{"price": each, "quantity": quantity, "current_period_end": FEBRUARY} for each in prices or (price(),)]
    default = {
        "id": "pm_2",
        "type": "card",
        "card": {"brand": "visa", "exp_month": 5, "exp_year": 2029, "country": "US"},
    }
    own = {"id": "pm_1", "type": "card", "card": {"brand": "visa", "exp_month": 1, "exp_year": 2026, "country": "DE"}}
    customer = {"id": "cus_1", "invoice_settings": {"default_payment_method": default}, "address": {"country": "AT"}}
    return {
        "id": "sub_1",
        "status": "active",
        "start_date": JANUARY,
        "currency": "usd",
        "customer": customer,
        "default_payment_method": own,
        "items": {"data": items},
        "latest_invoice": {"status_transitions": {"paid_at": JANUARY}},
        **changes,
    }


def test_a_subscription_is_read_with_both_levels_of_its_methods() -> None:
    """Charged is its own one; the customer's default stands beneath it."""
    row = read_subscription(shown(), "acct_1")
    assert (row["method_id"], row["card"]["exp_year"], row["other_method_id"]) == ("pm_1", 2026, "pm_2")
    assert (row["account"], row["customer_id"], row["country"]) == ("acct_1", "cus_1", "AT")
    assert (row["next_charge_at"], row["last_paid_at"]) == (at(FEBRUARY), at(JANUARY))


@pytest.mark.parametrize(
    ("prices", "quantity", "expected"),
    [
        ([price()], 1, (1200, 1200)),
        ([price(12000, "year")], 1, (12000, 1000)),
        ([price(1000, "month", 3)], 2, (2000, 667)),  # 666.67
        ([price(300, "week")], 1, (300, 1300)),
        ([price(1200), price(600, "year")], 1, (1800, 1250)),
        ([price(None)], 1, (None, None)),  # by use: not fixed
    ],
)
def test_a_month_costs_what_its_prices_add_up_to(
    prices: list[dict[str, Any]], quantity: int, expected: tuple[int | None, int | None]
) -> None:
    """Periods are turned into months exactly, and rounded once."""
    row = read_subscription(shown(*prices, quantity=quantity))
    assert (row["amount_minor"], row["monthly_minor"]) == expected


@pytest.mark.parametrize(
    ("changes", "ends", "charged"),
    [
        ({"cancel_at_period_end": True}, at(FEBRUARY), None),
        ({"cancel_at": MARCH}, at(MARCH), at(FEBRUARY)),  # once more before it ends
        ({"pause_collection": {"behavior": "void"}}, None, None),
        ({"status": "unpaid"}, None, None),
    ],
)
def test_nothing_is_charged_after_the_end(changes: dict[str, Any], ends: datetime, charged: datetime | None) -> None:
    """Nor while collection is paused."""
    row = read_subscription(shown(**changes))
    assert (row["cancel_at"], row["next_charge_at"]) == (ends, charged)


def test_paying_begins_when_a_trial_ends() -> None:
    """Tenure counts from there."""
    assert read_subscription(shown(trial_end=FEBRUARY))["started_at"] == at(FEBRUARY)


def test_one_that_cannot_be_read_is_named_and_the_others_are_kept(engine: Engine) -> None:
    """Never paid is no subscription yet."""
    counts = Counts()
    keep(engine, [shown(), shown(id="sub_2", start_date=None), shown(id="sub_3", status="incomplete")], None, counts)
    assert (counts.read, counts.never_paid) == (1, 1)
    assert [each["subscription"] for each in counts.rejected] == ["sub_2"]
    assert sql(engine, "SELECT id FROM subscriptions") == [("sub_1",)]
    with pytest.raises(UnknownShape, match="a subscription of an unknown shape"):
        read_subscription({})


def read(street: Bench) -> Counts:
    """Read what the bank shows; return what was counted."""
    counts = Counts()
    for _ in read_all(street.engine, street.desk(street.instant[0]).gateway, None, counts):
        pass
    return counts


def test_what_ended_meanwhile_is_looked_after(serve: Serve) -> None:
    """Later nights list only what goes on; one that is missing is read by itself, and one that is gone says so."""
    street = serve()
    street.hear(START)
    assert read(street).read == one(street.engine, "SELECT count(*) FROM subscriptions") == 1
    assert one(street.engine, "SELECT status FROM subscriptions") == "past_due"
    [bill] = street.books.bills
    street.books.cancel(bill, START, NO_REQUEST, {"feedback": "too_expensive"})
    sql(
        street.engine,
        "INSERT INTO subscriptions (id, customer_id, status, started_at, currency, card)"
        " VALUES ('sub_unheard', 'cus_2', 'active', :at, 'usd', '[]')",
        at=START,
    )
    counts = read(street)
    assert counts.gone == ["sub_unheard"]
    assert sql(street.engine, "SELECT id, status, feedback, next_charge_at FROM subscriptions ORDER BY status") == [
        (bill.payment.subscription_id, "canceled", "too_expensive", None),
        ("sub_unheard", "gone", None, None),
    ]
    assert read(street).gone == []  # and is not asked for again
