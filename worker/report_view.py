"""How does a report look to a person?"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from worker.locales import money
from worker.report import MEANS, Report

TITLES = {
    "card_update": "card update",
    "silent_retry": "silent retry",
    "after_contact": "after contact",
    "customer": "by the customer",
}


def tell(report: Report) -> None:
    """Print what came back by which means, and at what price; nothing but that there are none without cases."""
    console = Console()
    if not report.cases:
        console.print("No cases.")
        return
    table = Table("came back by", "cases", "share", "value", box=None, pad_edge=False)
    for name in MEANS:
        table.add_row(TITLES[name], *_row(report, report.recovered[name], (name,)))
    table.add_row("all", *_row(report, report.recovered_count, MEANS), style="bold")
    console.print(table)
    told = report.as_json()
    per_recovery, per_case = told["attempts_per_recovery"] or 0, told["notices_per_case"]
    ratios = f"{per_recovery:.1f} charges per recovery, {per_case:.1f} notices per case"
    back = f"; {report.taken_back} were refunded or disputed later" if report.taken_back else ""
    days = "" if report.median_days is None else f", {report.median_days:.1f} days to recovery (median)"
    counts = f"{report.cases} failed payments, {report.unfinished} still open"
    console.print(f"{counts}; {ratios}{days}{back}", soft_wrap=True)


def _row(report: Report, count: int, means: tuple[str, ...]) -> tuple[str, str, str]:
    return str(count), f"{count / report.cases:.1%}", ", ".join(amounts(report, means))


def amounts(report: Report, means: tuple[str, ...], most: int = 4) -> list[str]:
    """Return what came back by some means, the currencies with most cases' money first, each in its own units."""
    sums = {c: sum(value[name] for name in means) for c, value in report.value.items()}
    told = [money(amount, c) for c, amount in sorted(sums.items(), key=lambda one: -one[1]) if amount]
    return [*told[:most], f"{len(told) - most} more"] if len(told) > most else told
