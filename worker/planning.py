"""What comes next of a case? Its facts are gathered, the one decision is asked, and the answer becomes the case's row.

The row is the schedule: after each change the case is planned again, and ``due_at`` says when somebody has to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zlib import crc32

from sqlalchemy import Connection, select

from schedules import Close, Facts, FailedPayment, Policy, Step, next_step
from schedules.facts import by_name
from schedules.steps import as_json, utc_text
from worker.bulk import as_rows, insert_all
from worker.cases import LINES, Case, save
from worker.endings import close
from worker.facts import Known, better_known, known
from worker.models import cases, history
from worker.outbox import SHOWN, tell

OPENED = (
    "payment_id",
    "account",
    "customer_id",
    "subscription_id",
    "amount_minor",
    "currency",
    "failed_at",
    "decline",
    "failed_card",
    "card",
    "time_zone",
    "locale",
    "tenure_days",
    "arm",
    "segment",
    "due_at",
    "step",
    "decline_class",
)


def open_case(db: Connection, payment: FailedPayment, account: str | None, policy: Policy, now: datetime) -> int:
    """Open a case for a failed payment, or return the one that exists; the first failure's date never moves."""
    open_cases(db, [(payment, account)], policy, now)
    return int(db.execute(select(cases.c.id).where(cases.c.payment_id == payment.payment_id)).scalar_one())


def open_cases(
    db: Connection, failed: Iterable[tuple[FailedPayment, str | None]], policy: Policy, now: datetime
) -> set[str]:
    """Open a case for each failed payment, with its account, that has none; return the ids of these payments."""
    told = better_known(db, failed) if policy.segments else failed
    rows = {payment.payment_id: _first_row(payment, account, policy, now) for payment, account in told}
    if not rows:
        return set()
    steps = {name: row["step"] for name, row in rows.items()}
    # In one order, so that two who open the same cases never deadlock.
    ordered = [{**rows[name], "step": kept(steps[name])} for name in sorted(rows)]
    opened = db.execute(OPEN, as_rows(cases, ordered)).all()
    lines: list[dict[str, Any]] = []
    for row in opened:
        mine = {"segment": row.segment} if row.segment else {}
        first = {"opened": {"failed_at": utc_text(row.failed_at), **mine}, "planned": steps[row.payment_id]}
        lines += [{"case_id": row.id, "at": now, "what": what, "detail": detail} for what, detail in first.items()]
        wanted = policy.of(row.arm, row.segment)
        tell(db, row, "case.opened", wanted, now)
        tell(db, row, "case.planned", wanted, now, step=steps[row.payment_id])
    if lines:
        db.execute(LINES, as_rows(history, lines))
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


def plan(db: Connection, case: Case, policy: Policy, now: datetime) -> Step:
    """Decide one case again and save it, with the answer."""
    step = decide(db, [case], policy, now)[case.id]
    save(db, [case])
    return step


def decide(db: Connection, held: Iterable[Case], policy: Policy, now: datetime) -> dict[int, Step]:
    """Decide cases again, each with its answer as its plan; a close that is due ends it. The caller saves them."""
    if not (found := list(held)):
        return {}
    bearing = known(db, found, now)
    return {case.id: _decide(db, case, bearing[case.id], policy.of(case.arm, case.segment), now) for case in found}


def _decide(db: Connection, case: Case, bearing: Known, policy: Policy, now: datetime) -> Step:
    step = next_step(bearing.facts(case), policy, now)
    if isinstance(step, Close) and step.at <= now and bearing.unresolved is None:
        close(db, case, bearing, step, policy)
        return step
    told = as_json(step)
    planned, due_at = kept(told), step.at
    if max(due_at, case.due_at) <= now:  # what was due is due still: it keeps its place in the line, and in its index
        due_at = case.due_at
        planned["at"] = case.step["at"] if case.step else planned["at"]
    if planned != case.step:
        case.note(now, "planned", told)
        tell(db, case, "case.planned", policy, now, step=told)
    state = "paused" if case.paused else "contacting" if bearing.contacted else "silent"
    case.change(due_at=due_at, step=planned, state=state, decline_class=class_of(step))
    return step


def look_again(db: Connection, concerned: Iterable[Case], policy: Policy, now: datetime, **news: Any) -> None:
    """An event says that something about these cases changed: read the provider again before anything else."""
    found = list(concerned)
    for case in found:
        case.change(news=case.news + 1, **news)
    decide(db, found, policy, now)
    save(db, found)


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


# Built once: building a statement takes longer than running it.
OPEN = (
    insert_all(cases, OPENED)
    .on_conflict_do_nothing(index_elements=["payment_id"])
    .returning(cases.c.id, cases.c.arm, cases.c.segment, cases.c.failed_at, *(cases.c[name] for name in SHOWN))
)
