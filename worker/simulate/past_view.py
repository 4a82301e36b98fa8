"""How does hindsight look on a terminal? A column for what really happened, and one for each policy."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from worker.simulate.history import Hindsights
from worker.simulate.view import WIDTH

CAUTION = "Unknown is unknown: a log tells nothing of instants at which nobody asked. Compare policies by simulation."


def tell(found: Hindsights) -> None:
    """Print what was and what might have been; nothing but that there are none without cases."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    unfinished = f"; {found.unfinished} have not had their 30 days" if found.unfinished else ""
    console.print(f"{len(found.pasts):,} stored cases{unfinished}", style="bold", highlight=False, soft_wrap=True)
    if not found.pasts:
        console.print("No cases.")
        return
    console.print(_table(found))
    console.print("", CAUTION, sep="\n", soft_wrap=True)


def _table(found: Hindsights) -> Table:
    really, told = found.really, [each.as_json() for each in found.policies]
    names = ("really", *(each.policy for each in found.policies))
    table = Table("", *(Column(name, justify="right") for name in names), box=None)
    table.pad_edge = False
    between = (f"{one['recovered_share']['low']:.1%} to {one['recovered_share']['high']:.1%}" for one in told)
    table.add_row("came back within 30 days", f"{really['recovered_share']:.1%}", *between)
    table.add_row("charges", str(really["charges"]), *(str(one["charges"]) for one in told))
    for answer in ("approved", "declined"):
        table.add_row(f"  matched, {answer}", "", *(str(one["matched"][answer]) for one in told))
    table.add_row("  unknown", "", *(str(one["unknown"]) for one in told))
    table.add_row("notices", str(really["notices"]), *(str(one["notices"]) for one in told))
    table.add_row("  matched", "", *(str(one["notices_matched"]) for one in told))
    for key, title in TITLES.items():
        table.add_row(title, "", *(str(one[key]) for one in told))
    return table


TITLES = {
    "closed_window_attempts": "charges in the bank's night",
    "budget_violations": "charges over a network's budget",
    "never_violations": "charges after a refusal for good",
}
