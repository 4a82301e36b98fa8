"""How does a report look on a terminal? A table of what came back, and one of the groups; plain elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Column, Table

from worker.locales import money
from worker.report.cohort import Report
from worker.report.figures import MEANS, Figures, Lift

TITLES = {
    "card_update": "card update",
    "silent_retry": "silent retry",
    "after_contact": "after contact",
    "provider": "provider's own retry",
    "customer": "by the customer",
}
ARM_TITLES = {"a": "A", "b": "B", "control": "left alone"}
WIDTH = 160  # where there is no terminal to ask


def tell(report: Report) -> None:
    """Print a report; nothing but that there are none without cases."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(heading(report), style="bold", highlight=False, soft_wrap=True)
    if not report.total.cases:
        console.print("No cases.")
        return
    console.print(_means(report.total))
    for line in summary(report.total):
        console.print(line, soft_wrap=True)
    if report.groups:
        console.print("", _groups(report), sep="\n")
    if report.lifts:
        console.print("", _arms(report), sep="\n")


def heading(report: Report) -> str:
    """Say which cohort it is, what counts as recovered, and until when the figures may still grow."""
    begin, end = report.question.begin, report.question.end
    days = [f"from {begin.date()} on" if begin else "", f"before {end.date()}" if end else ""]
    when = " and ".join(filter(None, days))
    which = f"Payments that failed {when} (UTC)" if when else "All failed payments"
    return f"{which}, recovered within 30 days; {state(report)}"


def state(report: Report) -> str:
    """Say whether every case has had its 30 days."""
    if report.final_at is None:
        return "preliminary"
    return "final" if report.final else f"preliminary until {report.final_at:%Y-%m-%d}"


def numbers_table(first: str, *numbers: str) -> Table:
    """Return a table of a name, numbers, and a last column of texts."""
    table = Table(first, *(Column(name, justify="right") for name in numbers[:-1]), numbers[-1], box=None)
    table.pad_edge = False
    return table


def _means(total: Figures) -> Table:
    table = numbers_table("came back by", "cases", "share", "value")
    for name in MEANS:
        share = percent(total.recovered[name] / total.cases)
        table.add_row(TITLES[name], str(total.recovered[name]), share, ", ".join(amounts(total, (name,))))
    table.add_row(
        "all", str(total.recovered_count), percent(total.back.value), ", ".join(amounts(total, MEANS)), style="bold"
    )
    return table


def summary(figures: Figures) -> Iterable[str]:
    """Yield what there is to say of a group, a sentence to a line."""
    told, states = figures.as_json(), figures.states
    ended = (f"{count} {name}" for name in ("lost", "canceled", "released") if (count := states.get(name)))
    late = [f"{figures.late} paid later than 30 days"] if figures.late else []
    yield ", ".join([f"{figures.cases} failed payments, {figures.unfinished} still open", *ended, *late])
    yield _contact(figures)
    if figures.days:
        yield "days to recovery: {} a quarter, {} half, {} three quarters, {} nine tenths".format(
            *(f"{day:.1f}" for day in figures.days)
        )
    yield "; ".join(_price(figures, told["attempts_per_recovery"] or 0, told["notices_per_case"]))


def _contact(figures: Figures) -> str:
    silent, written = figures.silent, figures.contacted
    lines = [f"never written to: {silent.whole} cases, {percent(silent.value)} of them came back"]
    if written.whole:
        lines.append(f"written to: {written.whole}, {percent(written.value)}")
        lines.append(f"{figures.left_after} canceled within 7 days after a notice")
    return "; ".join(lines)


def _price(figures: Figures, per_recovery: float, per_case: float) -> Iterable[str]:
    yield f"{per_recovery:.1f} charges per recovery, {per_case:.1f} notices per case"
    if figures.waited:
        yield f"{figures.waited} of {figures.attempts} charges had waited for a bank to open"
    if costs := [money(each.cost, name) for name, each in figures.value.items() if each.cost is not None]:
        yield f"charges cost {', '.join(costs)}"
    if figures.taken_back:
        yield f"{figures.taken_back} were refunded or disputed later"


def _groups(report: Report) -> Table:
    """Return a row for each group, and the whole as one more."""
    names = "cases", "open", "came back", "share", "19 times in 20", "canceled", "days", "charges each", "notices"
    table = numbers_table(report.question.by or "", *names, "value back")
    for group in (*report.groups, report.total):
        table.add_row(*_row(group), style="bold" if group is report.total else None)
    return table


def _row(group: Figures) -> tuple[str, ...]:
    told = group.as_json()
    each = told["attempts_per_recovery"]
    return (
        group.group,
        str(group.cases),
        str(group.unfinished),
        str(group.recovered_count),
        percent(group.back.value),
        span(group.back.interval),
        str(group.states.get("canceled", 0)),
        f"{group.days[1]:.1f}" if group.days else "",
        "" if each is None else f"{each:.1f}",
        f"{told['notices_per_case']:.1f}",
        ", ".join(amounts(group, MEANS, 3)),
    )


def _arms(report: Report) -> Table:
    table = numbers_table("arm", "customers", "came back", "share", "19 times in 20", "")
    for arm in report.arms:
        share, between = percent(arm.back.value), span(arm.back.interval)
        table.add_row(ARM_TITLES[arm.name], str(arm.back.whole), str(arm.back.part), share, between)
    for lift in report.lifts:
        table.add_row(lift_title(lift, report), "", "", f"{lift.points:+.1f} points", _points(lift))
    return table


def lift_title(lift: Lift, report: Report) -> str:
    """Say which arms are compared; of two that follow one policy the difference should be none."""
    title = f"{ARM_TITLES[lift.of.name]} over {ARM_TITLES[lift.over.name]}"
    same = report.question.same_policy and {lift.of.name, lift.over.name} == {"a", "b"}
    return f"{title} (A/A: one policy)" if same else title


def _points(lift: Lift) -> str:
    return f"{lift.interval[0]:+.1f} to {lift.interval[1]:+.1f}"


def percent(share: float | None) -> str:
    """Return a share as people read it; nothing where there is none."""
    return "" if share is None else f"{share:.1%}"


def span(interval: tuple[float, float] | None) -> str:
    """Return an interval of shares as people read it."""
    return "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"


def amounts(figures: Figures, means: tuple[str, ...], most: int = 4) -> list[str]:
    """Return what came back by some means, the currencies with most cases' money first, each in its own units."""
    sums = {name: sum(each.recovered[one] for one in means) for name, each in figures.value.items()}
    told = [money(amount, name) for name, amount in sorted(sums.items(), key=lambda one: -one[1]) if amount]
    return [*told[:most], f"{len(told) - most} more"] if len(told) > most else told
