"""How are figures shown? As text on a terminal, and as tables of a page, each between marks of its own."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.measure import Row

HUNDRED = 100


def as_text(rows: list[Row]) -> str:
    """Return one line for each figure."""
    widest = max(len(row.what) for row in rows)
    return "\n".join(
        f"  {row.what:{widest}}  {number(row.median):>9} {row.unit:14} {_spread(row):19} {_asked(row)}".rstrip()
        for row in rows
    )


def write_page(page: Path, rows: list[Row], machine: str) -> None:
    """Put the table of one piece of work between its marks; raise ``ValueError`` where the page has no such marks."""
    work, text = rows[0].work, page.read_text(encoding="utf-8")
    table = ["| what | median | lowest to highest | asked |", "|---|---|---|---|"]
    table += [f"| {row.what} | {number(row.median)} {row.unit} | {_spread(row)} | {_asked(row)} |" for row in rows]
    marks = f"<!-- {work} -->", f"<!-- /{work} -->"
    told = f"{len(rows[0].runs)} rounds; {machine}: `python -m benchmarks {work}`"
    between = "\n".join((marks[0], *table, "", told, marks[1]))
    changed, found = re.subn(f"{marks[0]}.*?{marks[1]}", lambda _: between, text, flags=re.DOTALL)
    if not found:
        msg = f"{page} has no place for {work}: {' '.join(marks)}"
        raise ValueError(msg)
    page.write_text(changed, encoding="utf-8")


def number(value: float) -> str:
    """Return three digits that count, and every digit before the point."""
    return f"{value:,.0f}" if abs(value) >= HUNDRED else f"{value:.3g}"


def _spread(row: Row) -> str:
    return f"{number(min(row.runs))} to {number(max(row.runs))}"


def _asked(row: Row) -> str:
    bounds = [f"{sign} {number(value)}" for sign, value in (("≥", row.least), ("≤", row.most)) if value is not None]
    return f"{' and '.join(bounds)}: {'met' if row.met else 'missed'}" if bounds else ""
