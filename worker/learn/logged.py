"""Which charges has this installation made? Its stored cases as samples: read in one place, nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, select

from schedules import Card, Decline, Facts, PastAttempt
from worker.facts import MOST_SUCCESSES, payment_of
from worker.learn.samples import Sample
from worker.models import attempts, cases

ANSWERED = ("succeeded", "declined", "foreign")
AT_ONCE = 1000  # rows


def logged(db: Connection) -> Iterator[Sample]:
    """Yield every charge of ours that a bank answered, with what was known when it was made."""
    paid = _paid(db)
    own = [column.label(f"attempt_{column.name}") for column in attempts.c]
    joined = select(cases, *own).join(attempts, attempts.c.case_id == cases.c.id)
    answered = joined.where(attempts.c.state.in_(ANSWERED)).order_by(cases.c.id, attempts.c.at, attempts.c.number)
    rows = db.execute(answered.execution_options(yield_per=AT_ONCE))
    for _, of_case in groupby(rows, key=attrgetter("id")):
        yield from _of_case(list(of_case), paid)


def _of_case(rows: list[Row[Any]], paid: dict[str, list[datetime]]) -> Iterator[Sample]:
    """Yield the charges of one case, each with those before it."""
    before: list[PastAttempt] = []
    payment = payment_of(rows[0])
    for row in rows:
        card, at = Card(**row.attempt_card), row.attempt_at
        if row.attempt_state != "foreign":
            successes = tuple(each for each in paid[row.customer_id] if each < at)[-MOST_SUCCESSES:]
            entered = row.card_entered_at if row.card_entered_at and row.card_entered_at <= at else None
            facts = Facts(payment, card, entered, at, tuple(before), successes=successes)
            yield Sample(facts, at, row.attempt_state == "succeeded", row.attempt_propensity)
        if row.attempt_state != "succeeded":
            before.append(PastAttempt(row.attempt_number, at, card, Decline(**row.attempt_decline)))


def _paid(db: Connection) -> dict[str, list[datetime]]:
    """Return when each customer's cases were recovered, the oldest first."""
    found: dict[str, list[datetime]] = defaultdict(list)
    recovered = select(cases.c.customer_id, cases.c.closed_at).where(cases.c.state == "recovered")
    for customer_id, at in db.execute(recovered.order_by(cases.c.closed_at)):
        found[customer_id].append(at)
    return found
