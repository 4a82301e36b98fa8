"""How does an operator put a case right? By facts that the one decision sees, or by closing it; never by a charge.

A dry run does the same in a transaction that is taken back, so what it tells is what would happen. Each case stands
in a transaction of its own: of two operators at once the second sees what the first has done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, exists, or_, select

from schedules import Charge, Close, Policy, Step
from schedules.steps import as_json
from worker.cases import Case, save, under_way
from worker.endings import close
from worker.facts import known
from worker.logs import about
from worker.models import MACHINE_NOW, OPEN_STATES, UNRESOLVED, attempts, cases
from worker.planning import plan, step_of

NUMBER = re.compile("[0-9]{1,18}")
OVERDUE, UNKNOWN_FOR = timedelta(hours=1), timedelta(days=1)
BUSY = "a worker is at it at this moment: try again in a minute"
SORTS = {
    "due": cases.c.due_at,
    "failed": cases.c.failed_at,
    "amount": cases.c.amount_minor,
    "state": cases.c.state,
    "case": cases.c.id,
}
UNDER_WAY = "the outcome of a charge is not known yet: try again when it is"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which cases are meant. ``due`` is how soon their next step is due; ``stuck`` are those that need a person."""

    state: str | None = None
    decline_class: str | None = None
    customer_id: str | None = None
    account: str | None = None
    segment: str | None = None
    due: timedelta | None = None
    stuck: bool = False

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return self != Filters()

    def conditions(self, now: datetime) -> list[ColumnElement[bool]]:
        """Return what must be true of a case."""
        equal = {
            "state": self.state,
            "decline_class": self.decline_class,
            "customer_id": self.customer_id,
            "account": self.account,
            "segment": self.segment,
        }
        found = [cases.c[name] == value for name, value in equal.items() if value is not None]
        if self.due is not None:
            found.append(cases.c.due_at <= now + self.due)
        return [*found, stuck(now)] if self.stuck else found


def stuck(now: datetime) -> ColumnElement[bool]:
    """Whether a case does not move by itself: set aside, overdue, or with a charge of unknown outcome for a day."""
    mine = attempts.c.case_id == cases.c.id, attempts.c.state.in_(UNRESOLVED)
    unknown = exists().where(*mine, attempts.c.sent_at < MACHINE_NOW - UNKNOWN_FOR)
    aside = and_(cases.c.quarantined_at.is_not(None), cases.c.closed_at.is_(None))
    return or_(aside, cases.c.due_at < now - OVERDUE, unknown)


def named(asked: str) -> ColumnElement[bool]:
    """Return the condition that a case has this number or this payment id."""
    return cases.c.id == int(asked) if NUMBER.fullmatch(asked) else cases.c.payment_id == asked


def listed(filters: Filters, now: datetime, sort: str = "due", *, desc: bool = False) -> Select[Any]:
    """Return the query for the cases that are meant, ended ones too, in the order that ``SORTS`` names."""
    order = SORTS[sort].desc() if desc else SORTS[sort]
    return select(cases).where(*filters.conditions(now)).order_by(order.nulls_last(), cases.c.id)


def matching(db: Connection, filters: Filters, now: datetime) -> list[str]:
    """Return the numbers of the open cases that are meant, the next due first."""
    still = cases.c.state.in_(OPEN_STATES), *filters.conditions(now)
    found = select(cases.c.id).where(*still).order_by(cases.c.due_at, cases.c.id)
    return [str(number) for number in db.execute(found).scalars()]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one wish: ``why`` it was done or not, and what comes next of the case."""

    asked: str
    case_id: int | None
    payment_id: str | None
    done: bool
    why: str
    step: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants, and why; ``dry`` wants to know only. ``by`` is the name under which it is told."""

    name: str
    reason: str
    policy: Policy
    now: datetime
    dry: bool = False
    by: str = "operator"


def carry_out(engine: Engine, wish: Wish, asked: Iterable[str]) -> Iterator[Verdict]:
    """Do what is wanted for each case that is named by number or payment id; tell of each what became of it."""
    for name in asked:
        with engine.connect() as db, db.begin() as transaction:
            verdict = _one(db, wish, name.strip())
            if wish.dry or not verdict.done:
                transaction.rollback()
        yield verdict


