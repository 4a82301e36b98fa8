"""What would happen to these payments, and is this policy sound? Calendars ahead, without a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from typing import Any

from schedules import Card, Decline, FailedPayment, Policy, plan_ahead
from schedules.contradictions import contradictions
from schedules.places import place_of
from schedules.proof import counterexamples, sample_payments
from schedules.steps import as_json

KINDS: Mapping[str, type] = {"amount_minor": int, "exp_month": int, "exp_year": int, "tenure_days": int}


class BadPayment(ValueError):
    """A line that is not a failed payment; the message says why."""


def payment_from(line: str) -> FailedPayment:
    """Return the payment in one JSON line; raise ``BadPayment`` naming the field and what was expected."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise BadPayment(msg) from None
    payment: FailedPayment = _build(FailedPayment, given, "")
    if payment.amount_minor < 0:
        msg = f"amount_minor: expected 0 or more, found {payment.amount_minor}"
        raise BadPayment(msg)
    return payment


def _build(kind: Any, given: Any, where: str) -> Any:
    if not isinstance(given, dict):
        msg = f"{where.rstrip('.') or 'line'}: expected an object, found {given!r:.40}"
        raise BadPayment(msg)
    names = {field.name: field for field in fields(kind)}
    for key in given:
        if key not in names:
            msg = f"{where}{key}: unknown field, expected one of {', '.join(names)}"
            raise BadPayment(msg)
    optional = {"subscription_id", "decline", "card"} | {n for n, f in names.items() if f.default is not MISSING}
    for key in names:
        if given.get(key) is None and key not in optional:
            msg = f"{where}{key}: missing"
            raise BadPayment(msg)
    return kind(**{key: _value(key, given.get(key), where) for key in names})


def _value(key: str, value: Any, where: str) -> Any:
    """Return one field's value in its own type; an absent nested object is one of which nothing is known."""
    if key == "decline":
        return _build(Decline, value or {}, "decline.")
    if key == "card":
        return _build(Card, value or {}, "card.")
    if key == "failed_at":
        return _instant(value)
    if value is not None and type(value) is not KINDS.get(key, str):
        msg = f"{where}{key}: expected {KINDS.get(key, str).__name__}, found {value!r:.40}"
        raise BadPayment(msg)
    return value


def _instant(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        msg = f"failed_at: expected an ISO instant such as 2026-01-05T03:10:00Z, found {value!r:.40}"
        raise BadPayment(msg) from None
    if found.tzinfo is None:
        msg = f"failed_at: the instant {value!r} has no time zone"
        raise BadPayment(msg)
    return found


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found about a policy: choices that are void, broken promises, and how many calendars were looked at."""

    contradictions: tuple[str, ...]
    counterexamples: tuple[str, ...]
    calendars: int

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.contradictions and not self.counterexamples

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"ok": self.ok, **asdict(self)}


def check(policy: Policy, step: Callable[[int], None]) -> Checked:
    """Look for contradictions, and walk through the calendar of every decline code; ``step`` is told how many."""
    found: list[str] = []
    walks = [(payment, each) for payment in sample_payments() for each in policy.every]
    for number, (payment, each) in enumerate(walks, start=1):
        found += counterexamples(payment, each)
        step(number)
    rivals = contradictions(policy.rival) if policy.rival else ()
    void = [*contradictions(policy), *(f"rival.{line}" for line in rivals)]
    for i, (_, mine) in enumerate(policy.segments):
        void += [f"segments[{i}].{line}" for line in contradictions(mine) if line not in void]
    return Checked(tuple(void), tuple(found), len(walks))


def calendar(payment: FailedPayment, policy: Policy) -> dict[str, Any]:
    """Return the whole calendar of a case from its failure on, each step with its UTC and its local time."""
    zone = place_of(payment.card.country, payment.time_zone, payment.card.brand).zones[0]
    arm = policy.experiment.arm_of(payment.customer_id)
    steps = plan_ahead(payment, policy.of(arm, policy.segment_of(payment)), payment.failed_at)
    told = [{**as_json(step), "local": step.at.astimezone(zone).isoformat(timespec="seconds")} for step in steps]
    return {"payment_id": payment.payment_id, "steps": told}
