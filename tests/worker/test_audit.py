"""Does the audit see each thing that must not be, and stay silent about everything that may?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from schedules import Policy
from schedules.budgets import Limit
from tests.worker.bench import Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    HOUR,
    MINUTE,
    START,
    add_attempt,
    add_case,
    add_notice,
    everything,
    one,
    opened,
    sql,
)
from tests.worker.builders import event as an_event
from worker import audit, inbox
from worker.cases import record
from worker.models import metadata

POLICY = replace(Policy.default(), budgets={"mastercard": (Limit(2, 24),)})
NOW = START + 10 * DAY
Break = Callable[[Engine], None]

DECLINED: dict[str, Any] = {"state": "declined", "settled_at": START}
PAID: dict[str, Any] = {"state": "succeeded", "settled_at": START}
ON_CARD: dict[str, Any] = {"card": asdict(CARD), "fingerprint": CARD.fingerprint}
# The machine's clock is far ahead of the practised day: what is old by it has to be made young.
YOUNG = "UPDATE {} SET {} = clock_timestamp()"


def broken(engine: Engine) -> list[str]:
    """Return the statements that are contradicted."""
    return [each.statement for each in audit.examine(engine, POLICY, NOW) if not each.ok]


def without(engine: Engine, *guards: str) -> None:
    """Take guards of the database away: only then can it hold what it must not."""
    for guard in guards:
        table = guard.removeprefix("uq_").removeprefix("ck_").split("_")[0]
        kind = f"DROP INDEX {guard}" if guard.startswith("uq_") else f"ALTER TABLE {table} DROP CONSTRAINT {guard}"
        sql(engine, kind)


def recovered(engine: Engine, **changes: Any) -> int:
    """Store a case that has recovered."""
    closed = {"state": "recovered", "closed_at": START + DAY, "due_at": None, "recovered_by": "silent_retry"}
    return add_case(engine, **{**closed, **changes})


def waiting(engine: Engine, **changes: Any) -> int:
    """Store an open case that is not due yet."""
    return add_case(engine, **{"due_at": NOW + DAY, **changes})


def keep(engine: Engine, *events: dict[str, Any]) -> None:
    """Keep events, unhandled."""
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(each) for each in events])


def two_successes(engine: Engine) -> None:
    """The provider was paid twice."""
    case_id = recovered(engine)
    for number in (1, 2):
        add_attempt(engine, case_id, number=number, idempotency_key=f"k{number}", **PAID)


def two_unresolved(engine: Engine) -> None:
    """Two requests of one invoice at once."""
    case_id = waiting(engine)
    for number in (1, 2):
        add_attempt(engine, case_id, number=number, idempotency_key=f"k{number}")
    sql(engine, YOUNG.format("attempts", "sent_at"))


def no_next_step(engine: Engine) -> None:
    """An open case that nobody will look at."""
    waiting(engine, due_at=None)


def old_unknown(engine: Engine) -> None:
    """An outcome that nobody found out in more than a day."""
    add_attempt(engine, waiting(engine), state="unknown")
    sql(engine, "UPDATE attempts SET sent_at = clock_timestamp() - interval '27 hours'")


def left_lying(engine: Engine) -> None:
    """A case whose lease ran out two hours ago, and which nobody has claimed since."""
    add_case(engine, due_at=NOW - 2 * HOUR)
    sql(engine, "UPDATE cases SET lease_token = gen_random_uuid(), lease_until = clock_timestamp() - interval '2 h'")


def set_aside(engine: Engine) -> None:
    """A case that ended three workers."""
    add_case(engine, due_at=START, quarantined_at=START)


def after_the_end(engine: Engine) -> None:
    """A charge on a case that had ended the day before."""
    add_attempt(engine, recovered(engine), at=START + 2 * DAY, **DECLINED)


def paid_and_open(engine: Engine) -> None:
    """A success that changed nothing."""
    add_attempt(engine, waiting(engine), **PAID)


def ended_in_doubt(engine: Engine) -> None:
    """A case that ended while a request was under way."""
    add_attempt(engine, recovered(engine))
    sql(engine, YOUNG.format("attempts", "sent_at"))


def a_gap(engine: Engine) -> None:
    """The first attempt is not there any more."""
    add_attempt(engine, waiting(engine), number=2, **DECLINED)


def a_lost_key(engine: Engine) -> None:
    """The provider tells of a charge of ours that is not there."""
    installed = one(engine, "SELECT id FROM install")
    key = {"id": "req_1", "idempotency_key": f"dunning-{installed}-in_1-1"}
    keep(engine, an_event(kind="invoice.updated", request=key))


def an_old_event(engine: Engine) -> None:
    """Nobody handles events."""
    keep(engine, an_event())
    sql(engine, "UPDATE events SET received_at = clock_timestamp() - interval '25 hours'")


def a_bad_event(engine: Engine) -> None:
    """Its handling failed five times."""
    keep(engine, an_event())
    sql(engine, "UPDATE events SET tries = 5, received_at = clock_timestamp()")


def an_old_message(engine: Engine) -> None:
    """Nobody delivers messages."""
    add_notice(engine, waiting(engine), at=NOW - 25 * HOUR, due_at=NOW - 25 * HOUR)


def a_dead_message(engine: Engine) -> None:
    """Nobody took it, and nobody tries it again."""
    add_notice(engine, waiting(engine), at=NOW - DAY, due_at=None, tries=15, error="the endpoint answered 500")


def told_twice(engine: Engine) -> None:
    """Two messages to one customer a day apart."""
    for number in (1, 2):
        case_id = waiting(engine, payment_id=f"in_{number}")
        add_notice(engine, case_id, at=START + number * DAY, due_at=None, delivered_at=START + number * DAY)


def no_reason(engine: Engine) -> None:
    """A charge of which only the refusal is known."""
    with engine.begin() as db:
        step = {"step": "charge", "reasons": ["class: retry_later", "evidence: code insufficient_funds"]}
        record(db, waiting(engine), NOW, "planned", step)


def beyond_budget(engine: Engine) -> None:
    """Three charges of one card within a day, over two cases."""
    for number in range(3):
        case_id = waiting(engine, payment_id=f"in_{number}")
        at = NOW - DAY + number * HOUR
        add_attempt(
            engine, case_id, payment_id=f"in_{number}", idempotency_key=f"k{number}", at=at, **ON_CARD, **DECLINED
        )


BREAKS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "No payment was charged successfully twice.": (two_successes, ("uq_attempts_success",)),
    "Of each payment at most one attempt waits for its outcome.": (two_unresolved, ("uq_attempts_unresolved",)),
    "Every open case has an instant at which it is looked at.": (no_next_step, ("ck_cases_open_has_a_next_step",)),
    "No outcome stays unknown for longer than a key lives and two readings take; a bank debit may take 30 days.": (
        old_unknown,
        (),
    ),
    "No case that is due is left lying for an hour, leased or not.": (left_lying, ()),
    "No case is set aside because it ended its workers.": (set_aside, ()),
    "No charge was begun after its case had ended.": (after_the_end, ()),
    "A case with a successful attempt has recovered, and an ended one waits for no outcome.": (paid_and_open, ()),
    "The attempts of a case are numbered from 1 on without a gap.": (a_gap, ()),
    "Every charge of ours that an event names has its attempt.": (a_lost_key, ()),
    "No event waits for more than a day.": (an_old_event, ()),
    "No event was given up.": (a_bad_event, ()),
    "No message is overdue by a day.": (an_old_message, ()),
    "No message of the last 30 days was given up.": (a_dead_message, ()),
    "No customer was told anything twice within the cool-down.": (told_twice, ()),
    "Every step planned in the last 30 days tells why then: by a rule, and not by the refusal alone.": (no_reason, ()),
    "No card was charged beyond its network's budget in the last 30 days.": (beyond_budget, ()),
}


@pytest.fixture
def unguarded(engine: Engine) -> Any:
    """Return an engine whose guards may be taken away: they stand again afterwards."""
    yield engine
    with engine.begin() as db:
        for table in reversed(metadata.sorted_tables):
            db.execute(table.delete())
        for name, constraint in GUARDS.items():
            held = (
                "SELECT 1 FROM pg_class WHERE relname = :name UNION SELECT 1 FROM pg_constraint WHERE conname = :name"
            )
            if db.execute(text(held), {"name": name}).first() is None:
                db.execute(text(constraint))


GUARDS = {
    "uq_attempts_success": "CREATE UNIQUE INDEX uq_attempts_success ON attempts (payment_id) WHERE state = 'succeeded'",
    "uq_attempts_unresolved": "CREATE UNIQUE INDEX uq_attempts_unresolved ON attempts (payment_id)"
    " WHERE state IN ('sent', 'unknown', 'processing')",
    "ck_cases_open_has_a_next_step": "ALTER TABLE cases ADD CONSTRAINT ck_cases_open_has_a_next_step"
    " CHECK (closed_at IS NOT NULL OR due_at IS NOT NULL)",
}


@pytest.mark.parametrize("statement", BREAKS)
def test_each_statement_sees_what_contradicts_it_and_no_other_does(unguarded: Engine, statement: str) -> None:
    """One wrong, one finding, with rows that name it and with what to do."""
    wrong, guards = BREAKS[statement]
    without(unguarded, *guards)
    wrong(unguarded)
    [found] = [each for each in audit.examine(unguarded, POLICY, NOW) if not each.ok]
    assert (found.statement, bool(found.advice)) == (statement, True)
    assert all(isinstance(row, dict) and row for row in found.rows)


def test_a_case_that_ended_in_doubt_is_seen(engine: Engine) -> None:
    """The other half of its statement."""
    ended_in_doubt(engine)
    assert broken(engine) == ["A case with a successful attempt has recovered, and an ended one waits for no outcome."]


def test_every_statement_is_tried() -> None:
    """And the last one is no query."""
    assert {each.sentence for each in audit.STATEMENTS} < set(BREAKS)
    assert len(BREAKS) == len(audit.STATEMENTS) + 1


def test_no_more_rows_are_shown_than_a_person_reads(engine: Engine) -> None:
    """Of thirty cases that are left lying, the first twenty."""
    for number in range(30):
        add_case(engine, payment_id=f"in_{number}")
    [found] = [each for each in audit.examine(engine, POLICY, NOW) if not each.ok]
    assert len(found.rows) == audit.MOST_ROWS


def test_what_may_be_contradicts_nothing(engine: Engine) -> None:
    """A debit under way for days, a charge of others after the end, a merged notice, a fresh lease, spent budgets."""
    debit = waiting(engine)
    add_attempt(engine, debit, state="processing")
    sql(engine, "UPDATE attempts SET sent_at = clock_timestamp() - interval '5 days'")
    ended = recovered(engine, payment_id="in_2")
    add_attempt(engine, ended, payment_id="in_2", idempotency_key="k2", **PAID)
    foreign = {"state": "foreign", "settled_at": START, "at": START + 2 * DAY, "number": 2, "idempotency_key": "ch_1"}
    add_attempt(engine, ended, payment_id="in_2", **foreign)
    add_attempt(engine, None, payment_id="pi_1", **{**foreign, "number": 1, "idempotency_key": "ch_2"})
    message = add_notice(engine, ended, at=START, due_at=None, delivered_at=START)
    add_notice(engine, debit, at=START + HOUR, due_at=None, merged_into=message)
    cooled = START + timedelta(hours=POLICY.cooldown_hours)
    add_notice(engine, debit, name="second", at=cooled, due_at=None)
    add_case(engine, payment_id="in_3", due_at=NOW - MINUTE)
    for number, at in enumerate((NOW - DAY, NOW - HOUR, NOW)):
        add_attempt(
            engine,
            debit,
            number=number + 2,
            payment_id="in_1",
            idempotency_key=f"b{number}",
            at=at,
            **ON_CARD,
            **DECLINED,
        )
    assert broken(engine) == []


def test_a_renewal_counts_for_the_budget_of_its_own_case(engine: Engine) -> None:
    """Two charges are allowed within a day: the one that failed is the first of them."""
    failed = {"failed_at": NOW - 3 * HOUR, "failed_card": asdict(CARD)}
    case_id = waiting(engine, **failed)
    for number in (1, 2):
        at = NOW - 3 * HOUR + number * HOUR
        add_attempt(engine, case_id, number=number, idempotency_key=f"k{number}", at=at, **ON_CARD, **DECLINED)
    [found] = [each for each in audit.examine(engine, POLICY, NOW) if not each.ok]
    assert [(row["number"], row["payment_id"]) for row in found.rows] == [(2, "in_1")]


def test_a_life_of_refusals_contradicts_nothing(serve: Serve) -> None:
    """From the failure over five refusals to the recovery, looked at after every step."""
    bench = serve(Scripted(declines=[FUNDS] * 3))
    opened(bench.engine)
    while one(bench.engine, "SELECT closed_at FROM cases") is None:
        now = bench.go_on()
        sql(bench.engine, "UPDATE outbox SET due_at = NULL, delivered_at = at")
        found = audit.examine(bench.engine, bench.policy, now)
        assert [each.statement for each in found if not each.ok] == []


def test_the_audit_changes_nothing_and_leaves_a_connection_that_can_write(engine: Engine) -> None:
    """Its transaction is read-only, and gives its connection back as it was."""
    add_case(engine, due_at=NOW)
    before = everything(engine)
    audit.examine(engine, POLICY, NOW)
    assert everything(engine) == before
    assert add_case(engine, payment_id="in_2") == 2
