"""Do the tables hold the promises even when the code is wrong, and do migrations build just these tables?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import IntegrityError

from schedules import Card
from tests.worker.builders import (
    CARD,
    FUNDS,
    START,
    add_attempt,
    add_case,
    add_notice,
    one,
    sql,
    the_attempts,
    the_case,
)
from tests.worker.builders import event as an_event
from worker import database, inbox, models
from worker.app import make_engine
from worker.embedded import Servers
from worker.leases import claim_due
from worker.models import metadata

SHAPE = {
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND conrelid <> 0",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
    " FROM information_schema.columns WHERE table_schema = 'public'",
}


@pytest.fixture(scope="module")
def blank(running: Servers) -> Iterator[Engine]:
    """Give an engine on a database of its own."""
    outside = make_engine(running.database_url)
    with outside.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text("CREATE DATABASE blank"))
    outside.dispose()
    url = make_url(running.database_url).set(database="blank")
    engine = make_engine(url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


@pytest.fixture
def empty(blank: Engine) -> Engine:
    """Give an engine on a database with nothing in it."""
    sql(blank, "DROP SCHEMA public CASCADE")
    sql(blank, "CREATE SCHEMA public")
    return blank


def migrate(engine: Engine, down_to: str) -> None:
    """Take migrations back."""
    config = Config()
    config.set_main_option("script_location", str(files("worker").joinpath("migrations")))
    config.set_main_option("path_separator", "os")
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.downgrade(config, down_to)


def shape(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """Return what PostgreSQL knows about the tables, without Alembic's own."""
    found = {name: {tuple(row) for row in sql(engine, query)} for name, query in SHAPE.items()}
    return {name: {row for row in rows if "alembic" not in str(row)} for name, rows in found.items()}


def test_migrations_build_the_tables_of_the_models(empty: Engine) -> None:
    """Alembic finds no difference, and PostgreSQL shows the same columns, constraints and indexes either way."""
    database.upgrade(empty)
    with empty.connect() as db:
        seen = MigrationContext.configure(db, opts={"compare_type": True})
        assert compare_metadata(seen, metadata) == []
    migrated = shape(empty)
    migrate(empty, "base")
    metadata.create_all(empty)
    assert shape(empty) == migrated
    assert len(migrated["constraints"]) > 20


def test_migrations_go_up_down_and_up_again(empty: Engine) -> None:
    """Down to the base leaves nothing but Alembic's table; up again gives the same, with a fresh install row."""
    database.upgrade(empty)
    before, first = shape(empty), one(empty, "SELECT id FROM install")
    migrate(empty, "base")
    assert shape(empty) == {name: set() for name in SHAPE}
    database.upgrade(empty)
    database.upgrade(empty)
    assert shape(empty) == before
    assert one(empty, "SELECT id FROM install") != first
    database.require_current(empty)


def test_renewals_known_before_foreign_charges_keep_their_charge(empty: Engine) -> None:
    """Where we had not charged, the charge last seen was the renewal's; the way back forgets the others' charges."""
    database.upgrade(empty)
    migrate(empty, "0001")
    sql(
        empty,
        "INSERT INTO cases (payment_id, customer_id, amount_minor, currency, failed_at, decline, failed_card, card,"
        " due_at, charge_id) SELECT 'in_' || n, 'cus_1', 1, 'usd', now(), '{}', '{}', '{}', now(), 'ch_' || n"
        " FROM generate_series(1, 2) n",
    )
    sql(
        empty,
        "INSERT INTO attempts (case_id, payment_id, number, idempotency_key, state, at, card, amount_minor, currency)"
        " VALUES (2, 'in_2', 1, 'k1', 'sent', now(), '{}', 1, 'usd')",
    )
    database.upgrade(empty)
    assert [row[0] for row in sql(empty, "SELECT failed_charge_id FROM cases ORDER BY id")] == ["ch_1", None]
    add_attempt(empty, None, state="foreign", settled_at=START, idempotency_key="ch_9")
    migrate(empty, "0001")
    assert one(empty, "SELECT string_agg(state, ',') FROM attempts") == "sent"


