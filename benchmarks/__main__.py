"""Measure everything, or what is named: ``python -m benchmarks [WORK…]``."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from pathlib import Path

import click

from benchmarks.measure import Row, Scale
from benchmarks.table import as_text, write_page
from worker.clock import machine_now

WORKS = (
    "ingest",
    "webhook",
    "claim",
    "settle",
    "pending",
    "decide",
    "simulate",
    "startup",
    "memory",
    "report",
    "profile",
)
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


@click.command()
@click.argument("works", nargs=-1, type=click.Choice(WORKS))
@click.option("--rounds", default=5, show_default=True, help="Every way takes its turn in each of so many rounds.")
@click.option("--share", default=1.0, show_default=True, help="Of the full work: 0.01 shows in a minute that it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.option("--write", is_flag=True, help="Put the tables of what was measured into docs/performance.md.")
def main(works: tuple[str, ...], rounds: int, share: float, as_json: bool, write: bool) -> None:
    """Measure; exit code 1 where the median of a figure is not as asked."""
    rows: list[Row] = []
    for work in works or WORKS:
        click.echo(f"{work} …", err=True)
        found = importlib.import_module(f"benchmarks.{work}").measure(Scale(rounds, share))
        rows += found
        click.echo(as_text(found), err=as_json)
        if write:
            write_page(PAGE, found, _machine())
    if as_json:
        told = {"machine": _machine(), "rounds": rounds, "share": share, "rows": [row.as_json() for row in rows]}
        click.echo(json.dumps(told))
    sys.exit(any(row.met is False for row in rows))


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {machine_now():%B %Y}"


if __name__ == "__main__":
    main()
