"""How does a case speak to its customer? With what the customer's other cases would say as well, never twice."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from schedules import Policy
from worker.cases import Case, save, under_way
from worker.models import cases
from worker.outbox import post, say
from worker.planning import decide


def speak(db: Connection, case: Case, notice: str, policy: Policy, now: datetime) -> None:
    """Put a notice into the outbox; what the customer's other cases would say within the cool-down goes with it.

    The caller lets nobody else speak to this customer until the transaction ends.
    """
    mine = policy.of(case.arm, case.segment)
    messages = say(db, case, notice, mine, now)
    if not messages:
        return
    others = _about_to_speak(db, case, now + timedelta(hours=mine.cooldown_hours))
    for other in others:
        for channel, message_id in messages.items():
            post(db, other, now, kind="notice", name=other.step["notice"], channel=channel, merged_into=message_id)
        other.note(now, "merged", {"notice": other.step["notice"], "into": case.payment_id})
    decide(db, others, policy, now)
    save(db, others)


def _about_to_speak(db: Connection, case: Case, until: datetime) -> list[Case]:
    """Return the customer's other cases whose next step is a notice before ``until``, locked.

    One that is locked already is left alone, so nobody waits here; whoever has leased one decides about it anew.
    """
    theirs = cases.c.customer_id == case.customer_id, cases.c.account.is_not_distinct_from(case.account)
    soon = cases.c.id != case.id, cases.c.step["step"].astext == "contact", cases.c.due_at < until
    found = select(cases).where(*theirs, *soon).order_by(cases.c.id).with_for_update(skip_locked=True)
    others = [Case(row) for row in db.execute(found)]
    busy = under_way(db, (other.id for other in others))
    return [other for other in others if other.id not in busy]
