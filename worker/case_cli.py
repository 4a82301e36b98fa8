"""Commands about cases: find them, read what happened and why, put them right."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import wraps
from itertools import islice
from typing import Any, TextIO

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Row, Select, func, select

from schedules.declines import DeclineClass
from schedules.steps import utc_text
from worker import app, repair, replay, stops, timeline
from worker.installation import as_json, installation, show
from worker.locales import decimal, money
from worker.models import OPEN_STATES, OUTCOMES, cases

SCREEN = 50
# What a list needs; the cards and refusals of a hundred thousand cases would take longer than all else.
LISTED = tuple(
    cases.c[name]
    for name in (
        *("id", "payment_id", "customer_id", "account", "state", "decline_class", "quarantined_at", "amount_minor"),
        *("currency", "failed_at", "due_at", "step", "recovered_by"),
    )
)
Command = Callable[..., Any]
Verdict = repair.Verdict | replay.Verdict


@click.group()
def case() -> None:
    """The unpaid invoices being recovered."""


def _hours(_context: click.Context, _option: click.Parameter, value: float | None) -> timedelta | None:
    return None if value is None else timedelta(hours=value)


FILTERS = (
    click.option("--state", type=click.Choice([*OPEN_STATES, *OUTCOMES]), help="Only cases in this state."),
    click.option(
        "--class",
        "decline_class",
        type=click.Choice([each.value for each in DeclineClass]),
        help="What the refusal means.",
    ),
    click.option("--customer", "customer_id", help="Only cases of this customer."),
    click.option("--account", help="Only cases of this connected account."),
    click.option("--segment", help="Only cases of this segment of the policy."),
    click.option("--due", type=float, callback=_hours, metavar="HOURS", help="Due within so many hours; 0: due now."),
    click.option("--stuck", is_flag=True, help="Set aside, overdue for an hour, or a charge unknown for a day."),
)


def filtered(command: Command) -> Command:
    """Give a command the options that say which cases are meant; it gets them as ``filters``."""

    @wraps(command)
    def taking(**given: Any) -> Any:
        chosen = {each.name: given.pop(each.name) for each in fields(repair.Filters)}
        return command(filters=repair.Filters(**chosen), **given)

    for option in reversed(FILTERS):
        taking = option(taking)
    return taking


@case.command("list")
@filtered
@click.option("--sort", type=click.Choice(list(repair.SORTS)), default="due", show_default=True, help="By what.")
@click.option("--desc", is_flag=True, help="The last first.")
@click.option("--limit", type=click.IntRange(1), help="At most so many; for people 50, for machines all.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets.")
@as_json
def case_list(  # noqa: PLR0913 - one argument for each option
    *, filters: repair.Filters, sort: str, desc: bool, limit: int | None, as_json: bool, as_csv: bool
) -> None:
    """List the cases, the next due first."""
    for_people = not (as_json or as_csv)
    with installation(), app.engine().connect() as db:
        wanted = repair.listed(filters, app.now(), sort, desc=desc).with_only_columns(*LISTED)
        told = [as_row(row) for row in db.execute(wanted.limit(limit or (SCREEN if for_people else None)))]
        for each in stops.shown(db):
            click.echo(f"charging is stopped since {each['since']}: {each['by']}, {each['why']}", err=True)
        more = _more(db, wanted) if for_people and not limit and len(told) == SCREEN else 0
    if as_json:
        show(told)
    elif as_csv:
        _write_csv(told)
    else:
        _tell_list(told, more)


def _more(db: Connection, wanted: Select[Any]) -> int:
    """Return how many cases are meant beyond a screen."""
    return int(db.execute(select(func.count()).select_from(wanted.order_by(None).subquery())).scalar_one()) - SCREEN


def as_row(row: Row[Any]) -> dict[str, Any]:
    """Return a case for a list; ``amount`` is a decimal number of the currency's units."""
    return {
        "case_id": row.id,
        "payment_id": row.payment_id,
        "customer_id": row.customer_id,
        "account": row.account,
        "state": row.state,
        "class": row.decline_class,
        "quarantined": row.quarantined_at is not None,
        "amount": str(decimal(row.amount_minor, row.currency)),
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "failed_at": utc_text(row.failed_at),
        "due_at": utc_text(row.due_at) if row.due_at else None,
        "next_step": row.step["step"] if row.step else None,
        "recovered_by": row.recovered_by,
    }


