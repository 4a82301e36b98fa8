"""How does churn look on a terminal? Tables of who left and why, and of what is in none of them; plain elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.table import Table

from worker.churn.counts import Churn
from worker.churn.figures import Difference, Figures, Reason
from worker.churn.sql import KINDS, Period
from worker.locales import money
from worker.report.sql import TENURES
from worker.report.view import ARM_TITLES, WIDTH, numbers_table, percent, span

SURE = "19 times in 20"
APART = {
    "gone": "shown by the provider no longer, nor why",
    "trialing": "in a trial now",
    "never_began": "ended before the first day to pay",
    "ends_ahead": "ended later than now, by the provider's clock",
    "within": "begun and ended within the period",
}
NOTHING_SAID = "nothing said"
MOST_PLANS = 6


def tell(churn: Churn) -> None:
    """Print what is known; nothing but what was left out where nobody was there."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(heading(churn), style="bold", highlight=False, soft_wrap=True)
    if churn.total.customers:
        console.print(_kinds(churn.total))
    else:
        console.print("Nobody was there at the start. Subscriptions are read once a day, and by `dunning risk`.")
    for line in summary(churn):
        console.print(line, soft_wrap=True)
    for table in _more(churn):
        console.print("", table, sep="\n")


def heading(churn: Churn) -> str:
    """Say which period it is, of what everything is a share, and whether it is over."""
    state = "final" if churn.final else f"so far: until {churn.question.period.end:%Y-%m-%d} more may leave"
    return f"Churn {days(churn.question.period)} (UTC), of those who were there at its start; {state}"


def days(period: Period) -> str:
    """Say which days a period has."""
    return f"from {period.begin:%Y-%m-%d} to before {period.end:%Y-%m-%d}"


def summary(churn: Churn) -> Iterator[str]:
    """Yield what there is to say of the whole, and of what was left out, a sentence to a line."""
    total = churn.total
    yield f"{total.customers} customers with {total.subscriptions} subscriptions were there at the start"
    if total.contracted:
        yield f"{total.contracted} customers lost a subscription and kept another: their money is lost, they are not"
    if total.unpriced:
        yield f"{total.unpriced} subscriptions ({total.unpriced_lost} lost) have no fixed price and are in no money"
    if total.value:
        start = ", ".join(money(each.start, currency) for currency, each in total.value.items())
        yield f"a month of them brought {start}{': each currency by itself' if len(total.value) > 1 else ''}"
    if told := apart(churn):
        yield f"subscriptions in no share: {', '.join(told)}"


def apart(churn: Churn) -> list[str]:
    """Return how many subscriptions are in no share, each with the reason."""
    return [f"{count} {APART[why]}" for why, count in churn.apart.items() if count]


def _kinds(total: Figures) -> Table:
    table = numbers_table("lost", "customers", "share", SURE, "monthly revenue lost")
    for kind in [kind for kind in KINDS if kind != "other" or other(total)]:
        table.add_row(kind, *_lost(total, kind), ", ".join(revenue(total, kind)))
    table.add_row("all", *_lost(total, "all"), ", ".join(revenue(total, "all")), style="bold")
    return table


def other(total: Figures) -> bool:
    """Whether the provider named reasons of its own."""
    return bool(total.lost["other"] or any(each.lost["other"] for each in total.value.values()))


def _lost(figures: Figures, kind: str) -> tuple[str, str, str]:
    share = figures.share(kind)
    return str(share.part), percent(share.value), span(share.interval)


def revenue(figures: Figures, kind: str = "all") -> list[str]:
    """Return the revenue of a month that was lost, by currency, and which share of the start's it is."""
    told = []
    for currency, each in figures.value.items():
        lost = sum(each.lost.values()) if kind == "all" else each.lost[kind]
        share = f" ({lost / each.start:.1%})" if 0 < lost <= each.start else ""
        told += [f"{money(lost, currency)}{share}"] if lost else []
    return told


def _more(churn: Churn) -> Iterator[Table]:
    """Yield the tables that were asked for, or that an experiment has."""
    if churn.groups:
        yield _groups(churn)
    if churn.question.by == "reason" and churn.reasons:
        yield reasons_by(churn.reasons, "tenure", TENURES, lambda each: each.tenure)
        yield reasons_by(churn.reasons, "plan", plans(churn.reasons), lambda each: each.plan or "unknown")
    if churn.question.before and churn.before:
        yield _compared(earlier(churn.question.before, churn.question.period), churn.changes)
    if churn.effects:
        yield _compared("than those left alone", churn.effects)


def earlier(before: Period, period: Period) -> str:
    """Say with which period another is compared, and how long both are when they differ: in a longer one more leave."""
    lengths = f", {period.days} days against {before.days}" if period.days != before.days else ""
    return f"than {days(before)}{lengths}"


def _groups(churn: Churn) -> Table:
    """Return a row for each group, and the whole as one more."""
    names = "customers", "lost", "share", SURE, *KINDS[:3], "contracted"
    table = numbers_table(churn.question.by or "", *names, "monthly revenue lost")
    for group in (*churn.groups, churn.total):
        row = str(group.customers), *_lost(group, "all"), *(str(group.lost[kind]) for kind in KINDS[:3])
        style = "bold" if group is churn.total else None
        table.add_row(group.group, *row, str(group.contracted), ", ".join(revenue(group)), style=style)
    return table


def plans(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """Return the plans that most were lost of."""
    lost: dict[str, int] = {}
    for each in reasons:
        lost[each.plan or "unknown"] = lost.get(each.plan or "unknown", 0) + each.subscriptions
    return tuple(sorted(lost, key=lambda plan: (-lost[plan], plan))[:MOST_PLANS])


def crossed(reasons: Iterable[Reason], of: Callable[[Reason], str]) -> dict[str, dict[str, int]]:
    """Return how many subscriptions ended by what their customers said, and by something else; the voluntary ones."""
    found: dict[str, dict[str, int]] = {}
    for each in reasons:
        if each.kind == "voluntary":
            row = found.setdefault(each.feedback or NOTHING_SAID, {})
            row[of(each)] = row.get(of(each), 0) + each.subscriptions
    return dict(sorted(found.items(), key=lambda one: (-sum(one[1].values()), one[0])))


def reasons_by(reasons: Iterable[Reason], name: str, columns: Iterable[str], of: Callable[[Reason], str]) -> Table:
    """Return what leavers said, in rows, by something else, in columns."""
    titles = list(columns)
    table = numbers_table(f"voluntary, by {name}", *titles, "all")
    for said, row in crossed(reasons, of).items():
        table.add_row(said.replace("_", " "), *(str(row.get(title, 0)) for title in titles), str(sum(row.values())))
    return table


def _compared(title: str, found: list[Difference]) -> Table:
    table = numbers_table(f"lost more {title}", "share", "than", "points", SURE)
    for each in found:
        who = f"{ARM_TITLES[each.of]}: {each.kind}" if each.of in ARM_TITLES else each.kind
        low, high = each.interval
        shares = percent(each.one.value), percent(each.other.value)
        table.add_row(who, *shares, f"{each.points:+.1f}", f"{low:+.1f} to {high:+.1f}")
    return table
