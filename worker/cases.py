"""Where do rows become facts, and where does a step become a row? Here, and nowhere else.

Every function works inside the caller's short transaction on one connection. The row is the schedule: after each
change the case is planned again, and ``due_at`` says when somebody has to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4
from zlib import crc32

from sqlalchemy import Connection, Interval, Row, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import (
    Card,
    Close,
    Facts,
    FailedPayment,
    Policy,
    Step,
    next_step,
)
from schedules.decide import last_word
from schedules.facts import by_name
from schedules.steps import as_json, utc_text
from worker.bulk import insert_all
from worker.cards import Stored, choose, refreshed
from worker.facts import better_known, declined, facts_of, payment_of, uses_of
from worker.models import MACHINE_NOW, UNCERTAIN, UNRESOLVED, attempts, cases, history, outbox, subscriptions
from worker.readings import FailedCharge

if TYPE_CHECKING:
    from worker.readings import Reading

TOUCH = timedelta(days=7)
LAST_NOTICES = {"cancel": "ended", "pause": "paused"}
NEXT_RENEWAL = timedelta(days=31)
SHOWN = ("payment_id", "account", "customer_id", "subscription_id", "amount_minor", "currency")  # by hooks


def open_case(db: Connection, payment: FailedPayment, account: str | None, policy: Policy, now: datetime) -> int:
    """Open a case for a failed payment, or return the one that exists; the first failure's date never moves."""
    open_cases(db, [(payment, account)], policy, now)
    return int(db.execute(select(cases.c.id).where(cases.c.payment_id == payment.payment_id)).scalar_one())


def open_cases(
    db: Connection, failed: Iterable[tuple[FailedPayment, str | None]], policy: Policy, now: datetime
) -> set[str]:
    """Open a case for each failed payment, with its account, that has none; return the ids of these payments."""
    known = better_known(db, failed) if policy.segments else failed
    rows = {payment.payment_id: _first_row(payment, account, policy, now) for payment, account in known}
    if not rows:
        return set()
    told = cases.c.id, cases.c.arm, cases.c.segment, cases.c.failed_at, *(cases.c[name] for name in SHOWN)
    steps = {name: row["step"] for name, row in rows.items()}
    # In one order, so that two who open the same cases never deadlock.
    ordered = [{**rows[name], "step": kept(steps[name])} for name in sorted(rows)]
    new = insert_all(cases, ordered).on_conflict_do_nothing(index_elements=["payment_id"])
    opened = db.execute(new.returning(*told)).all()
    lines: list[dict[str, Any]] = []
    for row in opened:
        mine = {"segment": row.segment} if row.segment else {}
        first = {"opened": {"failed_at": utc_text(row.failed_at), **mine}, "planned": steps[row.payment_id]}
        lines += [{"case_id": row.id, "at": now, "what": what, "detail": detail} for what, detail in first.items()]
        tell(db, row, "case.opened", policy, now)
        tell(db, row, "case.planned", policy, now, step=steps[row.payment_id])
    if lines:
        db.execute(insert_all(history, lines))
    return {row.payment_id for row in opened}


def _first_row(payment: FailedPayment, account: str | None, policy: Policy, now: datetime) -> dict[str, Any]:
    """Return the case of a failed payment with its first step: until it is read, nothing else has a say in that."""
    card, arm = by_name(payment.card), policy.experiment.arm_of(payment.customer_id)
    segment = policy.segment_of(payment)
    step = next_step(Facts(payment, payment.card), policy.of(arm, segment), now)
    return {
        "payment_id": payment.payment_id,
        "account": account,
        "customer_id": payment.customer_id,
        "subscription_id": payment.subscription_id,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "failed_at": payment.failed_at,
        "decline": by_name(payment.decline),
        "failed_card": card,
        "card": card,
        "time_zone": payment.time_zone,
        "locale": payment.locale,
        "tenure_days": payment.tenure_days,
        "arm": arm,
        "segment": segment,
        "due_at": step.at,
        "step": as_json(step),
        "decline_class": class_of(step),
    }


def lock(db: Connection, case_id: int, token: UUID | None = None) -> Row[Any]:
    """Return the case's row, locked until the transaction ends; with a token only while that lease is held.

    Raises ``LeaseLost`` when another worker owns the case by now.
    """
    row = db.execute(LOCK if token is None else LOCK_HELD, {"case": case_id, "token": token}).one_or_none()
    if row is None:
        raise LeaseLost(case_id)
    return row


class LeaseLost(Exception):
    """Another worker owns the case: this one writes nothing more."""


