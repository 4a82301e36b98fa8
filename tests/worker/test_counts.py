"""How much does each piece of work ask of the database and of the provider? Counts, which no slow machine changes.

A change that needs more than ``MOST`` fails here; one that needs less lowers the number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import le
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy import event as happening

from benchmarks.waiting import multiply
from schedules import Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    START,
    case_row,
    event,
    invoice,
    one,
    opened,
    payment,
    sql,
    the_attempts,
    the_case,
)
from worker import charging, inbox, sweep
from worker.leases import claim_due
from worker.limits import Limits
from worker.models import cases

# Upper bounds: statements, and transactions that end with a commit; those of the pace of the provider need none.
MOST = {
    "take in 100 failures": (6, 1),  # which are known, a savepoint, cases, their histories, events
    "keep 100 events": (1, 1),
    "drain 100 failures": (7, 2),  # find, a savepoint, cases, their histories, events; find none
    "handle an event": (10, 3),  # find, a savepoint, case, its facts in two, its news, event; find none
    "tick, nothing due": (1, 0),  # is there an event, a case, a message, or a restore
    "tick, 100 due": (3, 1),  # the same, what is held already, and the claim
    "attempts, approved": (18, 3),  # take, stops; decide, write down; settle, decide, close
    "attempts, declined": (18, 3),  # the same, and planned anew instead of closed
}
CALLS = 2  # requests of one attempt, each at the price of a statement: invoice, payment; its intent was read before


@dataclass
class Counted:
    """What was asked of the database since the counting began."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0

    def require(self, work: str) -> None:
        """Fail, telling each statement, when that is more than the work may need."""
        told = len(self.statements), self.commits
        assert all(map(le, told, MOST[work])), "\n".join((f"{work}: {told}", *self.statements))