def _write_csv(told: list[dict[str, Any]]) -> None:
    names = list(told[0]) if told else ["case_id"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(told)


def _tell_list(told: list[dict[str, Any]], more: int) -> None:
    table = Table("case", "payment", "state", "class", "amount", "due", "next step", box=None)
    for one in told:
        state = "quarantined" if one["quarantined"] else one["state"]
        amount = money(one["amount_minor"], one["currency"])
        shown = (one["case_id"], one["payment_id"], state, one["class"], amount, one["due_at"], one["next_step"])
        table.add_row(*(str(value or "") for value in shown))
    Console().print(table if told else "No cases.")
    if more:
        click.echo(f"and {more} more: --limit shows more of them, --csv and --json show all")


@case.command("show")
@click.argument("case_id")
@as_json
def case_show(case_id: str, as_json: bool) -> None:
    """Show one case (its number or its payment id): what happened, what comes next, why then, what would change it."""
    with installation(), app.engine().connect() as db:
        row = found(db, case_id)
        told = {**as_row(row), **timeline.of_case(db, row, app.policy(), app.now())}
    show(told) if as_json else _tell_case(told)


def found(db: Connection, case_id: str) -> Row[Any]:
    """Return a case by number or payment id; an error names what is not there."""
    row = db.execute(select(cases).where(repair.named(case_id))).one_or_none()
    if row is None:
        msg = f"no case {case_id}"
        raise click.ClickException(msg)
    return row


def _tell_case(told: dict[str, Any]) -> None:
    state = "quarantined" if told["quarantined"] else told["state"]
    amount = money(told["amount_minor"], told["currency"])
    click.echo(f"case {told['case_id']}  {told['payment_id']}  {told['customer_id']}  {amount}  {state}")
    for line in told["history"]:
        detail = ", ".join(f"{key} {value}" for key, value in line["detail"].items() if key not in ("reasons", "at"))
        click.echo(f"  {line['at']}  {line['what']:12} {detail}")
        for reason in line["detail"].get("reasons", ()):
            click.echo(click.style(f"{'':24}{reason}", dim=True))
    if told["step"]:
        click.echo(f"next: {told['step']['step']} at {told['step']['at']}, because")
        for reason in told["step"]["reasons"]:
            click.echo(f"  {reason}")
    if told["events"]:
        click.echo("told by the provider")
    for event in told["events"]:
        state = event["error"] or ("" if event["handled"] else "waits")
        click.echo(f"  {event['received_at']}  {event['type']}  {event['id']}  {state}".rstrip())
    for change in told["would_change"]:
        click.echo(f"if {change['if']}: {change['then']}")


def acting(name: str, text: str) -> click.Command:
    """Make the command that does ``name`` to cases, named one by one, in a file, or by what they have in common."""

    @case.command(name, help=text)
    @click.argument("ids", nargs=-1)
    @click.option(
        "--file", type=click.File("r", encoding="utf-8", errors="replace"), help="One id in each line; - too."
    )
    @filtered
    @click.option("--limit", type=click.IntRange(1), help="At most so many.")
    @click.option("--reason", default="by command", show_default=True, help="Why; the history of each case tells it.")
    @click.option("--dry-run", is_flag=True, help="Tell what would be done to each, and do nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @as_json
    def command(  # noqa: PLR0913 - one argument for each option
        *,
        ids: tuple[str, ...],
        file: TextIO | None,
        filters: repair.Filters,
        limit: int | None,
        reason: str,
        dry_run: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        if bool(ids) + (file is not None) + filters.any != 1:
            msg = "name ids, or a --file of ids, or filters: one of the three"
            raise click.UsageError(msg)
        with installation():
            listed = [*ids, *_lines(file)] or _matching(filters)
            wish = repair.Wish(name, reason, app.policy(), app.now(), dry_run)
            chosen = list(islice(dict.fromkeys(listed), limit))
            if chosen and not dry_run and not yes and (len(chosen) > 1 or not ids):
                _ask(wish, chosen)
            verdicts = list(told(repair.carry_out(app.engine(), wish, chosen), quiet=as_json))
        sum_up(verdicts, dry=dry_run, as_json=as_json)

    made: click.Command = command
    return made


def _lines(file: TextIO | None) -> Iterator[str]:
    return (line.strip() for line in file or () if line.strip())


def _matching(filters: repair.Filters) -> list[str]:
    with app.engine().connect() as db:
        return repair.matching(db, filters, app.now())


def _ask(wish: repair.Wish, chosen: list[str]) -> None:
    """Say what it means, and go on only with a yes."""
    effect = repair.EFFECTS[wish.name].format(ending=wish.policy.ending)
    click.confirm(f"{wish.name} {len(chosen)} cases? {effect}", abort=True, err=True)


def told(verdicts: Iterable[Verdict], *, quiet: bool) -> Iterator[Verdict]:
    """Pass verdicts on, and print each unless it is to be quiet."""
    for each in verdicts:
        if not quiet:
            what = click.style("done   ", fg="green") if each.done else click.style("skipped", fg="yellow")
            click.echo(f"{what}  {each.asked}: {each.why}")
        yield each


def sum_up(verdicts: Sequence[Verdict], *, dry: bool, as_json: bool) -> None:
    """Print how many wishes were fulfilled; end with 1 unless all were."""
    done = sum(each.done for each in verdicts)
    if as_json:
        show({"dry_run": dry, "done": done, "verdicts": [each.as_json() for each in verdicts]})
    else:
        click.echo(f"{done} of {len(verdicts)} {'would be done: nothing was changed' if dry else 'done'}")
    if done < len(verdicts):
        raise click.exceptions.Exit(1)


acting("pause", "Charge, tell and end nothing until the case is resumed.")
acting("resume", "Let paused cases go on.")
acting("stop", "Give cases up now, with the policy's ending.")
acting("release", "Hand cases to a person: nothing is charged, written or ended any more.")
acting("retry", "Charge at the next open hour, within the networks' budgets, whatever the ladder says.")
