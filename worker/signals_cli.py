"""The command that takes signals in: what the merchant knows of its customers, from a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import click

from worker import app
from worker.eventfile import read_values
from worker.installation import as_json, installation, show
from worker.progress import progress
from worker.signals import Counts, Where, take_in

MANY = 20


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--csv", "as_csv", is_flag=True, help="FILE is a table, its first line names the columns.")
@as_json
def signals(file: BinaryIO, *, as_csv: bool, as_json: bool) -> None:
    """Keep the signals of FILE (- is standard input): JSON lines, a JSON list, or a table; see docs/signals.md."""
    counts = Counts()
    values = _table(file, counts) if as_csv else _values(file, counts)
    with installation(), progress("signals", quiet=as_json) as step:
        for number in take_in(app.engine(), values, app.now(), counts):
            step(number)
    show(counts.as_json()) if as_json else _tell(counts)
    if counts.rejected:
        raise click.exceptions.Exit(1)


def _values(file: BinaryIO, counts: Counts) -> Iterator[tuple[Where, Any]]:
    """Yield every JSON value with its line; one that cannot be read is counted."""
    for found in read_values(file):
        if found.problem is None:
            yield {"line": found.line}, found.value
        else:
            counts.refuse({"line": found.line}, found.problem)


def _table(file: BinaryIO, counts: Counts) -> Iterator[tuple[Where, Any]]:
    """Yield every line of a table as an object; an empty cell is none."""
    lines = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""), restkey="more columns")
    try:
        for row in lines:
            given: dict[str, Any] = {name: cell for name, cell in row.items() if cell not in ("", None)}
            with suppress(ValueError, KeyError):  # what is no number is refused as such
                given["value"] = float(given["value"])
            yield {"line": lines.line_num}, given
    except csv.Error as error:
        counts.refuse({"line": lines.line_num}, f"no table: {error}")


def _tell(counts: Counts) -> None:
    click.echo(f"{counts.new} new, {counts.duplicate} duplicate, {len(counts.rejected)} rejected")
    told = counts.as_json()["rejected"]
    for one in told[:MANY]:
        click.echo(f"line {one['line']}: {one['reason']}", err=True)
    if len(told) > MANY:
        click.echo(f"and {len(told) - MANY} more; --json lists them all", err=True)
