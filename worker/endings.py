"""How does a case end? Once, by what means, and with what the merchant wants done and said about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from schedules import Card, Close, Policy
from schedules.decide import last_word
from schedules.steps import as_json
from worker.cases import Case
from worker.facts import Known
from worker.models import history, subscriptions
from worker.outbox import post, say, tell

TOUCH = timedelta(days=7)
LAST_NOTICES = {"cancel": "ended", "pause": "paused"}
NEXT_RENEWAL = timedelta(days=31)


def close(db: Connection, case: Case, known: Known, step: Close, policy: Policy) -> None:
    """End the case; what the merchant wants done and said about it goes to the outbox. The caller saves the case."""
    means = means_of(case, known, step.at) if step.outcome == "recovered" else None
    case.change(state=step.outcome, closed_at=step.at, recovered_by=means, due_at=None, step=None, lease_token=None)
    case.note(step.at, "closed", as_json(step))
    tell(db, case, f"case.{step.outcome}", policy, step.at, recovered_by=means)
    if means is not None:
        _say_last(db, case, known, _after_recovery(db, case, means, policy), policy)
    if step.outcome == "lost" and _opened_in_time(db, case, policy):
        if policy.ending not in ("leave", "release"):
            post(db, case, step.at, kind="ending", name=policy.ending, channel="stripe", due_at=step.at)
        if case.subscription_id is not None and policy.notice_ended:
            _say_last(db, case, known, LAST_NOTICES.get(policy.ending), policy)


def _opened_in_time(db: Connection, case: Case, policy: Policy) -> bool:
    """Whether the case was opened before its deadline; a file or a long outage brings failures that are older.

    Of those nothing was tried: what becomes of the subscription is for a person to say.
    """
    opened = select(func.min(history.c.at)).where(history.c.case_id == case.id, history.c.what == "opened")
    at = db.execute(opened).scalar_one()
    return at is None or at < case.failed_at + timedelta(days=policy.deadline_days)


def _after_recovery(db: Connection, case: Case, means: str, policy: Policy) -> str | None:
    """Return what is said once the money has come, if anything: the next renewal matters more than thanks.

    Whose renewal is off has none.
    """
    if policy.notice_expiring and Card(**case.card).expires_by(case.closed_at + NEXT_RENEWAL):
        leaves = subscriptions.c.id == case.subscription_id, subscriptions.c.cancel_at.is_not(None)
        if db.execute(select(subscriptions.c.id).where(*leaves)).first() is None:
            return "expiring"
    return "thanks" if policy.notice_thanks and means == "after_contact" else None


def _say_last(db: Connection, case: Case, known: Known, notice: str | None, policy: Policy) -> None:
    """Put the last notice, if any, into the outbox, far from all others, also from one that is said at this moment.

    Whoever speaks holds the customer's lock before any case's, so here it is tried and never waited for.
    """
    if notice is None:
        return
    alone = select(func.pg_try_advisory_xact_lock(func.hashtextextended(case.customer_id, 0)))
    speaks = () if db.execute(alone).scalar_one() else (case.closed_at,)
    facts = known.facts(case)
    at = last_word(replace(facts, customer_contacts=(*facts.customer_contacts, *speaks)), policy, case.closed_at)
    if at is not None:
        say(db, case, notice, policy, at)


def means_of(case: Case, known: Known, at: datetime) -> str:
    """Say what brought the money back: updater, silent retry, contact (a touch in the last 7 days), provider, customer.

    A touch is a notice that reached the customer, or perhaps did. What was paid while the provider still had a retry
    planned is taken for that retry.
    """
    if known.won is not None and known.won.by_updater:
        return "card_update"
    if any(at - TOUCH <= arrived <= at for arrived in known.arrived):
        return "after_contact"
    if known.won is not None and case.card_entered_at is None:
        return "silent_retry"
    return "provider" if case.retried_elsewhere and known.won is None else "customer"
