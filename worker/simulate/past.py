"""Where do stored rows become the past that a policy is judged by? Here, in one place; nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from schedules import Card, Decline
from worker.facts import payment_of
from worker.models import UNCERTAIN, attempts, cases, history, outbox
from worker.practice.protocol import CANCEL, PAID
from worker.simulate.history import Change, Logged, Notice, Past

ANSWERED = ("succeeded", "declined", "foreign")
Rows = Sequence[Row[Any]]


def past_cases(db: Connection) -> list[Past]:
    """Return what is known of every case, those that are still open too."""
    charged = _by_case(db, attempts, attempts.c.state.in_(ANSWERED), attempts.c.at)
    changed = _by_case(db, history, history.c.what == "refreshed", history.c.id)
    told = _by_case(db, outbox, outbox.c.kind == "notice", outbox.c.at)
    found = db.execute(select(cases).order_by(cases.c.failed_at, cases.c.payment_id))
    return [_past(row, charged[row.id], changed[row.id], told[row.id]) for row in found]


def _by_case(db: Connection, table: Table, condition: Any, order: Any) -> dict[int, list[Row[Any]]]:
    found: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in db.execute(select(table).where(condition, table.c.case_id.is_not(None)).order_by(order, table.c.id)):
        found[row.case_id].append(row)
    return found


def _past(row: Row[Any], charged: Rows, changed: Rows, told: Rows) -> Past:
    paid = row.state == "recovered"
    ours = any(each.state == "succeeded" for each in charged)
    charges = [_logged(each) for each in charged]
    if paid and row.recovered_by == "provider":  # somebody's charge was approved then, and nobody's decision to pay
        charges.append(Logged(row.closed_at, Card(**row.card), None, ours=False))
    alone = paid and not ours and row.recovered_by != "provider"
    gone = row.ended is not None and row.ended != "paid" and row.closed_at is not None
    return Past(
        payment=payment_of(row),
        charges=tuple(charges),
        changes=tuple(_changes(row, charged, changed)),
        notices=tuple(_notices(told, row.closed_at)),
        end=(PAID, row.closed_at) if alone else (CANCEL, row.closed_at) if gone else None,
        recovered_at=row.closed_at if paid else None,
    )


def _logged(row: Row[Any]) -> Logged:
    decline = None if row.state == "succeeded" else Decline(**(row.decline or {}))
    return Logged(row.at, Card(**row.card), decline, ours=row.state != "foreign")


def _changes(row: Row[Any], charged: Rows, changed: Rows) -> Iterable[Change]:
    """Yield when the card became another; which one, the next charge before the next change shows, or the case."""
    marks = [each for each in changed if each.detail["outcome"] == "updated"]
    for number, mark in enumerate(marks):
        until = marks[number + 1].at if number + 1 < len(marks) else None
        seen = (Card(**each.card) for each in charged if each.at >= mark.at and (until is None or each.at < until))
        card = next(seen, Card(**row.card) if until is None else None)
        if card is not None:
            yield Change(mark.at, card, bool(mark.detail["by_hand"]))


def _notices(told: Rows, closed_at: datetime | None) -> Iterable[Notice]:
    """Yield the notices of the ladder; what is said after the end belongs to no decision. Channels count once."""
    reached: dict[datetime, bool] = {}
    for each in told:
        if closed_at is None or each.at <= closed_at:
            arrived = each.delivered_at is not None or each.error == UNCERTAIN
            reached[each.at] = reached.get(each.at, False) or arrived
    return (Notice(at, arrived) for at, arrived in reached.items())
