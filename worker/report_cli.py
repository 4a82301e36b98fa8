"""The commands that report: which cohort, by what, and in which form; who left is told by one of its own."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import click
from babel.numbers import list_currencies

from schedules.arms import A, B
from worker import app
from worker.churn_cli import churn, day
from worker.installation import as_json, installation, show, write
from worker.report import Report, make_report, spreadsheet, view
from worker.report.sql import DIMENSIONS, Question


def _costs(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, Decimal]:
    """Return what a charge costs by currency; each is named once."""
    costs: dict[str, Decimal] = {}
    for value in values:
        found = re.fullmatch("([A-Za-z]{3})=([0-9]{1,9}(?:[.][0-9]{1,9})?)", value)
        if found is None:
            msg = f"{value!r}: expected a currency and an amount such as USD=0.15"
            raise click.BadParameter(msg)
        currency = found[1].lower()
        if currency.upper() not in list_currencies():
            msg = f"{value!r}: {found[1]} is no currency"
            raise click.BadParameter(msg)
        if currency in costs:
            msg = f"{value!r}: {found[1]} is named twice"
            raise click.BadParameter(msg)
        costs[currency] = Decimal(found[2])
    return costs


@click.group(invoke_without_command=True)
@click.option("--from", "begin", callback=day, metavar="DATE", help="First day on which payments failed, in UTC.")
@click.option("--to", "end", callback=day, metavar="DATE", help="The day after the last one.")
@click.option("--by", type=click.Choice(list(DIMENSIONS)), help="Tell groups apart, too.")
@click.option(
    "--attempt-cost", multiple=True, callback=_costs, metavar="CURRENCY=AMOUNT", help="What one charge costs; again."
)
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets, a row for each group.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures to FILE.")
@click.pass_context
def report(  # noqa: PLR0913 - one argument for each option
    context: click.Context,
    *,
    begin: datetime | None,
    end: datetime | None,
    by: str | None,
    attempt_cost: dict[str, Decimal],
    as_json: bool,
    as_csv: bool,
    html: Path | None,
) -> None:
    """Tell what came back within 30 days, by which means, and at what price; or, by a command, who left."""
    if context.invoked_subcommand:
        if any(context.params.values()):
            msg = f"options of {context.invoked_subcommand} come after its name"
            raise click.UsageError(msg)
        return
    if as_json + as_csv + (html is not None) > 1:
        msg = "--json, --csv and --html exclude one another"
        raise click.UsageError(msg)
    if begin and end and end <= begin:
        msg = f"{end.date()} does not come after --from {begin.date()}"
        raise click.BadParameter(msg, param_hint="'--to'")
    with installation(), app.engine().connect() as db:
        policy = app.policy()
        question = Question(begin, end, by, attempt_cost, same_policy=policy.of(A) == policy.of(B))
        found = make_report(db, app.now(), question)
    if as_json:
        show(found.as_json())
    elif as_csv:
        click.echo(spreadsheet.table(found), nl=False)
    elif html:
        _write(html, found)
    else:
        view.tell(found)


report.add_command(churn)


def _write(file: Path, found: Report) -> None:
    """Write the page, or say why the file cannot be written."""
    from worker.report.page import page

    write(file, page(found), "--html")
    click.echo(f"{file}: {view.heading(found)}")
