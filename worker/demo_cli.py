"""The command that practises."""

from __future__ import annotations

import click

from worker import demo as practice
from worker.demo_view import tell
from worker.installation import as_json, show


@click.command()
@click.option("--seed", default=7, show_default=True, help="Which customers, banks and luck.")
@click.option(
    "--payments", default=200, show_default=True, type=click.IntRange(1, 10_000), help="How many renewals fail."
)
@click.option(
    "--days", default=45, show_default=True, type=click.IntRange(29, 365), help="How long the practice lasts."
)
@click.option("--mode", default="live", show_default=True, type=click.Choice(["observe", "live"]), help="DUNNING_MODE.")
@as_json
def demo(seed: int, payments: int, days: int, mode: str, as_json: bool) -> None:
    """Practise: failing subscriptions against a practice bank, a month in a minute, with every part real."""
    try:
        result = practice.run(practice.Practice(seed, payments, days, mode), quiet=as_json)
    except practice.Stuck as error:
        raise click.ClickException(str(error)) from None
    show(result.as_json()) if as_json else tell(result)
    if result.broken:
        raise click.exceptions.Exit(1)