def plan(db: Connection, row: Row[Any], policy: Policy, now: datetime) -> Step:
    """Decide the case again and write the answer down; a close that is due ends it here."""
    policy = policy.of(row.arm, row.segment)
    over = row.ended is not None and unresolved(db, row.id) is None
    # Of what is over nothing else matters.
    facts = Facts(payment_of(row), Card(**row.card), ended=row.ended) if over else facts_of(db, row, now)
    step = next_step(facts, policy, now)
    if step.at <= now and isinstance(step, Close) and (over or not unresolved(db, row.id)):
        close(db, row, step, policy)
    else:
        told = as_json(step)
        if kept(told) != row.step:
            record(db, row.id, now, "planned", told)
            tell(db, row, "case.planned", policy, now, step=told)
        state = "paused" if row.paused else "contacting" if facts.contacted else "silent"
        planned = {"due_at": step.at, "step": kept(told), "state": state, "decline_class": class_of(step)}
        if any(getattr(row, name) != value for name, value in planned.items()):
            db.execute(CHANGE, {"case": row.id, **planned})
    return step


def kept(told: dict[str, Any]) -> dict[str, Any]:
    """Return a step as its case keeps it: why, its history tells; a digest of that shows whether it has changed."""
    brief = {name: value for name, value in told.items() if name != "reasons"}
    return {**brief, "why": f"{crc32(chr(10).join(told['reasons']).encode()):08x}"}


def step_of(db: Connection, case_id: int) -> dict[str, Any] | None:
    """Return the next step of a case with the reasons that its history tells; None when it has ended."""
    mine = history.c.case_id == case_id, history.c.what == "planned"
    told = select(history.c.detail["reasons"]).where(*mine).order_by(history.c.id.desc()).limit(1).scalar_subquery()
    step, reasons = db.execute(select(cases.c.step, told).where(cases.c.id == case_id)).one()
    return step and {**step, "reasons": reasons or []}


def class_of(step: Step) -> str | None:
    """Return what the latest refusal means, as the reasons of a step tell it; None when they tell something else."""
    return next((why.partition(": ")[2] for why in step.reasons if why.startswith("class: ")), None)


def unresolved(db: Connection, case_id: int) -> Row[Any] | None:
    """Return the attempt whose outcome is not known yet, if there is one."""
    return db.execute(OPEN_ATTEMPT, {"case": case_id}).one_or_none()


def close(db: Connection, row: Row[Any], step: Close, policy: Policy) -> None:
    """End the case once; what the merchant wants done and said about it goes to the outbox."""
    policy = policy.of(row.arm, row.segment)
    ended = {
        "state": step.outcome,
        "closed_at": step.at,
        "due_at": None,
        "step": None,
        "lease_token": None,
        "lease_until": None,
        "recovered_by": means_of(db, row, step.at) if step.outcome == "recovered" else None,
    }
    db.execute(CHANGE, {"case": row.id, **ended})
    record(db, row.id, step.at, "closed", as_json(step))
    tell(db, row, f"case.{step.outcome}", policy, step.at, recovered_by=ended["recovered_by"])
    if step.outcome == "lost" and not _opened_in_time(db, row, policy):
        return  # nothing was tried: what becomes of the subscription is for a person to say
    if step.outcome == "lost" and policy.ending not in ("leave", "release"):
        post(db, row, step.at, kind="ending", name=policy.ending, channel="stripe", due_at=step.at)
    if step.outcome == "lost" and row.subscription_id is not None and policy.notice_ended:
        _say_last(db, row, LAST_NOTICES.get(policy.ending), policy, step.at)
    if step.outcome == "recovered":
        _say_last(db, row, _after_recovery(db, row, str(ended["recovered_by"]), policy, step.at), policy, step.at)


def _opened_in_time(db: Connection, row: Row[Any], policy: Policy) -> bool:
    """Whether the case was opened before its deadline; a file or a long outage brings failures that are older."""
    opened = select(func.min(history.c.at)).where(history.c.case_id == row.id, history.c.what == "opened")
    at = db.execute(opened).scalar_one()
    return at is None or at < row.failed_at + timedelta(days=policy.deadline_days)


def _after_recovery(db: Connection, row: Row[Any], means: str, policy: Policy, now: datetime) -> str | None:
    """Return what is said once the money has come, if anything: the next renewal matters more than thanks.

    Whose renewal is off has none.
    """
    expires = policy.notice_expiring and Card(**row.card).expires_by(now + NEXT_RENEWAL)
    leaves = subscriptions.c.id == row.subscription_id, subscriptions.c.cancel_at.is_not(None)
    if expires and db.execute(select(subscriptions.c.id).where(*leaves)).first() is None:
        return "expiring"
    return "thanks" if policy.notice_thanks and means == "after_contact" else None