def test_rows_from_before_they_were_packed_are_read_as_before(empty: Engine) -> None:
    """Facts keep their names for whoever reads them; the way back stores them as objects again."""
    database.upgrade(empty)
    migrate(empty, "0016")
    given = {"decline": json.dumps(asdict(FUNDS)), "card": json.dumps(asdict(CARD)), "at": START}
    sql(
        empty,
        "INSERT INTO cases (payment_id, customer_id, amount_minor, currency, failed_at, decline, failed_card, card,"
        """ due_at, step) VALUES ('in_1', 'cus_1', 1, 'usd', :at, :decline, '{}', :card, :at,"""
        """ '{"step": "refresh", "at": "2026-01-12T15:00:00Z", "reasons": ["class: funds"]}')""",
        **given,
    )
    sql(
        empty,
        "INSERT INTO attempts (case_id, payment_id, number, idempotency_key, state, at, card, decline, amount_minor,"
        " currency) VALUES (1, 'in_1', 1, 'k1', 'sent', :at, :card, NULL, 1, 'usd'),"
        " (NULL, 'in_2', 1, 'k2', 'sent', :at, :card, 'null', 1, 'usd')",
        at=START,
        card=given["card"],
    )
    database.upgrade(empty)
    row, tried = the_case(empty), [*the_attempts(empty, 1), *the_attempts(empty, None)]
    assert (row.card, row.failed_card, row.decline) == (asdict(CARD), asdict(Card()), asdict(FUNDS))
    assert [(each.card, each.decline) for each in tried] == [(asdict(CARD), None)] * 2
    assert (row.step, row.methods_seen) == ({"step": "refresh", "at": "2026-01-12T15:00:00Z"}, [])
    migrate(empty, "0016")
    assert one(empty, "SELECT decline FROM cases") == asdict(FUNDS)
    assert one(empty, "SELECT card FROM attempts WHERE number = 1 AND case_id = 1") == asdict(CARD)
    assert one(empty, "SELECT count(*) FROM attempts WHERE decline IS NULL") == 2


def test_a_database_without_migrations_is_refused_by_name(empty: Engine) -> None:
    """The message says what is missing and which command mends it."""
    with pytest.raises(database.MigrationMissing, match="dunning db upgrade"):
        database.require_current(empty)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"due_at": None}, "ck_cases_open_has_a_next_step"),
        ({"state": "lost", "closed_at": START}, "ck_cases_ended_never_moves"),
        ({"state": "lost", "due_at": None}, "ck_cases_closed"),
        ({"closed_at": START, "due_at": None}, "ck_cases_closed"),
        ({"state": "resting"}, "ck_cases_state"),
        ({"amount_minor": -1}, "ck_cases_amount"),
        ({"lease_token": "6f1cf0f4-6a35-4a5e-9d27-1c3f5cde0001"}, "ck_cases_lease"),
        ({"lease_until": START}, "ck_cases_lease"),
        ({"payment_id": "in_0"}, "uq_cases_payment_id"),
    ],
)
def test_a_case_that_must_not_exist_is_refused(engine: Engine, changes: dict[str, Any], constraint: str) -> None:
    """The database itself refuses a case without a next step, one that moves after its end, and other nonsense."""
    add_case(engine, payment_id="in_0")
    with pytest.raises(IntegrityError, match=constraint):
        add_case(engine, **changes)
    assert one(engine, "SELECT count(*) FROM cases") == 1


def test_a_closed_case_cannot_hold_a_lease(engine: Engine) -> None:
    """An ended case has no owner."""
    case_id = add_case(engine, state="lost", closed_at=START, due_at=None)
    with pytest.raises(IntegrityError, match="ck_cases_ended_never_moves"):
        sql(engine, "UPDATE cases SET lease_token = gen_random_uuid(), lease_until = now() WHERE id = :id", id=case_id)


