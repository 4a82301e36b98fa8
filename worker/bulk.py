"""How are many rows written or found at once? As one value, so that a statement for any number is one and the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.json import Encoder
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    Table,
    TableValuedAlias,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.types import NullType

from worker.models import Packed

ENCODER = Encoder()
ROWS = cast(bindparam("rows", type_=Text), JSON)
# The driver knows how to send a list of numbers; SQLAlchemy would look at each one.
THESE = any_(cast(bindparam("cases", type_=NullType()), ARRAY(BigInteger)))


def these(case_ids: Iterable[int]) -> dict[str, list[int]]:
    """Return the parameter of a statement about ``THESE`` cases."""
    return {"cases": list(case_ids)}


def given(*columns: Column[Any]) -> TableValuedAlias:
    """Return the rows of ``as_rows`` as a table with these columns, for a statement that is built once."""
    typed = (column(each.name, each.type) for each in columns)
    return func.json_to_recordset(ROWS).table_valued(*typed).render_derived(with_types=True)


def insert_all(table: Table, names: Iterable[str], **same: Any) -> Insert:
    """Return the statement that inserts the rows of ``as_rows``, which have these names; the ``same`` in all is SQL."""
    told = given(*(table.c[name] for name in names))
    chosen = select(*told.c, *same.values())
    return upsert(table).from_select([*told.c.keys(), *same], chosen)


def as_rows(table: Table, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter of such a statement; every row has the names that it was built with."""
    kinds = {each.name: each.type for each in table.c if isinstance(each.type, Packed)}
    packed = ({name: kind.packed(row[name]) for name, kind in kinds.items() if name in row} for row in rows)
    return {"rows": ENCODER.encode([{**row, **facts} for row, facts in zip(rows, packed, strict=True)]).decode()}
