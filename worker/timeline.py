"""What happened to one case, what comes next, why then, and what would change it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, text

from schedules import Card, Facts, Policy, next_step
from schedules.steps import as_json, utc_text
from worker.facts import facts_of
from worker.models import OF_CUSTOMER, attempts, events, history, outbox
from worker.planning import step_of

SAME = ("charged", "delivered")  # an attempt and a message tell it better


def of_case(db: Connection, row: Row[Any], policy: Policy, now: datetime) -> dict[str, Any]:
    """Return the ``history`` of a case, its next ``step`` with reasons, and what ``would_change`` it."""
    lines = db.execute(select(history).where(history.c.case_id == row.id).order_by(history.c.id))
    told = [{"at": utc_text(line.at), "what": line.what, "detail": line.detail} for line in lines]
    changes = [] if row.closed_at else list(_changes(facts_of(db, row, now), policy.of(row.arm, row.segment), now))
    return {"step": step_of(db, row.id), "history": told, "events": list(_events(db, row)), "would_change": changes}


def lines(db: Connection, row: Row[Any], told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the history of a case with its attempts and messages, in the order of business time, each told once."""
    rest = [{**line, "kind": "history", "detail": _told(line["detail"])} for line in told if line["what"] not in SAME]
    tried = db.execute(select(attempts).where(attempts.c.case_id == row.id).order_by(attempts.c.id))
    sent = db.execute(select(outbox).where(outbox.c.case_id == row.id).order_by(outbox.c.id))
    return sorted([*map(_attempt, tried), *rest, *map(_message, sent)], key=lambda line: str(line["at"]))


def _attempt(tried: Row[Any]) -> dict[str, Any]:
    about = {"state": tried.state, "card": _card(tried.card), **(tried.decline or {}), "charge": tried.charge_id}
    told = _told({**about, "error": tried.error})
    return {"at": utc_text(tried.at), "kind": "attempt", "what": f"attempt {tried.number}", "detail": told}


def _message(sent: Row[Any]) -> dict[str, Any]:
    waits = {"due": sent.due_at and utc_text(sent.due_at), "merged_into": sent.merged_into, "error": sent.error}
    left = "delivered" if sent.delivered_at else None
    told = _told({"channel": sent.channel, "state": left, **waits})
    at = utc_text(sent.delivered_at or sent.at)
    return {"at": at, "kind": "message", "what": f"{sent.kind} {sent.name}", "detail": told}


def _card(card: dict[str, Any]) -> str:
    return " ".join(filter(None, (card.get("brand"), card.get("last4") and f"…{card['last4']}")))


def _told(detail: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to tell, that of inner tables beside the rest."""
    inner = {key: value for each in detail.values() if isinstance(each, dict) for key, value in each.items()}
    flat = {key: value for key, value in detail.items() if not isinstance(value, dict)}
    return {key: value for key, value in {**inner, **flat}.items() if value not in (None, "")}


def _events(db: Connection, row: Row[Any]) -> Iterator[dict[str, Any]]:
    """Yield what the provider told of the customer while the case was open, in machine time."""
    shown = select(events.c.id, events.c.type, events.c.received_at, events.c.handled_at, events.c.error)
    about = events.c.account.is_not_distinct_from(row.account), text(f"{OF_CUSTOMER} = :customer")
    ordered = shown.where(*about).order_by(events.c.received_at, events.c.id)
    for event in db.execute(ordered, {"customer": row.customer_id}):
        at = {"received_at": utc_text(event.received_at), "handled": event.handled_at is not None}
        yield {"id": event.id, "type": event.type, **at, "error": event.error}


def _changes(facts: Facts, policy: Policy, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield what the decision would be if one thing were otherwise: the same function, asked with another fact."""
    read = replace(facts, refreshed_at=now)
    entered = Card("another card", facts.card.brand, facts.card.funding, facts.card.country)
    others = {
        "the customer stores another card now": replace(read, card=entered, card_entered_at=now),
        "an operator asks for a charge (`dunning case retry`)": replace(read, asked_at=now),
        "it is paid now": replace(facts, ended="paid"),
        "it is resumed" if facts.paused else "it is paused": replace(facts, paused=not facts.paused),
    }
    planned = next_step(facts, policy, now)
    for what, other in others.items():
        step = next_step(other, policy, now)
        if step != planned:
            told = as_json(step)
            detail = told.get("outcome") or told.get("notice") or ""
            yield {"if": what, "then": f"{told['step']} {detail}".strip() + f" at {told['at']}", "step": told}