@contextmanager
def counted(engine: Engine) -> Iterator[Counted]:
    """Count what an engine executes and commits; of a statement with many rows of values each one counts."""
    found = Counted()

    def execute(_db: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        found.statements += [statement] * (len(values) if many else 1)

    def commit(_db: Any) -> None:
        found.commits += 1

    listeners: dict[str, Callable[..., None]] = {"before_cursor_execute": execute, "commit": commit}
    for name, listener in listeners.items():
        happening.listen(engine, name, listener)
    try:
        yield found
    finally:
        for name, listener in listeners.items():
            happening.remove(engine, name, listener)


def failures(number: int, first: int = 1) -> list[inbox.Event]:
    """Return so many events of failed renewals, each of a customer of its own."""
    numbers = range(first, first + number)
    return [
        inbox.parse_event(
            event(f"evt_{n}", subject=invoice(id=f"in_{n}", customer=f"cus_{n}", subscription=f"sub_{n}"))
        )
        for n in numbers
    ]


class Noted(Limits):
    """Paces as always, and remembers which endpoints were asked."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, per_second=1000)
        self.asked: list[str] = []

    def wait(self, endpoint: str) -> int:
        """Note the request."""
        self.asked.append(endpoint)
        return super().wait(endpoint)


def test_failures_are_taken_in_by_the_batch(engine: Engine) -> None:
    """A hundred events and their cases cost as many statements as one does."""
    for number, first in ((1, 1), (100, 1001)):
        with counted(engine) as found, engine.begin() as db:
            assert len(inbox.take_in(db, failures(number, first), Policy.default(), START)) == number
        found.require("take in 100 failures")


def test_events_are_kept_by_the_batch(engine: Engine) -> None:
    """A hundred rows are one statement."""
    with counted(engine) as found, engine.begin() as db:
        assert len(inbox.keep(db, failures(100))) == 100
    found.require("keep 100 events")


def test_waiting_failures_are_handled_by_the_batch(engine: Engine) -> None:
    """A hundred of them open their cases together."""
    with engine.begin() as db:
        inbox.keep(db, failures(100))
    with counted(engine) as found:
        assert inbox.drain(engine, Policy.default(), START) == 100
    found.require("drain 100 failures")
    assert one(engine, "SELECT count(*) FROM cases") == 100


def test_handling_an_event_takes_few_statements(engine: Engine) -> None:
    """News of an open case: the event, the case, its facts, its plan."""
    opened(engine)
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(event("evt_2", "invoice.updated"))])
    with counted(engine) as found:
        assert inbox.drain(engine, Policy.default(), START) == 1
    found.require("handle an event")


@pytest.mark.parametrize(("due", "work"), [(0, "tick, nothing due"), (100, "tick, 100 due")])
def test_a_tick_claims_all_that_is_due_by_the_batch(serve: Serve, due: int, work: str) -> None:
    """Whether nothing is due or a hundred cases: the statements are the same."""
    street, hints = serve(), list[str]()
    if due:
        with street.engine.begin() as db:
            db.execute(insert(cases), [case_row(payment_id=f"in_{n}") for n in range(due)])
    with counted(street.engine) as found:
        sweep.tick(street.desk(START), lambda task, _row, _token: hints.append(task))
    assert len(hints) == due
    found.require(work)


@pytest.mark.parametrize("answer", ["approved", "declined"])
@pytest.mark.parametrize("number", [1, 30])
def test_attempts_take_few_statements_and_calls(serve: Serve, answer: str, number: int) -> None:
    """From the hints until the answers are written down and what follows is planned: for thirty as many as for one."""
    street = about_to_charge(serve, answer, number)
    noted = street.limiter = Noted(street.engine)
    due = street.claim(street.instant[0])
    desk = street.desk(street.instant[0])
    with counted(street.engine) as found:
        assert charging.work_each(desk, due) == dict.fromkeys(range(1, number + 1), True)
    state = {"approved": "succeeded"}.get(answer, answer)
    assert [each.state for case_id, _ in due for each in the_attempts(street.engine, case_id)] == [state] * number
    assert len(noted.asked) <= CALLS * number, noted.asked
    found.statements = [each for each in found.statements if "INTO limits" not in each]
    found.require(f"attempts, {answer}")


def about_to_charge(serve: Serve, answer: str, number: int) -> Bench:
    """Return a bank where the first charges of so many cases are due, which it will answer so."""
    failed = [payment(each, card=replace(CARD, fingerprint=f"card{each}")) for each in range(1, number + 1)]
    street = serve(Scripted(failed, declines=[FUNDS] * number if answer == "declined" else []))
    for each in failed:
        opened(street.engine, each)
    street.work(START)
    street.instant[0] = max(the_case(street.engine, each).due_at for each in range(1, number + 1))
    return street


WAITING, BACKLOG = 20_000, 50_000
BY = {"ix_cases_due", "ix_events_unhandled", "ix_outbox_due", "pk_cases", "pk_stops"}
READ = 2  # rows of the table for each one that may be under way: found by the index, and again to be leased
MOST_BYTES = 1_140  # at twenty thousand; at a million it is 980, for hash indexes grow by doubling


@pytest.fixture
def backlog(serve: Serve) -> Bench:
    """Give a bank beside many cases that wait as one does that was read and planned, and a few that are due."""
    street = serve()
    street.hear(START)
    street.work(START)
    multiply(street.engine, BACKLOG)
    sql(street.engine, "UPDATE cases SET due_at = :now - id * interval '1 ms' WHERE id > 1 AND id % 20 = 0", now=START)
    vacuum(street.engine)
    return street


def vacuum(engine: Engine) -> None:
    """Have the planner know what there is."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text("VACUUM (ANALYZE) cases"))


def plans(engine: Engine, work: Callable[[], object]) -> list[Node]:
    """Do some work, and return the plan of each of its statements as it runs on what there was before."""
    sent: list[tuple[str, Any]] = []

    def note(_db: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        sent.append((statement, values))

    happening.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        happening.remove(engine, "before_cursor_execute", note)
    sql(engine, "UPDATE cases SET lease_token = NULL, lease_until = NULL WHERE lease_token IS NOT NULL")
    vacuum(engine)
    with engine.connect() as db:  # and nothing is committed
        return [db.exec_driver_sql(EXPLAIN + each, values).scalar_one()[0]["Plan"] for each, values in sent]


EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
Node = dict[str, Any]


def nodes(plan: Node) -> Iterator[Node]:
    """Yield a plan and all that is in it."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def read(plan: Node) -> int:
    """Return how many rows of cases a statement looks at, those that do not fit as well."""
    scans = [each for each in nodes(plan) if each.get("Relation Name") == "cases" and "Scan" in each["Node Type"]]
    rows = (each["Actual Loops"] * (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) for each in scans)
    return int(sum(rows))


def test_the_sweep_reads_what_it_may_claim_and_nothing_else(backlog: Bench) -> None:
    """Its very statements go by the index of what is due, in its order, whatever else waits or is due."""
    desk, hints = backlog.desk(START), list[int]()
    most = int(sweep.A_SECOND * sweep.patience(desk))
    sent = plans(backlog.engine, lambda: sweep.tick(desk, lambda _task, row, _token: hints.append(row)))
    ours = [plan for plan in sent if read(plan)]
    assert len(hints) == most < one(backlog.engine, "SELECT count(*) FROM cases WHERE due_at <= :now", now=START)
    assert len(ours) == 3  # is there any, how many may be claimed, and the claim
    for plan in ours:
        assert {each["Index Name"] for each in nodes(plan) if "Index Name" in each} <= BY
        assert not [each["Node Type"] for each in nodes(plan) if "Sort" in each["Node Type"]]
        assert "Seq Scan" not in {each["Node Type"] for each in nodes(plan) if each.get("Relation Name") == "cases"}
        assert read(plan) <= READ * most


def test_a_look_in_vain_reads_nothing(backlog: Bench) -> None:
    """However many wait."""
    desk = backlog.desk(START - DAY)
    assert sum(map(read, plans(backlog.engine, lambda: sweep.tick(desk, lambda *_: None)))) == 0


def test_a_lease_touches_no_index(backlog: Bench) -> None:
    """A claim costs a version of the row within its page, and nothing in any index."""
    elsewhere = text(
        "SELECT pg_stat_get_xact_tuples_updated(o) - pg_stat_get_xact_tuples_hot_updated(o) FROM oid(:o) o"
    )
    table = {"o": one(backlog.engine, "SELECT CAST(CAST('cases' AS regclass) AS oid)")}
    with backlog.engine.begin() as db:
        before = db.execute(elsewhere, table).scalar_one()
        assert len(claim_due(db, cases, START, 50, 60)) == 50
        assert db.execute(elsewhere, table).scalar_one() == before


def test_a_waiting_case_is_small(serve: Serve) -> None:
    """Its row as the product writes it, with all indexes."""
    street = serve()
    sql(street.engine, "TRUNCATE cases CASCADE")  # of what other tests left behind nothing counts
    street.hear(START)
    street.work(START)
    multiply(street.engine, WAITING)
    assert one(street.engine, "SELECT pg_total_relation_size('cases') / count(*) FROM cases") <= MOST_BYTES
