"""What does the merchant tell of its customers? Each signal is checked by itself, and kept once by its sender's id.

Who is known neither by a subscription nor by a case is named and not kept: whose signal it is, is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Engine, Row, Text, any_, literal, select, union
from sqlalchemy.dialects.postgresql import distinct_on

from schedules.signals import checked
from worker.bulk import as_rows, insert_all
from worker.models import cases, signals, subscriptions
from worker.personal import CODE

BATCH = 500
AHEAD = timedelta(minutes=5)  # clocks differ
EARLIEST = datetime(2011, 1, 1, tzinfo=UTC)
NEEDED, OPTIONAL = ("id", "customer_id", "kind", "value", "at"), ("account",)
Where = Mapping[str, int]


class BadSignal(ValueError):
    """What is no signal; the message names the field and what was expected."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One number about one customer at one instant, by the id that its sender gave it."""

    id: str
    customer_id: str
    account: str | None
    kind: str
    value: float
    at: datetime


@dataclass(slots=True)
class Counts:
    """What became of signals: how many were new or known, and which were refused, where, and why."""

    new: int = 0
    duplicate: int = 0
    unknown_customers: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, where: Where, reason: str, name: Any = None) -> None:
        """Count one that is not kept, by its place and, where it has one, its id."""
        known = {"id": name} if isinstance(name, str) and CODE.fullmatch(name) else {}
        self.rejected.append({**where, **known, "reason": reason})

    def as_json(self) -> dict[str, Any]:
        """Return it for machines, what was refused in the order in which it came."""
        ordered = sorted(self.rejected, key=lambda one: one.get("line", one.get("index", 0)))
        return {**asdict(self), "rejected": ordered}


def parse(value: Any, now: datetime) -> Signal:
    """Return the signal in a decoded JSON value; raise ``BadSignal``."""
    if not isinstance(value, dict):
        msg = "expected an object"
        raise BadSignal(msg)
    for key in value:
        if key not in (*NEEDED, *OPTIONAL):
            msg = f"{key!r:.40}: unknown field, expected {', '.join(NEEDED)} and perhaps {', '.join(OPTIONAL)}"
            raise BadSignal(msg)
    names = {name: _code(value, name) for name in ("id", "customer_id", "account")}
    try:
        number = checked(value.get("kind"), value.get("value"))
    except ValueError as error:
        raise BadSignal(str(error)) from None
    return Signal(**names, kind=value["kind"], value=number, at=_instant(value.get("at"), now))


def _code(value: dict[str, Any], name: str) -> Any:
    found = value.get(name)
    if found is None and name in OPTIONAL:
        return None
    if not isinstance(found, str) or not CODE.fullmatch(found):
        msg = f"{name}: {'missing' if found is None else 'expected 1 to 255 letters, digits and . : _ -'}"
        raise BadSignal(msg)
    return found


def _instant(text: Any, now: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        msg = "at: expected an instant such as 2026-01-31T12:00:00Z"
        raise BadSignal(msg) from None
    if at.tzinfo is None:
        msg = "at: the instant has no time zone, expected one such as 2026-01-31T12:00:00Z"
        raise BadSignal(msg)
    if not EARLIEST <= at <= now + AHEAD:
        msg = f"at: expected an instant from {EARLIEST.year} on and not in the future"
        raise BadSignal(msg)
    return at.astimezone(UTC)


def take_in(engine: Engine, given: Iterable[tuple[Where, Any]], now: datetime, counts: Counts) -> Iterator[int]:
    """Keep the signals among decoded values, each with its place; yields how many values were looked at.

    They are written in short transactions: what was counted stays, whatever becomes of the rest.
    """
    values, done = iter(given), 0
    while some := list(islice(values, BATCH)):
        found = list(_parsed(some, now, counts))
        with engine.begin() as db:
            keep(db, found, counts)
        done += len(some)
        yield done


def _parsed(some: Iterable[tuple[Where, Any]], now: datetime, counts: Counts) -> Iterator[tuple[Where, Signal]]:
    for where, value in some:
        try:
            yield where, parse(value, now)
        except BadSignal as error:
            counts.refuse(where, str(error), value.get("id") if isinstance(value, dict) else None)


def keep(db: Connection, found: Iterable[tuple[Where, Signal]], counts: Counts) -> None:
    """Store signals whose id is new and whose customer is known; of all others say why not. The caller commits."""
    found = list(found)
    known, first = _known(db, {signal.customer_id for _, signal in found}), dict[str, Signal]()
    told = []
    for where, signal in found:
        if (signal.account, signal.customer_id) in known:
            told.append((where, signal))
            first.setdefault(signal.id, signal)
        else:
            counts.unknown_customers += 1
            counts.refuse(where, f"customer_id: nobody knows {signal.customer_id}{_of(signal.account)}", signal.id)
    new = _insert(db, first)
    stored = {**_stored(db, first.keys() - new), **{name: first[name] for name in new}}
    counts.new += len(new)
    for where, signal in told:
        if stored[signal.id] != signal:
            counts.refuse(where, "id: known already, with another content", signal.id)
        elif signal.id in new:
            new.remove(signal.id)  # its first line is the new one, all others repeat it
        else:
            counts.duplicate += 1


def _of(account: str | None) -> str:
    return f" of account {account}" if account else ""


def _known(db: Connection, customers: set[str]) -> set[tuple[str | None, str]]:
    """Return those of these customers, with their accounts, who have a subscription or a case."""
    tables = (subscriptions, cases)
    shown = [select(t.c.account, t.c.customer_id).where(_among(t.c.customer_id, customers)) for t in tables]
    return {(row.account, row.customer_id) for row in db.execute(union(*shown))}


def _insert(db: Connection, first: Mapping[str, Signal]) -> set[str]:
    """Store signals; return the ids that were new. In one order, so that two senders never deadlock."""
    if not first:
        return set()
    rows = [asdict(first[name]) for name in sorted(first)]
    return set(db.execute(STORE, as_rows(signals, rows)).scalars())


def _stored(db: Connection, ids: Iterable[str]) -> dict[str, Signal]:
    told = [signals.c[each.name] for each in fields(Signal)]
    return {row.id: Signal(*row) for row in db.execute(select(*told).where(_among(signals.c.id, ids)))}


def _among(column: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    return column == any_(literal(list(values), ARRAY(Text)))


def latest(db: Connection, customers: Iterable[str]) -> dict[tuple[str | None, str], dict[str, Row[Any]]]:
    """Return the latest signal of each kind by account and customer; who has none is left out."""
    newest = signals.c.at.desc(), signals.c.received_at.desc(), signals.c.id
    whose = signals.c.account, signals.c.customer_id, signals.c.kind
    theirs = select(signals).where(_among(signals.c.customer_id, customers))
    found = theirs.ext(distinct_on(*whose)).order_by(*whose, *newest)
    told: dict[tuple[str | None, str], dict[str, Row[Any]]] = {}
    for row in db.execute(found):
        told.setdefault((row.account, row.customer_id), {})[row.kind] = row
    return told


STORE = insert_all(signals, [each.name for each in fields(Signal)]).on_conflict_do_nothing().returning(signals.c.id)
