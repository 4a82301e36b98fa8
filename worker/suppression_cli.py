"""Commands about who is not written to: list them, name one, write to one again, and hear of mail that came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from schedules.steps import utc_text
from worker import app
from worker.bounces import BadReport, from_mail, note
from worker.installation import as_json, installation, show
from worker.models import cases
from worker.suppressions import BY_HAND, Customer, lift, listed, suppress

if TYPE_CHECKING:
    from sqlalchemy import Row

account_option = click.option("--account", help="The connected account whose customer it is.")


@click.command()
@click.argument("file", type=click.File("rb"))
@as_json
def bounced(file: BinaryIO, *, as_json: bool) -> None:
    """Take a delivery status notification from FILE (- is standard input): mail that came back, is late or arrived."""
    try:
        report = from_mail(file.read())
    except BadReport as error:
        raise click.ClickException(str(error)) from None
    with installation(), app.engine().begin() as db:
        ours = note(db, report, app.now())
    if as_json:
        show({"outcome": report.outcome, "ours": ours})
    else:
        click.echo(report.outcome if ours else f"{report.outcome}, ignored: no notice of ours has this Message-ID")


@click.command()
@as_json
def suppressed(*, as_json: bool) -> None:
    """List who is not written to, and why."""
    with installation(), app.engine().connect() as db:
        told = [_shown(row) for row in listed(db)]
    if as_json:
        show(told)
        return
    table = Table("customer", "account", "why", "since", box=None)
    for each in told:
        table.add_row(*(str(value or "") for value in each.values()))
    Console().print(table if told else "Everybody is written to.")


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {"customer_id": row.customer_id, "account": row.account, "why": row.why, "since": utc_text(row.at)}


@click.command("suppress")
@click.argument("customer_id", metavar="CUSTOMER")
@account_option
@as_json
def by_hand(customer_id: str, account: str | None, *, as_json: bool) -> None:
    """Send CUSTOMER no notice at all, whatever the channel, until `unsuppress`."""
    theirs = cases.c.customer_id == customer_id, cases.c.account.is_not_distinct_from(account)
    with installation(), app.engine().begin() as db:
        new = suppress(db, Customer(customer_id, account), BY_HAND, app.now())
        known = db.execute(select(cases.c.id).where(*theirs).limit(1)).first() is not None
    if as_json:
        show({"customer_id": customer_id, "account": account, "new": new, "has_cases": known})
        return
    more = ("" if new else ", as before") + ("" if known else "; there is no case of this customer so far")
    click.echo(f"{customer_id} is not written to{more}")


@click.command()
@click.argument("customer_id", metavar="CUSTOMER")
@account_option
@as_json
def unsuppress(customer_id: str, account: str | None, *, as_json: bool) -> None:
    """Write to CUSTOMER again, who opted out too, and to all who share an address that sent mail back."""
    with installation(), app.engine().begin() as db:
        lifted = lift(db, Customer(customer_id, account))
    if as_json:
        show({"customer_id": customer_id, "account": account, "lifted": lifted})
    elif lifted:
        click.echo(f"{customer_id} is written to again; lifted: {', '.join(lifted)}")
    if not lifted:
        click.echo(f"{customer_id} was written to all the time", err=True)
        raise click.exceptions.Exit(1)


COMMANDS = (bounced, suppressed, by_hand, unsuppress)
