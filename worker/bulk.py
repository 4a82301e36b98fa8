"""How are many rows written at once? As one value, so that a statement of any number of rows is one and the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Table, Text, cast, column, func, literal, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.models import Packed


def insert_all(table: Table, rows: Sequence[dict[str, Any]], **same: Any) -> Insert:
    """Return the statement that inserts rows, each with the same keys, and what is the ``same`` in all as SQL."""
    names = list(rows[0])
    told = cast(literal(_as_json(_stored(table, rows)), Text), JSON)
    typed = (column(name, table.c[name].type) for name in names)
    given = func.json_to_recordset(told).table_valued(*typed).render_derived(with_types=True)
    values = [*(given.c[name] for name in names), *same.values()]
    return upsert(table).from_select([*names, *same], select(*values))


def _stored(table: Table, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with their packed facts as they are stored."""
    kinds = {name: kind for name in rows[0] if isinstance(kind := table.c[name].type, Packed)}
    return [{**row, **{name: kind.packed(row[name]) for name, kind in kinds.items()}} for row in rows]


def _as_json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows, default=datetime.isoformat, separators=(",", ":"))