def _say_last(db: Connection, row: Row[Any], notice: str | None, policy: Policy, now: datetime) -> None:
    """Put the last notice into the outbox, far from all others, from one that somebody says at this moment too.

    Whoever speaks holds the customer's lock before any case's, so here it is tried and never waited for.
    """
    if notice is None:
        return
    alone = select(func.pg_try_advisory_xact_lock(func.hashtextextended(row.customer_id, 0)))
    speaks = () if db.execute(alone).scalar_one() else (now,)
    facts = facts_of(db, row, now)
    at = last_word(replace(facts, customer_contacts=(*facts.customer_contacts, *speaks)), policy, now)
    if at is not None:
        _say(db, row, notice, policy, at)


def means_of(db: Connection, row: Row[Any], at: datetime) -> str:
    """Say what brought the money back: updater, silent retry, contact (a touch in the last 7 days), provider, customer.

    A touch is a notice that reached the customer, or perhaps did. What was paid while the provider still had a retry
    planned is taken for that retry.
    """
    won = attempts.c.case_id == row.id, attempts.c.state == "succeeded"
    attempt = db.execute(select(attempts.c.by_updater).where(*won)).one_or_none()
    perhaps = case((outbox.c.error == UNCERTAIN, outbox.c.at))
    arrived = func.coalesce(outbox.c.delivered_at, perhaps).between(at - TOUCH, at)
    touched = outbox.c.case_id == row.id, outbox.c.kind == "notice", arrived
    if attempt is not None and attempt.by_updater:
        return "card_update"
    if db.execute(select(outbox.c.id).where(*touched).limit(1)).first() is not None:
        return "after_contact"
    if attempt is not None and row.card_entered_at is None:
        return "silent_retry"
    return "provider" if row.retried_elsewhere and attempt is None else "customer"


def speak(db: Connection, row: Row[Any], notice: str, policy: Policy, now: datetime) -> None:
    """Put a notice into the outbox; what the customer's other cases would say within the cool-down goes with it.

    The caller lets nobody else speak to this customer until the transaction ends.
    """
    mine = policy.of(row.arm, row.segment)
    messages = _say(db, row, notice, mine, now)
    if not messages:
        return
    for other in _about_to_speak(db, row, now + timedelta(hours=mine.cooldown_hours)):
        for channel, message_id in messages.items():
            post(db, other, now, kind="notice", name=other.step["notice"], channel=channel, merged_into=message_id)
        record(db, other.id, now, "merged", {"notice": other.step["notice"], "into": row.payment_id})
        plan(db, other, policy, now)


def _say(db: Connection, row: Row[Any], notice: str, policy: Policy, at: datetime) -> dict[str, int]:
    """Put a notice into the outbox, once for each channel; return the numbers of what was not there before."""
    said = {name: post(db, row, at, kind="notice", name=notice, channel=name, due_at=at) for name in policy.channels}
    return {channel: message_id for channel, message_id in said.items() if message_id is not None}


def _about_to_speak(db: Connection, row: Row[Any], until: datetime) -> list[Row[Any]]:
    """Return the customer's other cases whose next step is a notice before ``until``, locked.

    One that is locked already is left alone, so nobody waits here; whoever has leased one decides about it anew.
    """
    theirs = cases.c.customer_id == row.customer_id, cases.c.account.is_not_distinct_from(row.account)
    soon = cases.c.id != row.id, cases.c.step["step"].astext == "contact", cases.c.due_at < until
    found = select(cases).where(*theirs, *soon).order_by(cases.c.id).with_for_update(skip_locked=True)
    return [other for other in db.execute(found) if unresolved(db, other.id) is None]


def post(db: Connection, row: Row[Any], at: datetime, **message: Any) -> int | None:
    """Put one message into the outbox and return its id; None when the case has said the same before."""
    values = {"case_id": row.id, "customer_id": row.customer_id, "at": at, **message}
    return db.execute(upsert(outbox).values(values).on_conflict_do_nothing().returning(outbox.c.id)).scalar()


def tell(db: Connection, row: Row[Any], name: str, policy: Policy, now: datetime, **more: Any) -> None:
    """Tell the merchant's own systems what happened to a case, if the policy names that: ids and money, no person."""
    if name not in policy.of(row.arm, row.segment).hooks:
        return
    said = {"case_id": row.id, **{key: getattr(row, key) for key in SHOWN}, **more}
    post(db, row, now, kind="hook", name=name, channel="hook", payload=said, due_at=now)


