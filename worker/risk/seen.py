"""What is known of every subscription that goes on? A few statements over all of them, none for a single one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from schedules import Card, Decline
from schedules.declines import classify
from schedules.subscriber import Subscriber
from worker.models import cases, subscriptions
from worker.subscriptions import GONE

YEAR = timedelta(days=365)
MONTH = 365 / 12  # days
AT_ONCE = 1000  # rows
UNPAID = ("past_due", "unpaid")
STORED = subscriptions.select().where(subscriptions.c.ended_at.is_(None), subscriptions.c.status != GONE)
PAST = text("""
    SELECT subscription_id,
        count(*) AS declines,
        count(*) FILTER (WHERE state = 'recovered') AS recovered,
        max(closed_at) FILTER (WHERE state = 'recovered') AS paid_at
    FROM cases
    WHERE subscription_id IS NOT NULL AND failed_at > :since AND failed_at <= :now
    GROUP BY subscription_id
""")
WAITING = text("""
    SELECT DISTINCT ON (subscription_id) subscription_id, failed_at, decline, failed_card
    FROM cases
    WHERE subscription_id IS NOT NULL AND closed_at IS NULL AND failed_at <= :now
    ORDER BY subscription_id, failed_at
""").columns(cases.c.subscription_id, cases.c.failed_at, cases.c.decline, cases.c.failed_card)
MANDATES = text("""
    SELECT DISTINCT ON (method_id)
        payload #>> '{data,object,payment_method}' AS method_id, payload #>> '{data,object,status}' AS status
    FROM events
    WHERE type = 'mandate.updated'
    ORDER BY method_id, (payload ->> 'created')::bigint DESC
""")
SIGNALS = text("""
    SELECT DISTINCT ON (account, customer_id, kind) account, customer_id, kind, value
    FROM signals
    WHERE at <= :now
    ORDER BY account, customer_id, kind, at DESC, id
""")


class _Known(NamedTuple):
    """What other tables tell, by subscription, by method, by customer of an account, and by currency."""

    past: Mapping[str, Row[Any]]
    waiting: Mapping[str, Row[Any]]
    mandates: Mapping[str, str]
    signals: Mapping[tuple[str | None, str], Mapping[str, float]]
    usual: Mapping[str, float]


def seen_now(db: Connection, now: datetime) -> Iterator[tuple[str, Subscriber]]:
    """Yield the id of every subscription that has not ended with what is seen of it."""
    known = _known(db, now)
    for row in db.execute(STORED.order_by(subscriptions.c.id).execution_options(yield_per=AT_ONCE)):
        yield row.id, _seen(row, known, now)


def _known(db: Connection, now: datetime) -> _Known:
    signals: dict[tuple[str | None, str], dict[str, float]] = defaultdict(dict)
    for row in db.execute(SIGNALS, {"now": now}):
        signals[row.account, row.customer_id][row.kind] = row.value
    return _Known(
        {row.subscription_id: row for row in db.execute(PAST, {"since": now - YEAR, "now": now})},
        {row.subscription_id: row for row in db.execute(WAITING, {"now": now})},
        {row.method_id: row.status for row in db.execute(MANDATES)},
        signals,
        _usual_prices(db),
    )


def _usual_prices(db: Connection) -> dict[str, float]:
    """Return the median monthly price of each currency."""
    prices: dict[str, list[int]] = defaultdict(list)
    going = subscriptions.c.ended_at.is_(None), subscriptions.c.monthly_minor > 0
    stored = subscriptions.select().with_only_columns(subscriptions.c.currency, subscriptions.c.monthly_minor)
    for currency, price in db.execute(stored.where(*going)):
        prices[currency].append(price)
    return {currency: median(each) for currency, each in prices.items()}


def _seen(row: Row[Any], known: _Known, now: datetime) -> Subscriber:
    card, other = Card(**row.card), Card(**row.other_card) if row.other_card else None
    past, every = known.past.get(row.id), _every(row)
    unpaid, cause = _unpaid(row, known.waiting.get(row.id), now, every)
    paid = max((at for at in (row.last_paid_at, past.paid_at if past else None) if at), default=None)
    return Subscriber(
        at=now.date(),
        since=min(row.started_at, now).date(),
        next_charge=_day(row.next_charge_at),
        every=every,
        ends=_day(row.cancel_at),
        method=row.method,
        funding=card.funding,
        valid_until=_valid_until(card),
        country=row.country,
        currency=row.currency,
        relative=_relative(row, known.usual),
        declines=past.declines if past else 0,
        recovered=past.recovered if past else 0,
        unpaid=unpaid,
        cause=cause,
        paid=_day(paid),
        other=other is not None and not other.expires_by(row.next_charge_at or now),
        mandate=known.mandates.get(row.method_id),
        signals=known.signals.get((row.account, row.customer_id), {}),
    )


def _unpaid(row: Row[Any], case: Row[Any] | None, now: datetime, every: int) -> tuple[date | None, str | None]:
    """Return since when a charge waits and why: as its case tells, else the period that the provider calls unpaid."""
    if case is not None:
        return case.failed_at.date(), classify(Decline(**case.decline), case.failed_card["brand"]).cause
    if row.status in UNPAID:
        return (row.next_charge_at or now).date() - timedelta(days=every), None
    return None, None


def _every(row: Row[Any]) -> int:
    """Return the days between two charges; a month where the price does not tell."""
    months = row.amount_minor / row.monthly_minor if row.amount_minor and row.monthly_minor else 1
    return max(round(months * MONTH), 1)


def _valid_until(card: Card) -> date | None:
    """Return the first day of the month after the one until which a card is valid."""
    if card.exp_year is None or card.exp_month is None:
        return None
    return date(card.exp_year + card.exp_month // 12, card.exp_month % 12 + 1, 1)


def _relative(row: Row[Any], usual: Mapping[str, float]) -> float | None:
    price = usual.get(row.currency)
    return round(row.monthly_minor / price, 3) if price and row.monthly_minor else None


def _day(at: datetime | None) -> date | None:
    return at.date() if at else None
