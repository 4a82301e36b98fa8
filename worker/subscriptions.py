"""Which subscriptions does the provider show? Read once a night into one table, for churn, risk and prevention.

What has ended is read in full the first time only; later nights read what has not, and look after each that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, select, update

from schedules.facts import by_name
from worker.bulk import as_rows, insert_all
from worker.models import MACHINE_NOW, subscriptions
from worker.readings import UnknownShape, card_of, expanded, instant, shape
from worker.stripe_gateway import Gone, StripeGateway

if TYPE_CHECKING:
    from sqlalchemy import Row

BATCH = 500
NEVER_PAID = ("incomplete", "incomplete_expired")
GONE = "gone"
MONTHS = {"year": Fraction(12), "month": Fraction(1), "week": Fraction(12, 52), "day": Fraction(12, 365)}


@dataclass(slots=True)
class Counts:
    """What a reading found: how many are known now, never paid, are shown no longer, or could not be read, with why."""

    read: int = 0
    never_paid: int = 0
    gone: list[str] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)


def read_all(engine: Engine, gateway: StripeGateway, account: str | None, counts: Counts) -> Iterator[int]:
    """Read the subscriptions of an account into the table; yields how many were read. Raises ``GatewayError``.

    What was read stays read; a listing that broke off is done again the next night.
    """
    with engine.connect() as db:
        begun = db.execute(select(MACHINE_NOW)).scalar_one()
        first = not db.execute(_of(account).limit(1)).all()
    listed = gateway.subscriptions(account, ended=first)
    while shown := list(islice(listed, BATCH)):
        keep(engine, shown, account, counts)
        yield counts.read
    with engine.connect() as db:
        unseen = subscriptions.c.ended_at.is_(None), subscriptions.c.status != GONE, subscriptions.c.read_at < begun
        missing = db.execute(_of(account).where(*unseen)).all()
    for row in missing:
        _look_after(engine, gateway, row, counts)
        yield counts.read


def keep(engine: Engine, shown: Iterable[dict[str, Any]], account: str | None, counts: Counts) -> None:
    """Store subscriptions as the provider shows them; one that cannot be read is counted, and the others are kept."""
    rows = {}
    for each in shown:
        if each.get("status") in NEVER_PAID:
            counts.never_paid += 1
            continue
        try:
            rows[each["id"]] = read_subscription(each, account)
        except UnknownShape as error:
            counts.rejected.append({"subscription": str(each.get("id")), "reason": str(error)})
    if rows:
        with engine.begin() as db:
            _store(db, [rows[name] for name in sorted(rows)])
    counts.read += len(rows)


def read_subscription(shown: dict[str, Any], account: str | None = None) -> dict[str, Any]:
    """Return the row of a subscription object, its methods, customer and latest invoice expanded.

    Raises ``UnknownShape``.
    """
    with shape("a subscription"):
        items, why = shown["items"]["data"], shown.get("cancellation_details") or {}
        customer, paid = expanded(shown["customer"]), expanded(shown.get("latest_invoice"))
        own = expanded(shown.get("default_payment_method"))
        default = expanded((customer.get("invoice_settings") or {}).get("default_payment_method"))
        method, other = (own, default) if own and own.get("id") != default.get("id") else (own or default, {})
        card = card_of(method)
        period_end = min(item["current_period_end"] for item in items) if items else None
        cancel_at = shown.get("cancel_at") or (period_end if shown.get("cancel_at_period_end") else None)
        amounts = [_amounts(item) for item in items]
        known = amounts and None not in amounts
        return {
            "id": shown["id"],
            "account": account,
            "customer_id": customer.get("id") or str(shown["customer"]),
            "status": shown["status"],
            "started_at": instant(max(shown["start_date"], shown.get("trial_end") or 0)),
            "ended_at": _at(shown.get("ended_at")),
            "cancel_at": _at(cancel_at),
            "canceled_at": _at(shown.get("canceled_at")),
            "reason": why.get("reason"),
            "feedback": why.get("feedback"),
            "plan": _plan(items),
            "amount_minor": sum(each[0] for each in amounts if each) if known else None,
            "monthly_minor": round(sum(each[1] for each in amounts if each)) if known else None,
            "currency": shown["currency"],
            "country": (customer.get("address") or {}).get("country") or card.country,
            "method_id": method.get("id"),
            "method": method.get("type"),
            "card": by_name(card),
            "other_method_id": other.get("id"),
            "other_card": by_name(card_of(other)) if other else None,
            "next_charge_at": _next_charge(shown, period_end, cancel_at),
            "last_paid_at": _at((paid.get("status_transitions") or {}).get("paid_at")),
        }


def _of(account: str | None) -> Any:
    return select(subscriptions).where(subscriptions.c.account.is_not_distinct_from(account))


def _store(db: Connection, rows: list[dict[str, Any]]) -> None:
    new = insert_all(subscriptions, rows[0])
    changed = {name: new.excluded[name] for name in rows[0] if name != "id"} | {"read_at": MACHINE_NOW}
    db.execute(new.on_conflict_do_update(index_elements=["id"], set_=changed), as_rows(subscriptions, rows))


def _look_after(engine: Engine, gateway: StripeGateway, row: Row[Any], counts: Counts) -> None:
    """Read one that was not listed: it has ended, or the provider shows it no longer."""
    try:
        keep(engine, [gateway.subscription(row.id, row.account)], row.account, counts)
    except Gone:
        counts.gone.append(row.id)
        this = update(subscriptions).where(subscriptions.c.id == row.id)
        with engine.begin() as db:
            db.execute(this.values(status=GONE, next_charge_at=None))


def _amounts(item: dict[str, Any]) -> tuple[int, Fraction] | None:
    """Return what an item costs each period and each month; None where the price is not fixed."""
    price = item["price"]
    if price.get("unit_amount") is None or not price.get("recurring"):
        return None
    amount, every = price["unit_amount"] * item.get("quantity", 1), price["recurring"]
    return amount, Fraction(amount) / (MONTHS[every["interval"]] * every["interval_count"])


def _plan(items: list[dict[str, Any]]) -> str | None:
    """Return the name by which a merchant looks a price up, else its id; of several, all."""
    names = [item["price"].get("lookup_key") or item["price"]["id"] for item in items]
    return "+".join(sorted(set(names))) or None


def _next_charge(shown: dict[str, Any], period_end: int | None, cancel_at: int | None) -> datetime | None:
    ends = period_end is None or (cancel_at is not None and cancel_at <= period_end)
    if ends or shown.get("pause_collection") or shown["status"] not in ("active", "trialing", "past_due"):
        return None
    return _at(period_end)


def _at(seconds: int | None) -> datetime | None:
    return None if seconds is None else instant(seconds)