def store_reading(db: Connection, row: Row[Any], reading: Reading, news: int, now: datetime) -> Row[Any]:
    """Write down what the provider showed, and the fuller evidence of the latest refusal; return the row as it is now.

    ``news`` is the row's count of events when the provider was asked: what came later asks for another reading.
    """
    chosen = _chosen(db, row, reading, now)
    by_hand = _by_hand(row, reading, chosen)
    outcome = refreshed(Card(**row.card), chosen.card, row.method_id, reading.method_id)
    found = {
        "card": by_name(chosen.card),
        "method_id": reading.method_id,
        "pay_with": chosen.method_id if chosen.method_id != (reading.method_id or "") else None,
        "methods_seen": sorted({*row.methods_seen, row.method_id, *_ids(reading)} - {None, reading.method_id}),
        "retried_elsewhere": row.retried_elsewhere if reading.ended else reading.retried_by_provider,
        "intent_id": reading.intent_id or row.intent_id,
        "card_entered_at": now if by_hand else row.card_entered_at,
        "refreshed_at": now,
        "news_read": news,
        "ended": reading.ended or row.ended,
        "amount_minor": row.amount_minor if reading.ended else reading.amount_minor,
        "time_zone": reading.time_zone or row.time_zone,
        "locale": reading.locale or row.locale,
    }
    unseen = reading.charge_id not in (None, row.charge_id, row.failed_charge_id)
    if reading.decline is not None and (unseen or row.refreshed_at is None):
        found |= _evidence(db, row, reading, now)
    asked = row.step is not None and row.step["step"] == "refresh"
    if asked or outcome != "unchanged":
        record(db, row.id, now, "refreshed", {"outcome": outcome, "by_hand": by_hand})
    return db.execute(CHANGED, {"case": row.id, **found}).one()


def _chosen(db: Connection, row: Row[Any], reading: Reading, now: datetime) -> Stored:
    """Return the method to charge: the first that no bank has refused in this case, nor lately in any other."""
    refused = [Card(**row.failed_card), *(each.card for each in declined(db, row.id))]
    if row.refreshed_at is None:  # the event may not have shown the card
        refused.append(reading.charged)
    known = [card for card in refused if card != Card()]
    own = Stored(reading.method_id or "", reading.card)
    unused = (other for other in reading.others if not uses_of(db, other.card.fingerprint, now))
    return choose([own, *unused], known, now)


def _by_hand(row: Row[Any], reading: Reading, chosen: Stored) -> bool:
    """Whether the customer stored the card since the last reading: another default, or one never seen before."""
    if row.refreshed_at is None or not chosen.card.differs(Card(**row.card)) or chosen.backup:
        return False
    return reading.method_id != row.method_id or chosen.method_id not in (reading.method_id, *row.methods_seen)


def _ids(reading: Reading) -> list[str]:
    return [name for name in (reading.method_id, *(other.method_id for other in reading.others)) if name]


def _evidence(db: Connection, row: Row[Any], reading: Reading, now: datetime) -> dict[str, Any]:
    """A refusal not seen before: of an attempt of ours, of the renewal itself, or of a charge that others made."""
    seen: dict[str, Any] = {"charge_id": reading.charge_id}
    if _of_an_attempt(db, row, reading):
        return seen
    charge = _elsewhere(row, reading)
    if charge is None:
        told = by_name(reading.decline) if reading.decline else {}
        failed = {"failed_charge_id": reading.charge_id, "decline": told, "failed_card": by_name(reading.charged)}
        return seen | failed
    keep_foreign(db, charge, row.id)
    record(db, row.id, now, "charged_elsewhere", {"charge": charge.id, "charged_at": utc_text(charge.at)})
    return seen if row.failed_card.get("fingerprint") else {**seen, "failed_card": by_name(charge.card)}


def _of_an_attempt(db: Connection, row: Row[Any], reading: Reading) -> bool:
    """Give the attempt that made this charge its fuller evidence; a refusal without a charge yet is the latest's."""
    mine, answered = attempts.c.case_id == row.id, attempts.c.state.in_(("declined", "foreign"))
    latest = select(func.max(attempts.c.number)).where(mine, answered).scalar_subquery()
    unnamed = and_(attempts.c.number == latest, attempts.c.state == "declined", attempts.c.charge_id.is_(None))
    made_it = update(attempts).where(mine, or_(attempts.c.charge_id == reading.charge_id, unnamed))
    told = {"decline": by_name(reading.decline) if reading.decline else {}, "charge_id": reading.charge_id}
    return db.execute(made_it.values(told)).rowcount > 0


