"""How is a charge attempted? Decided on a fresh reading and written down, sent, and settled by what came of it.

The attempt and its key are committed before the request leaves. An attempt whose outcome is unknown is settled by
reading first; only then, and only while the key is young, is the same request sent again under the same key.
Functions with a ``Connection`` work within one transaction, on cases that it has locked and that its caller saves.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_never

from sqlalchemy import Connection, Row, func, null, select, update
from sqlalchemy import case as when

from schedules import Card, Charge, Decline
from schedules.facts import by_name
from worker import stops
from worker.bulk import THESE, as_rows, given, these
from worker.cases import Case, one_at_a_time
from worker.desk import ASK_AGAIN, SECOND_READ, Answered, Desk, Held, due, held
from worker.evidence import store_reading
from worker.failpoints import failpoint
from worker.keys import new_key
from worker.models import MACHINE_NOW, UNRESOLVED, attempts
from worker.outbox import post
from worker.planning import decide
from worker.readings import is_intent
from worker.stripe_gateway import Declined, NotNow, Outcome, Paid, Processing, Unknown

if TYPE_CHECKING:
    from worker.readings import Reading

KEY_LIFE = timedelta(hours=23)  # Stripe keeps a key for at least 24 h; after that it would charge anew


# Writing down


def write_down(db: Connection, desk: Desk, found: list[Answered]) -> list[Held]:
    """Store what was read, decide, and write down the attempts that are to be sent."""
    first: dict[str | int, Answered] = {}
    more: list[Held] = []
    for each in found:
        store_reading(db, each.case, each.answer, each.held.news, desk.now)
        if first.setdefault(each.case.card["fingerprint"] or each.case.id, each) is not each:
            more.append(each.held)  # of the same card: it is read again when the other one has its attempt
    one_at_a_time(db, [shared for shared in first if isinstance(shared, str)])
    steps = decide(db, [each.case for each in first.values()], desk.policy, desk.now)
    stopped = stops.reason(db)
    charges: list[tuple[Case, Charge]] = []
    for each in first.values():
        step = steps[each.case.id]
        if not isinstance(step, Charge) or step.at > desk.now:
            more += due(each.case, step, desk.now)
        elif _is_busy(each.case, each.answer):
            each.case.note(desk.now, "held_back", {"why": "a payment is in flight"})
            each.case.let_go(desk.now + SECOND_READ)
        elif stopped:
            stops.hold_back(db, each.case, stopped, desk.now)
        else:
            charges.append((each.case, step))
    return [*more, *_inserted(db, desk, charges)]


def _is_busy(case: Case, reading: Reading) -> bool:
    """Whether a payment is in flight, and does not merely wait for the customer to approve it for another card."""
    return reading.in_flight and not (reading.waits_for_customer and Card(**case.card).differs(reading.charged))


def _inserted(db: Connection, desk: Desk, charges: list[tuple[Case, Charge]]) -> list[Held]:
    """Insert the attempts with their keys; return them as what is to be sent.

    Observe mode plans on as if the bank had refused in the same way.
    """
    if not charges:
        return []
    rows = [_attempt(case, step, desk) for case, step in charges]
    written = {row.case_id: row for row in db.execute(WRITE_DOWN, as_rows(attempts, rows))}
    for case, _ in charges:
        if case.pay_with is not None and case.card_entered_at is not None:
            # The customer's new card pays the next renewals too: it goes where Stripe looks first.
            post(db, case, desk.now, kind="card", name=case.pay_with, channel="stripe", due_at=desk.now)
    if desk.live:
        return [held(case, "pay", written[case.id]) for case, _ in charges]
    steps = decide(db, [case for case, _ in charges], desk.policy, desk.now)
    return [more for case, _ in charges for more in due(case, steps[case.id], desk.now)]


def _attempt(case: Case, step: Charge, desk: Desk) -> dict[str, Any]:
    """Return an attempt as it is written down, but for its number and its key."""
    return {
        "case_id": case.id,
        "payment_id": case.payment_id,
        "state": "sent" if desk.live else "observed",
        "at": desk.now,
        "card": case.card,
        "fingerprint": case.card["fingerprint"],
        "amount_minor": case.amount_minor,
        "currency": case.currency,
        "decline": None if desk.live else case.decline,
        "by_updater": case.pay_with is None and case.card_entered_at is None and _changed(case),
        "charge_before": case.charge_id,
        "model": step.model,
        "propensity": step.propensity,
        "waited": any(why.startswith("window:") for why in step.reasons),
        # An invoice is charged on its own method; an intent keeps none, and a repetition must name the same one.
        "pay_with": case.pay_with or (case.method_id if is_intent(case.payment_id) else None),
    }


def _changed(case: Case) -> bool:
    return Card(**case.card).differs(Card(**case.failed_card))


# Sending


def pay(desk: Desk, held: Held) -> Outcome:
    """Send an attempt as it was written down: its key stands for the same method each time."""
    attempt: Any = held.attempt
    failpoint("before_send", held.payment_id)
    told = desk.gateway.pay(held.payment_id, attempt.idempotency_key, held.account, attempt.pay_with, again=held.again)
    failpoint("after_send", held.payment_id)
    return told


# Settling


def paid(db: Connection, desk: Desk, found: list[Answered]) -> list[Held]:
    """Record what the provider answered to requests, and decide what comes next."""
    return _settle(db, desk, [(each.case, each.held.attempt, each.answer) for each in found])


def found_out(db: Connection, desk: Desk, found: list[Answered]) -> list[Held]:
    """Settle what a reading tells; send again, under the same key, what is young enough; never a blind charge."""
    told = {row.case_id: row for row in db.execute(OPEN_ATTEMPTS, these(each.case.id for each in found))}
    outcomes: list[tuple[Case, Any, Outcome]] = []
    unsent: list[tuple[Case, Any]] = []
    for each in found:
        attempt = told.get(each.case.id)
        outcome = attempt and _shown(attempt, each.answer)
        if attempt is None:
            each.case.let_go()
        elif outcome is None and attempt.age < KEY_LIFE:
            unsent.append((each.case, attempt))
        elif outcome := outcome or _key_too_old(db, desk, each.case, attempt):
            outcomes.append((each.case, attempt, outcome))
    return [*_again(db, desk, unsent), *_settle(db, desk, outcomes)]


def _shown(attempt: Row[Any], reading: Reading) -> Outcome | None:
    """Return what became of an attempt, as far as the provider shows it."""
    if reading.ended == "paid":
        return Paid()
    if reading.waits_for_customer:
        return Declined(Decline(code="authentication_required"), reading.charge_id)
    if reading.in_flight:
        return Processing()
    if reading.charge_id != attempt.charge_before and reading.decline is not None:
        return Declined(reading.decline, reading.charge_id)
    return None


def _again(db: Connection, desk: Desk, unsent: list[tuple[Case, Any]]) -> list[Held]:
    """Return attempts to be sent again, unless charging is stopped."""
    stopped = stops.reason(db) if unsent else None
    if stopped is None:
        return [held(case, "pay", attempt, again=True) for case, attempt in unsent]
    for case, _ in unsent:
        stops.hold_back(db, case, stopped, desk.now)
    return []


def _key_too_old(db: Connection, desk: Desk, case: Case, attempt: Row[Any]) -> Outcome | None:
    """Never post an old key: two readings an hour apart without a charge say that it was not executed."""
    if attempt.read_at is not None and desk.now - attempt.read_at >= SECOND_READ:
        return NotNow("no charge in two readings an hour apart")
    first = func.coalesce(attempts.c.read_at, desk.now)
    db.execute(update(attempts).where(attempts.c.id == attempt.id).values(read_at=first))
    case.let_go(desk.now + SECOND_READ)
    return None


def _settle(db: Connection, desk: Desk, outcomes: list[tuple[Case, Any, Outcome]]) -> list[Held]:
    """Record outcomes, and decide what comes next."""
    if not outcomes:
        return []
    answers = {attempt.id: _as_attempt(outcome) for _, attempt, outcome in outcomes}
    db.execute(ANSWER, as_rows(attempts, [{**UNTOLD, "id": number, **told} for number, told in answers.items()]))
    for case, attempt, outcome in outcomes:
        if isinstance(outcome, Paid):
            case.change(ended="paid")
        case.note(desk.now, "charged", {"attempt": attempt.number, **answers[attempt.id]})
    steps = decide(db, [case for case, _, _ in outcomes], desk.policy, desk.now)
    more: list[Held] = []
    for case, _, outcome in outcomes:
        if (pause := _pause(db, case, outcome)) is not None:
            case.let_go(desk.now + pause)
        else:
            more += due(case, steps[case.id], desk.now)
    return more


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


def _pause(db: Connection, case: Case, outcome: Outcome) -> timedelta | None:
    """A refusal of the network or the provider uses no attempt: the same step comes again in minutes to hours."""
    if isinstance(outcome, Unknown | Processing):
        return ASK_AGAIN
    if not isinstance(outcome, NotNow):
        return None
    failed = attempts.c.case_id == case.id, attempts.c.state == "not_executed"
    times = db.execute(select(func.count()).select_from(attempts).where(*failed)).scalar_one()
    return timedelta(minutes=min(2**times, 1440))


# The statements, built once: building one takes longer than running it.

WRITTEN = (
    "case_id",
    "payment_id",
    "state",
    "at",
    "card",
    "fingerprint",
    "amount_minor",
    "currency",
    "decline",
    "by_updater",
    "charge_before",
    "model",
    "propensity",
    "waited",
    "pay_with",
)
UNTOLD = dict.fromkeys(("decline", "charge_id", "error"))  # by an answer: what was there before stays


def _write_down() -> Any:
    told, tried = given(*(attempts.c[name] for name in WRITTEN)), attempts.alias()
    mine = tried.c.case_id == told.c.case_id
    number = select(func.coalesce(func.max(tried.c.number), 0) + 1).where(mine, tried.c.state != "not_executed")
    requests = select(func.count() + 1).select_from(tried).where(mine)
    more = {
        "number": number.scalar_subquery(),
        "idempotency_key": new_key(told.c.payment_id, requests.correlate(told).scalar_subquery()),
        "settled_at": when((told.c.state == "observed", MACHINE_NOW), else_=null()),
    }
    rows = select(*told.c, *more.values())
    return attempts.insert().from_select([*WRITTEN, *more], rows).returning(attempts)


def _answer() -> Any:
    told = given(*(attempts.c[name] for name in ("id", "state", *UNTOLD)))
    values = {name: func.coalesce(told.c[name], attempts.c[name]) for name in UNTOLD}
    settled = when((told.c.state.in_(UNRESOLVED), null()), else_=MACHINE_NOW)
    return update(attempts).where(attempts.c.id == told.c.id).values(state=told.c.state, settled_at=settled, **values)


WRITE_DOWN, ANSWER = _write_down(), _answer()
OPEN_ATTEMPTS = select(attempts, (MACHINE_NOW - attempts.c.sent_at).label("age")).where(
    attempts.c.case_id == THESE, attempts.c.state.in_(UNRESOLVED)
)
