"""How does a due case move? Claim, call, settle: no transaction is open during a call, every write holds the lease.

The attempt and its key are committed before the request leaves. An attempt whose outcome is unknown is settled by
reading first; only then, and only while the key is young, is the same request sent again under the same key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, Text, bindparam, func, insert, select, update

from schedules import Card, Charge, Contact, Decline, Policy, Step
from schedules.facts import by_name
from worker import stops
from worker.cases import (
    CHANGED,
    LeaseLost,
    let_go,
    lock,
    next_number,
    plan,
    post,
    record,
    speak,
    store_reading,
    take_over,
    unresolved,
)
from worker.failpoints import failpoint
from worker.hooks import Hooks
from worker.keys import new_key
from worker.links import Links
from worker.models import MACHINE_NOW, UNRESOLVED, attempts, cases, history
from worker.readings import is_intent
from worker.stripe_gateway import (
    Declined,
    GatewayError,
    NotNow,
    Outcome,
    Paid,
    Processing,
    Refused,
    StripeGateway,
    Unknown,
)

if TYPE_CHECKING:
    from worker.readings import Reading

KEY_LIFE = timedelta(hours=23)  # Stripe keeps a key for at least 24 h; after that it would charge anew
ASK_AGAIN = timedelta(minutes=5)
SECOND_READ = timedelta(hours=1)
MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class Desk:
    """What one worker works with. ``now`` is the business instant at which the task began."""

    engine: Engine
    gateway: StripeGateway
    policy: Policy
    live: bool
    lease_seconds: float
    now: datetime
    links: Links | None = None
    hooks: Hooks | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """An act whose instant has come; ``news`` counts the events that were known when it was decided."""

    act: str
    news: int


@dataclass(frozen=True, slots=True)
class Held:
    """A case under our lease, and what was due about it when it was taken."""

    case_id: int
    token: UUID
    payment_id: str
    customer_id: str
    account: str | None
    arm: str
    segment: str | None
    charge_id: str | None
    due: Due | None = None


def work(desk: Desk, case_id: int, hint: UUID) -> bool:
    """Do everything that is due about one case; False when the hint was used before or the lease is gone."""
    held = _take(desk, case_id, hint)
    if held is None:
        return False
    try:
        due = held.due
        for _ in range(MOST_STEPS):
            if due is None:
                return True
            due = ACTS[due.act](desk, held, due)
    except LeaseLost:
        return False
    except Exception as error:
        # What is refused needs a person; everything else may pass by itself.
        pause = SECOND_READ if isinstance(error, Refused) else ASK_AGAIN
        _give_up(desk, held, desk.now + pause, str(error) if isinstance(error, GatewayError) else type(error).__name__)
        raise
    with desk.engine.begin() as db:
        _leave(db, held)
    return True


def _take(desk: Desk, case_id: int, hint: UUID) -> Held | None:
    with desk.engine.begin() as db:
        row = take_over(db, case_id, hint, desk.lease_seconds)
        if row is None:
            return None
        held = Held(
            case_id, row.lease_token, row.payment_id, row.customer_id, row.account, row.arm, row.segment, row.charge_id
        )
        return replace(held, due=_first(db, held, row, desk))


def _first(db: Connection, held: Held, row: Row[Any], desk: Desk) -> Due | None:
    """Return what is due; an attempt with an unknown outcome is settled before anything else is decided.

    What was planned is not decided anew here: each act decides again, by what it has read.
    """
    if row.due_at > desk.now:
        return _leave(db, held)
    if unresolved(db, held.case_id) is not None:
        return Due("settle", row.news)
    planned = row.step["step"] if row.step else None
    if planned == "charge" and _stopped(db, held, desk.now):
        return None
    if planned in ACTS:
        return Due(planned, row.news)
    return _next(db, held, row, desk)


def _next(db: Connection, held: Held, row: Row[Any], desk: Desk) -> Due | None:
    """Decide what comes next and write it down; return it when it is due at once, else give the case back."""
    return _due(db, held, row, plan(db, row, desk.policy, desk.now), desk.now)


def _due(db: Connection, held: Held, row: Row[Any], step: Step, now: datetime) -> Due | None:
    act = type(step).__name__.lower()
    return Due(act, row.news) if act in ACTS and step.at <= now else _leave(db, held)


def _leave(db: Connection, held: Held, until: datetime | None = None) -> Due | None:
    """Give the case back: nothing is due, or it is looked at again at ``until``, whatever its plan says."""
    let_go(db, held.case_id, held.token, until)
    return None


def _give_up(desk: Desk, held: Held, not_before: datetime, error: str) -> None:
    with desk.engine.begin() as db:
        let_go(db, held.case_id, held.token, func.greatest(cases.c.due_at, not_before))
        record(db, held.case_id, desk.now, "failed", {"error": error})


def _refresh(desk: Desk, held: Held, due: Due) -> Due | None:
    reading = _read(desk, held, held.charge_id)
    if _policy(desk, held).hands_off:
        reading = _stop_others(desk, held, reading)
    with desk.engine.begin() as db:
        row = store_reading(db, lock(db, held.case_id, held.token), reading, due.news, desk.now)
        return _next(db, held, row, desk)


def _stop_others(desk: Desk, held: Held, reading: Reading) -> Reading:
    """Have the provider not retry the invoice by itself, where that is wanted; return what it shows then."""
    if not (reading.retried_by_provider and _policy(desk, held).take_over and desk.live):
        return reading
    desk.gateway.stop_retries(held.payment_id, held.account)
    return _read(desk, held)


def _speak(desk: Desk, held: Held, _due_now: Due) -> Due | None:
    """Decide again while no other case of the customer can speak, then speak; only then is the cool-down certain."""
    with desk.engine.begin() as db:
        _one_at_a_time(db, held.customer_id)
        row = lock(db, held.case_id, held.token)
        step = plan(db, row, desk.policy, desk.now)
        if not isinstance(step, Contact) or step.at > desk.now:
            return _due(db, held, row, step, desk.now)
        speak(db, row, step.notice, desk.policy, desk.now)
        return _next(db, held, row, desk)


def _charge(desk: Desk, held: Held, due: Due) -> Due | None:
    """Read first; write the attempt down; call; settle."""
    reading = _stop_others(desk, held, _read(desk, held, held.charge_id))
    with desk.engine.begin() as db:
        row = store_reading(db, lock(db, held.case_id, held.token), reading, due.news, desk.now)
        _one_at_a_time(db, row.card["fingerprint"])
        step = plan(db, row, desk.policy, desk.now)
        if not isinstance(step, Charge) or step.at > desk.now:
            return _due(db, held, row, step, desk.now)
        if reading.in_flight and not (reading.waits_for_customer and Card(**row.card).differs(reading.charged)):
            record(db, held.case_id, desk.now, "held_back", {"why": "a payment is in flight"})
            return _leave(db, held, desk.now + SECOND_READ)
        if _stopped(db, held, desk.now):
            return None
        attempt = _write_down(db, row, desk, step)
        if attempt.state == "observed":
            return _next(db, held, row, desk)
    return _settle(desk, held, attempt, _pay(desk, held, attempt))


def _stopped(db: Connection, held: Held, now: datetime) -> bool:
    """Whether charging is stopped. The case is given back then, and looked at again; its history tells once."""
    reason = stops.reason(db)
    if reason is None:
        return False
    told = {"why": f"charging is stopped: {reason}"}
    before = history.c.case_id == held.case_id, history.c.what == "held_back", history.c.detail == told
    if db.execute(select(history.c.id).where(*before).limit(1)).first() is None:
        record(db, held.case_id, now, "held_back", told)
    _leave(db, held, now + ASK_AGAIN)
    return True


def _policy(desk: Desk, held: Held) -> Policy:
    """Return what counts for this customer; others of a customer's cases may follow another segment's."""
    return desk.policy.of(held.arm, held.segment)


def _read(desk: Desk, held: Held, known: str | None = None) -> Reading:
    return desk.gateway.read(held.payment_id, held.account, backups=_policy(desk, held).other_cards, known=known)


def _pay(desk: Desk, held: Held, attempt: Row[Any], *, again: bool = False) -> Outcome:
    """Send the attempt as it was written down: its key stands for the same method each time."""
    failpoint("before_send", held.payment_id)
    told = desk.gateway.pay(held.payment_id, attempt.idempotency_key, held.account, attempt.pay_with, again=again)
    failpoint("after_send", held.payment_id)
    return told


def _one_at_a_time(db: Connection, shared: str | None) -> None:
    """Keep other cases of the same card or customer out: two never both take the last of a budget or a cool-down."""
    if shared is not None:
        db.execute(KEEP_OUT, {"shared": shared})


def _write_down(db: Connection, row: Row[Any], desk: Desk, step: Charge) -> Row[Any]:
    """Insert the attempt with its key; it is committed before the request leaves."""
    written = select(func.count() + 1).select_from(attempts).where(attempts.c.case_id == row.id).scalar_subquery()
    values = {
        "case_id": row.id,
        "payment_id": row.payment_id,
        "number": next_number(row.id),
        "idempotency_key": new_key(row.payment_id, written),
        "state": "sent" if desk.live else "observed",
        "at": desk.now,
        "card": row.card,
        "fingerprint": row.card["fingerprint"],
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "by_updater": row.pay_with is None and row.card_entered_at is None and _changed(row),
        "charge_before": row.charge_id,
        # An invoice is charged on its own method; an intent keeps none, and a repetition must name the same one.
        "model": step.model,
        "propensity": step.propensity,
        "waited": any(why.startswith("window:") for why in step.reasons),
        "pay_with": row.pay_with or (row.method_id if is_intent(row.payment_id) else None),
    }
    if row.pay_with is not None and row.card_entered_at is not None:
        # The customer's new card pays the next renewals too: it goes where Stripe looks first.
        post(db, row, desk.now, kind="card", name=row.pay_with, channel="stripe", due_at=desk.now)
    if not desk.live:  # observe mode plans on as if the bank had refused in the same way
        values |= {"decline": row.decline, "settled_at": MACHINE_NOW}
    return db.execute(insert(attempts).values(values).returning(attempts)).one()


def _changed(row: Row[Any]) -> bool:
    return Card(**row.card).differs(Card(**row.failed_card))


def _settle(desk: Desk, held: Held, attempt: Row[Any], outcome: Outcome) -> Due | None:
    """Record what the provider answered, and decide what comes next."""
    told = _as_attempt(outcome)
    with desk.engine.begin() as db:
        row = lock(db, held.case_id, held.token)
        db.execute(ANSWERED if told["state"] in UNRESOLVED else SETTLED, {"attempt": attempt.id, **told})
        if isinstance(outcome, Paid):
            row = db.execute(CHANGED, {"case": row.id, "ended": "paid"}).one()
        record(db, row.id, desk.now, "charged", {"attempt": attempt.number, **told})
        step, pause = plan(db, row, desk.policy, desk.now), _pause(db, held, outcome)
        due = _due(db, held, row, step, desk.now) if pause is None else _leave(db, held, desk.now + pause)
        failpoint("before_record_commit", held.payment_id)
    failpoint("after_record_commit", held.payment_id)
    return due


def _as_attempt(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Paid():
            return {"state": "succeeded"}
        case Declined():
            return {"state": "declined", "decline": by_name(outcome.decline), "charge_id": outcome.charge_id}
        case Processing():
            return {"state": "processing"}
        case Unknown():
            return {"state": "unknown", "error": outcome.why}
        case NotNow():
            return {"state": "not_executed", "error": outcome.why}
    assert_never(outcome)


def _pause(db: Connection, held: Held, outcome: Outcome) -> timedelta | None:
    """A refusal of the network or the provider uses no attempt: the same step comes again in minutes to hours."""
    if isinstance(outcome, Unknown | Processing):
        return ASK_AGAIN
    if not isinstance(outcome, NotNow):
        return None
    failed = attempts.c.case_id == held.case_id, attempts.c.state == "not_executed"
    times = db.execute(select(func.count()).select_from(attempts).where(*failed)).scalar_one()
    return timedelta(minutes=min(2**times, 1440))


def _reconcile(desk: Desk, held: Held, _due_now: Due) -> Due | None:
    """Find out what became of an attempt: read; then the same key while it is young; never a blind charge."""
    with desk.engine.connect() as db:
        attempt = unresolved(db, held.case_id)
    if attempt is None:
        raise LeaseLost(held.case_id)
    reading = _read(desk, held)
    with desk.engine.connect() as db:
        age = db.execute(select(MACHINE_NOW)).scalar_one() - attempt.sent_at
    if reading.ended == "paid":
        outcome: Outcome = Paid()
    elif reading.waits_for_customer:
        outcome = Declined(Decline(code="authentication_required"), reading.charge_id)
    elif reading.in_flight:
        outcome = Processing()
    elif reading.charge_id != attempt.charge_before and reading.decline is not None:
        outcome = Declined(reading.decline, reading.charge_id)
    elif age < KEY_LIFE:
        with desk.engine.begin() as db:
            lock(db, held.case_id, held.token)
            if _stopped(db, held, desk.now):
                return None
        outcome = _pay(desk, held, attempt, again=True)
    else:
        return _key_too_old(desk, held, attempt)
    return _settle(desk, held, attempt, outcome)


def _key_too_old(desk: Desk, held: Held, attempt: Row[Any]) -> Due | None:
    """Never post an old key: two readings an hour apart without a charge say that it was not executed."""
    if attempt.read_at is not None and desk.now - attempt.read_at >= SECOND_READ:
        return _settle(desk, held, attempt, NotNow("no charge in two readings an hour apart"))
    with desk.engine.begin() as db:
        lock(db, held.case_id, held.token)
        first = func.coalesce(attempts.c.read_at, desk.now)
        db.execute(update(attempts).where(attempts.c.id == attempt.id).values(read_at=first))
        return _leave(db, held, desk.now + SECOND_READ)


KEEP_OUT = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("shared", type_=Text), 0)))
ANSWERED = update(attempts).where(attempts.c.id == bindparam("attempt"))
SETTLED = ANSWERED.values(settled_at=MACHINE_NOW)
ACTS = {"refresh": _refresh, "charge": _charge, "contact": _speak, "settle": _reconcile}
