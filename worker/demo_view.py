"""How does a practice look? Live on a terminal, plain lines elsewhere, and a summary at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from worker.models import OUTCOMES
from worker.report import make_report
from worker.report import view as report_view
from worker.report.figures import MEANS, Figures

if TYPE_CHECKING:
    from worker.demo import Result


@contextmanager
def view(engine: Engine, payments: int, *, quiet: bool) -> Iterator[Callable[[datetime], None]]:
    """Show how it goes: a live table on a terminal, a line every few days elsewhere, nothing with --json."""
    console = Console()
    if quiet:
        yield lambda _now: None
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            yield _seldom(0.15, lambda now: live.update(_picture(engine, payments, now)))
    else:
        yield _every(timedelta(days=3), lambda now: print(_line(engine, now), flush=True))  # noqa: T201 - plain output


def _seldom(seconds: float, show: Callable[[datetime], None]) -> Callable[[datetime], None]:
    last = [0.0]

    def look(now: datetime) -> None:
        if time.monotonic() - last[0] > seconds:
            show(now)
            last[0] = time.monotonic()

    return look


def _every(gap: timedelta, show: Callable[[datetime], None]) -> Callable[[datetime], None]:
    last: list[datetime] = []

    def look(now: datetime) -> None:
        if not last or now - last[-1] >= gap:
            show(now)
            last[:] = [now]

    return look


def _figures(engine: Engine, now: datetime) -> Figures:
    with engine.connect() as db:
        return make_report(db, now).total


def _line(engine: Engine, now: datetime) -> str:
    report = _figures(engine, now)
    states = ", ".join(f"{name} {count}" for name, count in sorted(report.states.items()))
    return f"{now:%Y-%m-%d}  {report.attempts} charges, {report.notices} notices; {states}"


def _picture(engine: Engine, payments: int, now: datetime) -> Group:
    report = _figures(engine, now)
    states = Table("state", "cases", "", box=None, pad_edge=False)
    for name in ("silent", "contacting", *OUTCOMES):
        count = report.states.get(name, 0)
        states.add_row(name, str(count), Text("█" * round(40 * count / payments), style=_colour(name)))
    back = ", ".join(report_view.amounts(report, MEANS)) or "nothing yet"
    head = Text(f"{now:%A %d %B %Y %H:%M} UTC", style="bold")
    return Group(
        head, states, Text(f"money back: {back}"), Text(f"{report.attempts} charges, {report.notices} notices")
    )


def _colour(state: str) -> str:
    return {"recovered": "green", "lost": "red", "contacting": "yellow", "silent": "blue"}.get(state, "white")


def tell(result: Result) -> None:
    """Print the report of a practice, and the checks as the bank's ledger answers them."""
    bank = result.bank
    report_view.tell(result.report)
    console = Console()
    own = f" ({bank['off_hours_own_card']} more were set off by a customer's own new card)"
    ledger = ", in the bank's ledger"
    checks = [
        _verdict(f"invoices charged twice{ledger}", bank["double_charges"]),
        _verdict(f"charges in bank off-hours{ledger}", bank["off_hours"]) + own,
        _verdict("customers written to of whom silence alone brought the money back", result.disturbed),
    ]
    if result.practice.mode == "observe":
        checks.append(_verdict(f"requests that write{ledger}", bank["writes"]))
    if unfinished := result.report.total.unfinished:
        checks.append(_verdict("cases not finished", unfinished))
    for check in checks:
        console.print(check, highlight=False, soft_wrap=True)
    console.print(f"played in {result.seconds:.0f} s")


def _verdict(what: str, count: int) -> str:
    mark = "[green]ok[/]" if count == 0 else "[red]BROKEN[/]"
    return f"{mark}  {what}: {count}"
