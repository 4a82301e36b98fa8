"""Commands about what is to come: help whoever is at risk before the next charge, and list who will not renew."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any

import click

from worker import app, tasks
from worker.installation import as_json, installation, show
from worker.leavers import announce, leaving, told_of
from worker.prevention import Help, prevent
from worker.renewals import policy_of


@click.command("prevent")
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would be done; nothing is read or written.")
@as_json
def prevent_command(*, dry: bool, as_json: bool) -> None:
    """Help those whom the next charge is likely to lose: silently first. Says what was done about each, and why."""
    with installation():
        desk = tasks.desk()
        done = list(prevent(desk, dry=dry))
        told = {} if dry else announce(desk)
    counts = Counter(each.act for each in done)
    if as_json:
        show({"dry_run": dry, "counts": counts, "announced": told, "subscriptions": [each.as_json() for each in done]})
        return
    for each in done:
        click.echo(_line(each))
    click.echo(", ".join(f"{act} {number}" for act, number in sorted((counts + Counter(told)).items())) or "Nobody.")


def _line(each: Help) -> str:
    told = each.as_json()
    return f"{each.chance_90:4.0%}  {each.subscription_id}  {told['charge_at'][:10]}  {each.act}: {each.why}"


@click.command("renewals")
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets, a row for each subscription.")
def renewals(*, as_json: bool, as_csv: bool) -> None:
    """List the subscriptions whose automatic renewal is off, with the best moment to remind their customers."""
    if as_json and as_csv:
        msg = "--json and --csv exclude one another"
        raise click.UsageError(msg)
    with installation():
        now, policy = app.now(), app.policy()
        with app.engine().connect() as db:
            found = [told_of(row, policy_of(policy, row, now), now) for row in leaving(db, now)]
    if as_json:
        show(found)
    elif as_csv:
        click.echo(_table(found), nl=False)
    else:
        for each in found:
            moment = each["best_moment"] or "none is left"
            click.echo(f"{each['subscription_id']}  ends {each['ends_at']}  best moment {moment}")
        click.echo(f"{len(found)} with automatic renewal off")


def _table(found: list[dict[str, Any]]) -> str:
    """Return rows for a spreadsheet."""
    names = (
        *("subscription_id", "account", "customer_id", "plan", "amount_minor", "monthly_minor", "currency"),
        *("tenure_days", "started_at", "off_since", "ends_at", "best_moment", "feedback"),
    )
    out = io.StringIO()
    sheet = csv.DictWriter(out, names, lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(found)
    return out.getvalue()
