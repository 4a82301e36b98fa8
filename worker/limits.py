"""How often may the provider be asked? A pace for each endpoint and one circuit breaker, shared by all processes.

Both are rows of one table, on PostgreSQL's clock: nothing leaves before the ``next_at`` of its endpoint, and nothing at
all before that of the row ``circuit`` while it is open. The table is not logged: a crash of PostgreSQL empties it,
and the rows come back with the next requests.

Where requests wait for each other anyway, a process takes the slots of the next tenth of a second at once.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from threading import Lock
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Interval,
    Row,
    Text,
    bindparam,
    case,
    extract,
    func,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.models import MACHINE_NOW, limits
from worker.settings import LONGEST_WAIT
from worker.stripe_gateway import Unavailable

CIRCUIT = "circuit"
MOST_FAILURES = 5  # in a row: no answer, or one of the provider's own failing
BREAKS = (30, 60, 120, 240, 300)  # seconds: after the fifth failure, the sixth, and so on
PROBE = timedelta(seconds=60)  # outlasts one request; if its process dies, another one tries
PENALTY = timedelta(seconds=1)  # what each 429 costs its endpoint
AHEAD = 0.1  # seconds


class _Slots:
    """What a process has reserved of one endpoint: instants of its own monotonic clock, for one request each."""

    def __init__(self) -> None:
        self.door = Lock()
        self.ahead = deque[float]()
        self.size = 1  # of what is reserved next
        self.failures = 0

    def forget(self) -> None:
        """Reserve anew for the next request: the provider is not as it was."""
        with self.door:
            self.ahead.clear()
            self.size = 1


class Limits:
    """Says when a request may leave. Any number of them on one database keep one pace together."""

    def __init__(self, engine: Engine, per_second: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._engine, self._pace, self._sleep = engine, 1 / per_second, sleep
        self._alone = engine.execution_options(isolation_level="AUTOCOMMIT")  # a statement is all of its transaction
        self._most = max(int(AHEAD * per_second), 1)
        self._slots = defaultdict[str, _Slots](_Slots)

    def wait(self, endpoint: str) -> int:
        """Sleep until a request may leave; return how many had failed in a row. Raises ``Unavailable``: do not send."""
        slots = self._slots[endpoint]
        with slots.door:
            while slots.ahead and slots.ahead[0] < time.monotonic():
                slots.ahead.popleft()  # nobody came in time; two that leave later leave at the same pace
                slots.size = 1
            if not slots.ahead:
                self._reserve(endpoint, slots)
            at, failures = slots.ahead.popleft(), slots.failures
        self._sleep(max(at - time.monotonic(), 0.0))
        return failures

    def _reserve(self, endpoint: str, slots: _Slots) -> None:
        """Take the next slots; whoever has to wait for the first of them takes twice as many the next time."""
        about = {"endpoint": endpoint, "pace": timedelta(seconds=slots.size * self._pace)}
        with self._alone.connect() as db:
            turn = db.execute(SLOT_WHILE_CLOSED, about).one_or_none()
        number = slots.size if turn else 1
        turn = turn or self._probe({**about, "pace": timedelta(seconds=self._pace)})
        slots.failures, seconds = int(turn.failures), max(float(turn.seconds), 0.0)
        begin = time.monotonic() + seconds
        slots.ahead.extend(begin + each * self._pace for each in range(number))
        slots.size = min(2 * number, self._most) if seconds else 1

    def _probe(self, about: dict[str, Any]) -> Row[Any]:
        """Return a slot to whom the first look gave none: the circuit may have closed, or be ours to probe."""
        with self._engine.begin() as db:  # what is refused is rolled back, a slot or a probe with it
            turn = db.execute(SLOT, about).one_or_none()
            if turn is None:
                msg = f"rate limit: no turn for {about['endpoint']} within {LONGEST_WAIT:g} s"
                raise Unavailable(msg)
            if turn.failures >= MOST_FAILURES and not db.execute(TAKE_PROBE).rowcount:
                msg = "the provider is down: nothing is sent for now"
                raise Unavailable(msg)
        return turn

    def heard(self, endpoint: str, status: int | None, failures: int) -> None:
        """Take note of an answer, or of none; ``failures`` is what ``wait`` returned before the request."""
        if status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._note(FAILED)
        elif failures:
            self._note(ANSWERED)
        elif status != HTTPStatus.TOO_MANY_REQUESTS:
            return
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self._note(SLOWER, endpoint=endpoint)
        for slots in list(self._slots.values()):
            slots.forget()

    def _note(self, statement: Executable, **about: str) -> None:
        with self._alone.connect() as db:
            db.execute(statement, about)


def circuit(db: Connection) -> dict[str, Any]:
    """Return whether the provider is asked: ``state``, ``since`` when (none: always closed), ``failures`` in a row."""
    probing = (limits.c.probe_until > MACHINE_NOW).label("probing")
    row = db.execute(select(limits.c.failures, limits.c.since, probing).where(limits.c.name == CIRCUIT)).one_or_none()
    if row is None:
        return {"state": "closed", "since": None, "failures": 0}
    state = "closed" if row.failures < MOST_FAILURES else "probing" if row.probing else "open"
    return {"state": state, "since": row.since and row.since.isoformat(), "failures": row.failures}


# The statements, built once: building one takes longer than running it.

ENDPOINT, PACE = bindparam("endpoint", type_=Text), bindparam("pace", type_=Interval)
OTHER = limits.alias()
FAILURES = func.coalesce(select(OTHER.c.failures).where(OTHER.c.name == CIRCUIT).scalar_subquery(), 0)


def _slot(which: ColumnElement[bool]) -> Executable:
    """Reserve the endpoint's next slot, unless it is too far away: no row. Tells the seconds until it."""
    taken = func.greatest(limits.c.next_at, MACHINE_NOW) + PACE
    insert = upsert(limits).from_select(["name", "next_at"], select(ENDPOINT, MACHINE_NOW + PACE).where(which))
    near = limits.c.next_at <= MACHINE_NOW + timedelta(seconds=LONGEST_WAIT)
    return insert.on_conflict_do_update(index_elements=["name"], set_={"next_at": taken}, where=near).returning(
        extract("epoch", limits.c.next_at - PACE - MACHINE_NOW).label("seconds"),
        FAILURES.label("failures"),
    )


