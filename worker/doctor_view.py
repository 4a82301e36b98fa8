"""How does an examination look to a person? One aligned line for each check, coloured on a terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.checks import Check

COLOURS = {"ok": "green", "look": "yellow", "FAIL": "red"}


def tell(found: Sequence[Check]) -> None:
    """Print the checks: ok, worth a look, or FAIL."""
    width = max(len(each.name) for each in found)
    for each in found:
        mark = _mark(each)
        advice = f"; {each.advice}" if each.advice else ""
        line = "".join(c if c.isprintable() else "?" for c in f"{each.name:{width}}  {each.detail}{advice}")
        click.echo(f"{click.style(f'{mark:4}', fg=COLOURS[mark])}  {line}")


def _mark(check: Check) -> str:
    if not check.ok:
        return "FAIL"
    return "look" if check.advice else "ok"