def _one(db: Connection, wish: Wish, name: str) -> Verdict:
    row = db.execute(select(cases).where(named(name)).with_for_update()).one_or_none()
    if row is None:
        return Verdict(name, None, None, done=False, why="no such case")
    if row.closed_at is not None:
        return Verdict(name, row.id, row.payment_id, done=False, why=f"it has ended: {row.state}")
    with about(case_id=row.id):
        done, why = ACTS[wish.name](db, Case(row), wish)
    return Verdict(name, row.id, row.payment_id, done=done, why=why, step=step_of(db, row.id))


def _pause(db: Connection, case: Case, wish: Wish) -> tuple[bool, str]:
    if case.paused:
        return False, "it is paused already"
    _decide(db, case, wish, "paused", paused=True)
    return True, "nothing is charged, said or ended until it is resumed"


def _resume(db: Connection, case: Case, wish: Wish) -> tuple[bool, str]:
    if not case.paused:
        return False, "it is not paused"
    return True, _next(_decide(db, case, wish, "resumed", paused=False))


def _retry(db: Connection, case: Case, wish: Wish) -> tuple[bool, str]:
    """Take the case up, and let the decision say whether and when it may be charged."""
    if under_way(db, [case.id]):
        return False, UNDER_WAY
    taken_up = case.quarantined_at is not None
    if taken_up:
        case.change(quarantined_at=None, claims=0)
        case.note(wish.now, "taken_up", {})
    step = _decide(db, case, wish, "asked_for", asked_at=wish.now)
    # A card that was not read since the last refusal is read first; what forbids a charge shows only then.
    if isinstance(step, Charge) or any(why.startswith("refresh:") for why in step.reasons):
        return True, _next(step)
    return taken_up, _next(step) if taken_up else f"no charge is possible: {_ruled_out(step)}"


def _ruled_out(step: Step) -> str:
    told = [
        why
        for why in step.reasons
        if why.startswith(("ruled_out:", "paused:", "one_engine:", "hands_off:", "merchant_fix:"))
    ]
    return "; ".join(why.partition(": ")[2] for why in told) or step.reasons[-1]


def _next(step: Step) -> str:
    told = as_json(step)
    return f"next: {told['step']} at {told['at']}"


def _decide(db: Connection, case: Case, wish: Wish, what: str, **facts: Any) -> Step:
    """Write down a fact and decide anew."""
    case.note(wish.now, what, {"by": wish.by, "reason": wish.reason})
    case.change(**facts)
    return plan(db, case, wish.policy, wish.now)


def _stop(db: Connection, case: Case, wish: Wish) -> tuple[bool, str]:
    return _end(db, case, wish, "lost", f"lost; the ending is {wish.policy.of(case.arm, case.segment).ending}")


def _release(db: Connection, case: Case, wish: Wish) -> tuple[bool, str]:
    return _end(db, case, wish, "released", "released: nobody charges, writes or ends anything any more")


def _end(db: Connection, case: Case, wish: Wish, outcome: str, told: str) -> tuple[bool, str]:
    if under_way(db, [case.id]):
        return False, UNDER_WAY
    held = select(cases.c.lease_until >= MACHINE_NOW).where(cases.c.id == case.id)
    if db.execute(held).scalar():
        return False, BUSY
    step = Close(wish.now, outcome, (f"{wish.name}: by {wish.by}, {wish.reason}",))
    bearing = known(db, [case], wish.now)[case.id]
    close(db, case, bearing, step, wish.policy.of(case.arm, case.segment))
    save(db, [case])
    return True, told


ACTS: dict[str, Callable[[Connection, Case, Wish], tuple[bool, str]]] = {
    "pause": _pause,
    "resume": _resume,
    "stop": _stop,
    "release": _release,
    "retry": _retry,
}
EFFECTS = {
    "pause": "They are not charged, written to or ended until they are resumed; their deadline runs on.",
    "resume": "They go on as if they had not been paused: what is overdue is done at the next open hour.",
    "stop": "They are lost at once, and the policy's ending is carried out: {ending}.",
    "release": "They are handed to a person: nothing is charged, written or ended any more.",
    "retry": "They are charged at the next open hour that the networks' budgets leave, whatever the ladder says.",
}
