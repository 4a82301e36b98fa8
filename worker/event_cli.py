"""Commands that take events in: from a file, and from what the provider lists."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from itertools import accumulate
from typing import BinaryIO

import click

from worker import app, catchup, inbox, tasks
from worker.eventfile import read_raw
from worker.ingest import Counts
from worker.ingest import ingest as take_in_file
from worker.installation import as_json, installation, instant_named, show
from worker.progress import progress

MANY = 20


@click.command()
@click.argument("file", type=click.File("rb"))
@as_json
def ingest(file: BinaryIO, as_json: bool) -> None:
    """Keep the Stripe events of FILE (- is standard input) and open their cases."""
    counts, values = Counts(), read_raw(file)
    with installation(), progress("events", quiet=as_json) as step:
        try:
            for number in accumulate(take_in_file(app.engine(), app.policy(), app.now(), values, counts)):
                step(number)
        except BrokenProcessPool:
            msg = "a process that took events in was ended from outside: run this again, what is kept stays kept"
            raise click.ClickException(msg) from None
        while inbox.drain(app.engine(), app.policy(), app.now(), most=100):
            step(None)
    show(counts.as_json()) if as_json else _tell_counts(counts)
    if counts.rejected:
        raise click.exceptions.Exit(1)


def _since(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Return the instant that is named, as far back as the provider lists events."""
    if value is None:
        return None
    now = app.now()
    at = instant_named(value, now)
    if not now - catchup.LISTED <= at <= now:
        msg = f"{value} is in the future, or further back than the {catchup.LISTED.days} days that Stripe lists events"
        raise click.BadParameter(msg)
    return at


@click.command()
@click.option("--since", callback=_since, help="From where on: 30d, 2h, or an ISO time. Default: where it last ended.")
@as_json
def sync(since: datetime | None, as_json: bool) -> None:
    """Catch up: read the events that Stripe lists, 30 days at most, then look for open invoices without a case."""
    counts, read, opened, again = Counts(), 0, 0, 0
    with installation(), progress("events", quiet=as_json) as step:
        desk = tasks.desk()
        for account in catchup.accounts(app.engine()):
            for number in catchup.missed_events(desk, counts, account, first=catchup.LISTED, since=since):
                step(read := read + number)
        while inbox.drain(app.engine(), app.policy(), desk.now, most=100):
            step(None)
        for account in catchup.accounts(app.engine()):
            swept = catchup.sweep_invoices(desk, account)
            opened, again = opened + swept[0], again + swept[1]
    if as_json:
        show({**counts.as_json(), "opened": opened, "read_again": again})
    else:
        _tell_counts(counts)
        click.echo(f"{opened} cases opened for invoices of which no event told, {again} read again")
    if counts.rejected:
        raise click.exceptions.Exit(1)


def _tell_counts(counts: Counts) -> None:
    names = {"".join(c if c.isprintable() else "?" for c in name): n for name, n in counts.ignored_types.items()}
    types = ", ".join(f"{name} {number}" for name, number in sorted(names.items()))
    ignored = f"{counts.ignored} ignored" + (f" (not ours: {types})" if types else "")
    click.echo(f"{counts.new} new, {counts.duplicate} duplicate, {ignored}, {len(counts.rejected)} rejected")
    for one in counts.rejected[:MANY]:
        where = f"line {one['line']}" if "line" in one else one["event"]
        click.echo(f"{where}: {one['reason']}", err=True)
    if len(counts.rejected) > MANY:
        click.echo(f"and {len(counts.rejected) - MANY} more; --json lists them all", err=True)
