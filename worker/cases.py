"""What does a transaction hold of a case, and how is that written down? Rows under lock, and one way to save them.

Every function works inside the caller's short transaction on one connection. What changes of any number of cases is
one statement, and what their histories tell is another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Interval,
    Row,
    Text,
    bindparam,
    cast,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy import case as when

from worker.bulk import ENCODER, THESE, as_rows, given, insert_all, these
from worker.models import MACHINE_NOW, UNRESOLVED, attempts, cases, history

CHANGING = (
    "id",
    "amount_minor",
    "decline",
    "failed_card",
    "time_zone",
    "locale",
    "card",
    "method_id",
    "pay_with",
    "methods_seen",
    "retried_elsewhere",
    "intent_id",
    "card_entered_at",
    "refreshed_at",
    "news",
    "news_read",
    "charge_id",
    "failed_charge_id",
    "ended",
    "paused",
    "state",
    "due_at",
    "step",
    "lease_token",
    "claims",
    "quarantined_at",
    "asked_at",
    "decline_class",
    "recovered_by",
    "closed_at",
)


COLUMNS, AS_IT_IS = tuple(cases.c.keys()), attrgetter(*CHANGING)


class LeaseLost(Exception):
    """Another worker owns the case: this one writes nothing more."""


class Case:
    """One case as its transaction has it: a locked row, and what is changed of it and told of it until it is saved.

    Its attributes are the columns, with what was changed.
    """

    def __init__(self, row: Row[Any]) -> None:
        self.__dict__ = dict(zip(COLUMNS, row, strict=True))
        self.before: tuple[Any, ...] = AS_IT_IS(self)
        self.lines: list[dict[str, Any]] = []

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def change(self, **values: Any) -> None:
        """Change columns; nothing is written before ``save``."""
        self.__dict__.update(values)

    def note(self, at: datetime, what: str, detail: dict[str, Any]) -> None:
        """Append one line to its history."""
        self.lines.append({"case_id": self.id, "at": at, "what": what, "detail": detail})

    def let_go(self, until: datetime | None = None) -> None:
        """Give it back: it is looked at again at ``until``, or else as it is planned."""
        self.change(lease_token=None, claims=0, due_at=until or self.due_at)


def save(db: Connection, held: Iterable[Case], lease_seconds: float | None = None) -> None:
    """Write down what was changed and told; with ``lease_seconds`` the lease of what stays leased begins anew."""
    found = list(held)
    after = [AS_IT_IS(each) for each in found if AS_IT_IS(each) != each.before]
    if after:
        rows = [dict(zip(CHANGING, each, strict=True)) for each in after]
        lasts = None if lease_seconds is None else timedelta(seconds=lease_seconds)
        db.execute(SAVE, {**as_rows(cases, rows), "lasts": lasts})
    lines = [line for each in found for line in each.lines]
    if lines:
        db.execute(LINES, as_rows(history, lines))
    for each in found:
        each.lines.clear()


def lock(db: Connection, case_id: int, token: UUID | None = None) -> Case:
    """Return the case, locked until the transaction ends; with a token only while that lease is held.

    Raises ``LeaseLost`` when another worker owns the case by now.
    """
    row = db.execute(LOCK, these([case_id])).one()
    if token is not None and row.lease_token != token:
        raise LeaseLost(case_id)
    return Case(row)


def lock_held(db: Connection, tokens: Mapping[int, UUID]) -> dict[int, Case]:
    """Return those of these cases whose leases are held still, by their numbers, locked until the transaction ends."""
    found = db.execute(LOCK, these(tokens)).all()
    return {row.id: Case(row) for row in found if row.lease_token == tokens[row.id]}


def take_over(db: Connection, hints: Mapping[int, UUID], lease_seconds: float) -> list[Case]:
    """Exchange the tokens of hints for ones of our own; return the cases, locked, but those of used or old hints.

    A case that was taken before and never given back may have ended its worker: it is taken by itself only.
    """
    told = [{"id": case_id, "lease_token": hints[case_id]} for case_id in sorted(hints)]
    how = {"lasts": timedelta(seconds=lease_seconds), "alone": len(hints) == 1}
    return [Case(row) for row in db.execute(TAKE_OVER, {**as_rows(cases, told), **how}).all()]


def under_way(db: Connection, case_ids: Iterable[int]) -> set[int]:
    """Return which of these cases have an attempt whose outcome is not known yet."""
    return set(db.execute(UNDER_WAY, these(case_ids)).scalars())


def one_at_a_time(db: Connection, shared: Iterable[str]) -> None:
    """Keep other cases of the same cards or customer out: two never both take the last of a budget or a cool-down."""
    db.execute(KEEP_OUT, {"shared": ENCODER.encode(list(shared)).decode()})


def record(db: Connection, case_id: int, at: datetime, what: str, detail: dict[str, Any]) -> None:
    """Append one line to the history of a case."""
    db.execute(LINE, {"case_id": case_id, "at": at, "what": what, "detail": detail})


# The statements, built once: building one takes longer than running it.
LASTS = cast(bindparam("lasts", type_=Interval), Interval)
LOCK = select(cases).where(cases.c.id == THESE).order_by(cases.c.id).with_for_update()
UNDER_WAY = select(attempts.c.case_id).where(attempts.c.case_id == THESE, attempts.c.state.in_(UNRESOLVED))
LINE, LINES = insert(history), insert_all(history, ("case_id", "at", "what", "detail"))


def _save() -> Any:
    told = given(*(cases.c[name] for name in CHANGING))
    renewed = func.coalesce(MACHINE_NOW + LASTS, cases.c.lease_until)
    lease_until = when((told.c.lease_token.is_(None), null()), else_=renewed)
    values = {name: told.c[name] for name in CHANGING[1:]}
    return update(cases).where(cases.c.id == told.c.id).values(**values, lease_until=lease_until)


def _take_over() -> Any:
    hint = given(cases.c.id, cases.c.lease_token)
    sound = or_(cases.c.claims == 0, bindparam("alone", type_=Boolean))
    ours = cases.c.id == hint.c.id, cases.c.lease_token == hint.c.lease_token, sound
    lease = {"lease_token": func.gen_random_uuid(), "lease_until": MACHINE_NOW + LASTS, "claims": cases.c.claims + 1}
    return update(cases).where(*ours).values(**lease).returning(cases)


def _keep_out() -> Any:
    """In one order, so that two who share several never wait for each other."""
    shared = func.json_array_elements_text(cast(bindparam("shared", type_=Text), JSON)).column_valued("shared")
    doors = select(func.hashtextextended(shared, 0).label("door")).distinct().order_by("door").subquery()
    return select(func.pg_advisory_xact_lock(doors.c.door))


SAVE, TAKE_OVER, KEEP_OUT = _save(), _take_over(), _keep_out()
