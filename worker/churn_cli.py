"""The command that reports churn: which period, by what, against which other, and in which form."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from worker import app
from worker.churn import Churn, make_churn, spreadsheet, view
from worker.churn.sql import DIMENSIONS, Period, Question, period
from worker.installation import as_json, installation, show, write
from worker.report.sql import day_named


def day(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Return the beginning of a day, in UTC."""
    try:
        return day_named(value) if value else None
    except ValueError as error:
        msg = f"{value!r} is no day: {error}"
        raise click.BadParameter(msg) from None


def _days(context: click.Context, option: click.Parameter, value: str | None) -> Period | None:
    """Return the period that two days name."""
    if value is None:
        return None
    first, apart, last = value.partition("..")
    begin, end = day(context, option, first), day(context, option, last)
    if not (apart and begin and end and begin < end):
        msg = f"{value!r}: expected two days such as 2025-01-01..2025-02-01"
        raise click.BadParameter(msg)
    return Period(begin, end)


@click.command()
@click.option("--from", "begin", callback=day, metavar="DATE", help="First day, in UTC; none: of the last full month.")
@click.option("--to", "end", callback=day, metavar="DATE", help="The day after the last one; none: a month later.")
@click.option("--by", type=click.Choice(list(DIMENSIONS)), help="Tell groups apart, too.")
@click.option("--before", callback=_days, metavar="DATE..DATE", help="Compare with an earlier period.")
@as_json
@click.option("--csv", "csv", type=click.Path(dir_okay=False, path_type=Path), help="Write a table to FILE.")
def churn(  # noqa: PLR0913 - one argument for each option
    *,
    begin: datetime | None,
    end: datetime | None,
    by: str | None,
    before: Period | None,
    as_json: bool,
    csv: Path | None,
) -> None:
    """Tell who left within a period, of those who were there at its start, why, and what they had paid."""
    with installation(), app.engine().connect() as db:
        now = app.now()
        asked = _period(now, begin, end)
        if before and before.end > asked.begin:
            msg = f"it ends after the period begins, on {asked.begin.date()}"
            raise click.BadParameter(msg, param_hint="'--before'")
        found = make_churn(db, now, Question(asked, by, before, app.policy().experiment))
    _tell(found, as_json=as_json, csv=csv)


def _period(now: datetime, begin: datetime | None, end: datetime | None) -> Period:
    try:
        return period(now, begin, end)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--to'") from None


def _tell(found: Churn, *, as_json: bool, csv: Path | None) -> None:
    """Answer in the form that was asked for."""
    if csv:
        write(csv, spreadsheet.table(found), "--csv")
    if as_json:
        show(found.as_json())
    elif csv:
        click.echo(f"{csv}: {view.heading(found)}")
    else:
        view.tell(found)