def _slower() -> Executable:
    later = func.greatest(limits.c.next_at, MACHINE_NOW) + PENALTY
    return update(limits).where(limits.c.name == ENDPOINT).values(next_at=later)


def _failed() -> Executable:
    """Count a failure; from the fifth on nothing leaves for 30 s, then 60, up to five minutes.

    While it is open no failure counts: those are of requests that had left before.
    """
    count = limits.c.failures + 1
    steps = [(count == MOST_FAILURES + number, timedelta(seconds=each)) for number, each in enumerate(BREAKS)]
    pause = case((count < MOST_FAILURES, timedelta()), *steps, else_=timedelta(seconds=BREAKS[-1]))
    values = {
        "failures": count,
        "next_at": MACHINE_NOW + pause,
        "since": case((count == MOST_FAILURES, MACHINE_NOW), else_=limits.c.since),
        "probe_until": null(),
    }
    insert = upsert(limits).values(name=CIRCUIT, next_at=MACHINE_NOW, failures=1)
    return insert.on_conflict_do_update(index_elements=["name"], set_=values, where=limits.c.next_at <= MACHINE_NOW)


def _answered() -> Executable:
    since = case((limits.c.failures >= MOST_FAILURES, MACHINE_NOW), else_=limits.c.since)
    closed = {"failures": 0, "next_at": MACHINE_NOW, "since": since}
    return update(limits).where(limits.c.name == CIRCUIT).values(**closed)


def _take_probe() -> Executable:
    """Take the right to ask whether the provider is back; nobody else has it for a minute."""
    nobody = or_(limits.c.probe_until.is_(None), limits.c.probe_until <= MACHINE_NOW)
    over = limits.c.name == CIRCUIT, limits.c.next_at <= MACHINE_NOW, nobody
    return update(limits).where(*over).values(probe_until=MACHINE_NOW + PROBE)


SLOT, SLOT_WHILE_CLOSED = _slot(true()), _slot(FAILURES < MOST_FAILURES)
SLOWER, FAILED, ANSWERED, TAKE_PROBE = _slower(), _failed(), _answered(), _take_probe()
