"""How does a comparison look on a terminal? Figures by policy, how sure the differences are, and the classes."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from worker.simulate.compare import Comparison
from worker.simulate.figures import MEANS, Difference, Figures, ratios_of

WIDTH = 160  # where there is no terminal to ask
SHARES = {
    "recovered_share": "came back within 30 days",
    "silent_share": "of what came back: by the updater or a silent retry",
    "untold_share": "of what came back: without any notice",
    "canceled_after_notice_share": "canceled within 7 days after a notice",
    "closed_window_share": "charges in the bank's night",
    "budget_violations_per_payment": "charges over a network's budget, of payments",
    "never_violations_per_payment": "charges after a refusal for good, of payments",
}
NUMBERS = {
    "attempts_per_recovery": "charges for each that came back",
    "notices_per_payment": "notices for each payment",
}
MEANS_TITLES = {
    "card_update": "by the card updater",
    "silent_retry": "by a silent retry",
    "after_contact": "after contact",
    "customer": "by the customer alone",
}
ORDER = (
    "recovered_share",
    "silent_share",
    "untold_share",
    "attempts_per_recovery",
    "notices_per_payment",
    "canceled_after_notice_share",
    "closed_window_share",
    "budget_violations_per_payment",
    "never_violations_per_payment",
)
CAUTION = "Believe the differences, never the levels: with other assumptions every level is another one."


def tell(found: Comparison) -> None:
    """Print a comparison."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(heading(found), style="bold", highlight=False, soft_wrap=True)
    console.print(_figures(found), "", _classes(found))
    for each in found.policies[1:]:
        console.print("", _differences(found, each))
    console.print("", CAUTION, sep="\n", soft_wrap=True)


def heading(found: Comparison) -> str:
    """Say which world it is."""
    levels = "".join(f", {name} {level}" for name, level in found.levels.items())
    return f"{found.world}, seed {found.seed}{levels}: {found.payments:,} failed payments"


def title(name: str) -> str:
    """Return what a figure is called."""
    currency = name.partition(".")[2].upper()
    return f"money back in {currency}" if currency else {**SHARES, **NUMBERS}[name]


def number(name: str, value: float | None) -> str:
    """Return a figure as people read it; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.2f}" if name in NUMBERS else f"{value:.1%}"


def gap(name: str, found: Difference | None) -> tuple[str, str]:
    """Return a difference and its interval as people read them: shares in percentage points."""
    if found is None:
        return "", ""
    scale, unit = (1, "") if name in NUMBERS else (100, " points")
    low, high = (scale * edge for edge in found.interval)
    return f"{scale * found.value:+.2f}{unit}", f"{low:+.2f} to {high:+.2f}"


def names_of(found: Comparison) -> list[str]:
    """Return the figures in the order in which they are told."""
    return [*ORDER, *(name for name in ratios_of(found.policies[0].told) if "." in name)]


def _table(*names: str) -> Table:
    table = Table(names[0], *(Column(name, justify="right") for name in names[1:]), box=None)
    table.pad_edge = False
    return table


def _figures(found: Comparison) -> Table:
    table = _table("", *(each.policy for each in found.policies))
    ratios = ratios_of(found.policies[0].told)
    for name in names_of(found):
        table.add_row(title(name), *(number(name, ratios[name].of(each.told)) for each in found.policies))
        if name == "recovered_share":
            for means in MEANS:
                table.add_row(f"  {MEANS_TITLES[means]}", *(_by(each, means) for each in found.policies))
    days = (each.median_days for each in found.policies)
    table.add_row("days to recovery, median", *("" if day is None else f"{day:.1f}" for day in days))
    return table


def _by(figures: Figures, means: str) -> str:
    return f"{sum(one.means == means for one in figures.told) / len(figures.told):.1%}"


def _classes(found: Comparison) -> Table:
    pairs = (name for each in found.policies for name in (each.policy, "charges each"))
    table = _table("came back, by class of the first decline", "payments", *pairs)
    for name, told in found.policies[0].classes.items():
        row = [
            number(key, ratios_of(told)[key].of(each.classes[name])) for each in found.policies for key in ORDER[0:4:3]
        ]
        table.add_row(name, str(len(told)), *row)
    return table


def _differences(found: Comparison, of: Figures) -> Table:
    table = _table(f"{of.policy} less {found.policies[0].policy}, on the same draws", "difference", "19 times in 20")
    for name in names_of(found):
        table.add_row(title(name), *gap(name, found.differences[of.policy][name]))
    return table