@pytest.mark.parametrize(
    ("first", "second", "constraint"),
    [
        ({"state": "unknown"}, {"number": 2}, "uq_attempts_unresolved"),
        ({"state": "processing"}, {"number": 2, "state": "unknown"}, "uq_attempts_unresolved"),
        (
            {"state": "succeeded", "settled_at": START},
            {"number": 2, "state": "succeeded", "settled_at": START},
            "uq_attempts_success",
        ),
        ({"state": "declined", "settled_at": START}, {"idempotency_key": "k1"}, "uq_attempts_idempotency_key"),
        ({"state": "declined", "settled_at": START}, {}, "uq_attempts_number"),
        ({"state": "declined", "settled_at": START}, {"number": 0}, "ck_attempts_number"),
        (
            {"state": "declined", "settled_at": START},
            {"number": 2, "state": "perhaps", "settled_at": START},
            "ck_attempts_state",
        ),
        ({"state": "declined", "settled_at": START}, {"number": 2, "state": "declined"}, "ck_attempts_settled"),
    ],
)
def test_a_second_attempt_that_must_not_exist_is_refused(
    engine: Engine, first: dict[str, Any], second: dict[str, Any], constraint: str
) -> None:
    """One request in flight for an invoice, one success, one use of a key, one attempt of each number."""
    case_id = add_case(engine)
    add_attempt(engine, case_id, **first)
    with pytest.raises(IntegrityError, match=constraint):
        add_attempt(engine, case_id, **{"idempotency_key": "k2", **second})
    assert one(engine, "SELECT count(*) FROM attempts") == 1


def test_the_fences_hold_across_two_cases_of_one_invoice(engine: Engine) -> None:
    """They are about the invoice, not about the row that happens to stand for it."""
    add_attempt(engine, add_case(engine))
    with pytest.raises(IntegrityError, match="uq_attempts_unresolved"):
        add_attempt(engine, add_case(engine, payment_id="in_2"), idempotency_key="k2")


def test_an_attempt_that_was_not_executed_frees_its_number(engine: Engine) -> None:
    """The same step is made again under another key."""
    case_id = add_case(engine)
    add_attempt(engine, case_id, state="not_executed", settled_at=START)
    add_attempt(engine, case_id, idempotency_key="k2")
    assert one(engine, "SELECT count(*) FROM attempts WHERE number = 1") == 2


def test_an_event_is_stored_once_by_its_id(engine: Engine) -> None:
    """The key of the table refuses what a forgetful insert would double."""
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(an_event())])
    with pytest.raises(IntegrityError, match="pk_events"):
        sql(engine, "INSERT INTO events (id, type, payload) VALUES ('evt_1', 'x', '{}')")


def test_a_message_is_stored_once_by_its_case_and_name(engine: Engine) -> None:
    """No customer gets the same notice of the same case twice."""
    case_id = add_case(engine)
    add_notice(engine, case_id)
    with pytest.raises(IntegrityError, match="uq_outbox_once"):
        add_notice(engine, case_id)


def test_a_merged_notice_is_no_message_of_its_own(engine: Engine) -> None:
    """What another message says is never due by itself, and that message exists."""
    message_id = add_notice(engine, add_case(engine))
    with pytest.raises(IntegrityError, match="ck_outbox_merged_never_leaves"):
        add_notice(engine, add_case(engine, payment_id="in_2"), merged_into=message_id)
    with pytest.raises(IntegrityError, match="fk_outbox_merged_into"):
        add_notice(engine, add_case(engine, payment_id="in_3"), merged_into=message_id + 99, due_at=None)


def test_there_is_one_installation(engine: Engine) -> None:
    """Keys are derived from it, so there cannot be two."""
    with pytest.raises(IntegrityError, match="ck_install_one_row"):
        sql(engine, "INSERT INTO install (row_number) VALUES (2)")


def test_the_claim_reads_the_partial_index_of_due_cases(engine: Engine) -> None:
    """Among 20,000 cases, most of them ended, the very statement of the claim finds the due ones by their index."""
    sql(
        engine,
        "INSERT INTO cases (payment_id, customer_id, amount_minor, currency, failed_at, decline, failed_card, card,"
        " state, due_at, closed_at) SELECT 'in_' || n, 'cus_' || n, 1, 'usd', now(), '{}', '{}', '{}',"
        " CASE WHEN n % 20 = 0 THEN 'silent' ELSE 'lost' END, CASE WHEN n % 20 = 0 THEN now() - n * interval '1 s' END,"
        " CASE WHEN n % 20 = 0 THEN NULL ELSE now() END FROM generate_series(1, 20000) n",
    )
    sql(engine, "ANALYZE cases")
    sent: list[tuple[str, Any]] = []

    def note(_db: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with engine.begin() as db:
            claimed = claim_due(db, models.cases, START.replace(year=2100), 50, 180)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(claimed) == 50
    [(statement, values)] = sent
    with engine.begin() as db:
        plan = "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {statement}", values))
    assert "ix_cases_due" in plan
    assert "Seq Scan on cases" not in plan