def _elsewhere(row: Row[Any], reading: Reading) -> FailedCharge | None:
    """Return the charge when it cannot be the renewal's: another one is, or it was made after the renewal failed."""
    decline, charge_id, at = reading.decline, reading.charge_id, reading.charged_at
    if decline is None or charge_id is None or at is None or (row.failed_charge_id is None and at <= row.failed_at):
        return None
    return FailedCharge(charge_id, at, row.payment_id, row.amount_minor, row.currency, reading.charged, decline)


def keep_foreign(db: Connection, charge: FailedCharge, case_id: int | None = None) -> None:
    """Write down, once, a refused charge that we did not make: without a case until a reading shows whose it is.

    It stands among the attempts, numbered on, because the card's budget and the waits of its case are the same.
    """
    values = {
        "case_id": case_id,
        "payment_id": charge.payment_id,
        "number": next_number(case_id),
        "idempotency_key": charge.id,  # unique: one row for each charge
        "state": "foreign",
        "at": charge.at,
        "settled_at": MACHINE_NOW,
        "card": by_name(charge.card),
        "fingerprint": charge.card.fingerprint,
        "amount_minor": charge.amount_minor,
        "currency": charge.currency,
        "decline": by_name(charge.decline),
        "charge_id": charge.id,
    }
    told = upsert(attempts).values(values)
    better = {name: told.excluded[name] for name in ("case_id", "payment_id", "number", "decline")}
    adopted = attempts.c.case_id.is_(None) & told.excluded.case_id.is_not(None)
    db.execute(told.on_conflict_do_update(index_elements=["idempotency_key"], set_=better, where=adopted))


def next_number(case_id: int | None) -> Any:
    """Return the number of a case's next attempt, as SQL; of a charge of which no case knows it is 1."""
    if case_id is None:
        return 1
    counted = attempts.c.case_id == case_id, attempts.c.state != "not_executed"
    return select(func.coalesce(func.max(attempts.c.number), 0) + 1).where(*counted).scalar_subquery()


def look_again(db: Connection, row: Row[Any], policy: Policy, now: datetime, **news: Any) -> None:
    """An event says that something about this case changed: read the provider again before anything else."""
    told = update(cases).where(cases.c.id == row.id).values(news=cases.c.news + 1, **news)
    plan(db, db.execute(told.returning(cases)).one(), policy, now)


def take_over(db: Connection, case_id: int, hint: UUID, lease_seconds: float) -> Row[Any] | None:
    """Exchange the token of a hint for one of our own; return the case, locked, or None: used before, or too old."""
    lease = {"token": uuid4(), "lasts": timedelta(seconds=lease_seconds)}
    return db.execute(TAKE_OVER, {"case": case_id, "hint": hint, **lease}).one_or_none()


def let_go(db: Connection, case_id: int, token: UUID, due_at: Any = None) -> None:
    """Give the case back, if it is ours still; it is looked at again at ``due_at``, or else as it is planned."""
    free: dict[str, Any] = {"lease_token": None, "lease_until": None, "claims": 0}
    if due_at is not None:
        free["due_at"] = due_at
    db.execute(update(cases).where(cases.c.id == case_id, cases.c.lease_token == token).values(**free))


def retry(db: Connection, case_id: int, now: datetime) -> bool:
    """Take up a case again that was set aside; False when it was not."""
    free = {"quarantined_at": None, "claims": 0}
    aside = cases.c.id == case_id, cases.c.quarantined_at.is_not(None), cases.c.closed_at.is_(None)
    done = db.execute(update(cases).where(*aside).values(free)).rowcount == 1
    if done:
        record(db, case_id, now, "taken_up", {})
    return done


def record(db: Connection, case_id: int, at: datetime, what: str, detail: dict[str, Any]) -> None:
    """Append one line to the history of a case."""
    db.execute(LINE, {"case_id": case_id, "at": at, "what": what, "detail": detail})


# The statements of every attempt, built once: building one takes longer than running it.
THIS = cases.c.id == bindparam("case")
LOCK = select(cases).where(THIS).with_for_update()
LOCK_HELD = select(cases).where(THIS, cases.c.lease_token == bindparam("token")).with_for_update()
CHANGE = update(cases).where(THIS)
CHANGED = CHANGE.returning(cases)
TAKE_OVER = CHANGED.where(cases.c.lease_token == bindparam("hint")).values(
    lease_token=bindparam("token"),
    lease_until=MACHINE_NOW + bindparam("lasts", type_=Interval),
    claims=cases.c.claims + 1,
)
OPEN_ATTEMPT = select(attempts).where(attempts.c.case_id == bindparam("case"), attempts.c.state.in_(UNRESOLVED))
LINE = insert(history)
