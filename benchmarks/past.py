"""A merchant's past year: a hundred cases live three weeks through the product, and are multiplied by SQL.

Every copy has rows, ids and cards of its own, and lived some days earlier than the one it is like.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Column, DateTime, Engine, Table, func, select, text
from sqlalchemy.dialects import postgresql

from benchmarks.waiting import LIVED, live
from worker.models import CARD, attempts, card_fact, cases, history, outbox

WEEKS, DAYS = timedelta(weeks=3), 365
AT_ONCE = 500  # copies
TABLES = (cases, outbox, attempts, history)
OF_A_TABLE = {"case_id": cases, "merged_into": outbox}
OWN = (
    *("payment_id", "customer_id", "subscription_id", "intent_id", "charge_id", "failed_charge_id", "charge_before"),
    *("method_id", "pay_with", "idempotency_key", "fingerprint"),
)
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here
EVER = ("due_at", "lease_until")


def fill(engine: Engine, count: int) -> None:
    """Have at least so many cases, open and closed, with their attempts, histories and messages."""
    live(engine, WEEKS)
    with engine.begin() as db:
        db.execute(text("UPDATE outbox SET delivered_at = at, due_at = NULL WHERE kind = 'notice'"))
        spans = {each: db.execute(select(func.coalesce(func.max(each.c.id), 0))).scalar_one() for each in TABLES}
    copies = -(-count // LIVED)
    for first in range(1, copies, AT_ONCE):
        with engine.begin() as db:
            db.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL synchronous_commit = off"))
            for table in TABLES:
                db.execute(text(_copied(table, spans)), {"first": first, "last": min(first + AT_ONCE, copies) - 1})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        for statement in ("SET statement_timeout = 0", "VACUUM ANALYZE", "RESET statement_timeout"):
            db.execute(text(statement))


def _copied(table: Table, spans: dict[Table, int]) -> str:
    """Return the statement that adds some copies of the rows of a table that lived."""
    values = ", ".join(_value(table, column, spans) for column in table.c)
    return f"""
        INSERT INTO {table.name} ({", ".join(column.name for column in table.c)}) OVERRIDING SYSTEM VALUE
        SELECT {values} FROM generate_series(CAST(:first AS bigint), :last) copy, {table.name}
         WHERE id <= {spans[table]} ORDER BY copy, id"""  # noqa: S608 - our own names


def _value(table: Table, column: Column[object], spans: dict[Table, int]) -> str:
    """Return the SQL of a value of a copy."""
    name = column.name
    if name == "id" or name in OF_A_TABLE:
        return f"{name} + copy * {spans[OF_A_TABLE.get(name, table)]}"
    if name in OWN:
        return f"{name} || to_hex(copy)"
    if column.type is CARD:
        finger, kind = card_fact(name, "fingerprint"), column.type.compile(dialect=DIALECT)
        return f"coalesce(CAST(replace({name}::text, {finger}, {finger} || to_hex(copy)) AS {kind}), {name})"
    if isinstance(column.type, DateTime) and name not in EVER:
        return f"{name} - interval '1 day' * (copy % {DAYS})"
    return name
