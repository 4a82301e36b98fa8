"""The command line: thin commands, one function behind each. ``--json`` everywhere, exit code 0 only on success."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import tomli_w
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from schedules import Policy, PolicyError
from worker import (
    app,
    case_cli,
    catchup,
    checks,
    database,
    doctor_view,
    eventfile,
    inbox,
    logs,
    notice_cli,
    operations,
    outbox_cli,
    plans,
    replay_cli,
    report_cli,
    role_cli,
    suppression_cli,
    tasks,
)
from worker.doctor import examine
from worker.embedded_site import EmbeddedError
from worker.installation import as_json, installation, instant_named, show
from worker.roles import stop_on_signals, stop_with_parent
from worker.settings import SettingsError, load_settings
from worker.stripe_gateway import GatewayError
from worker.words import NotWritten

MANY = 20
EXPECTED = (
    SettingsError,
    PolicyError,
    EmbeddedError,
    NotWritten,
    database.MigrationMissing,
    checks.NotReady,
    GatewayError,
)


class Clean(click.Group):
    """A group whose expected errors are one clear line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every error that a user can mend is told without a traceback."""
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


@click.group(cls=Clean, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dunning")
def main() -> None:
    """Win failed subscription payments back before the customer notices."""
    stop_on_signals()
    stop_with_parent()
    logs.set_up()


GROUPS = case_cli.case, notice_cli.notice, outbox_cli.outbox, report_cli.report
for operation in (*role_cli.COMMANDS, *operations.COMMANDS, *replay_cli.COMMANDS, *GROUPS):
    main.add_command(operation)
for operation in suppression_cli.COMMANDS:
    notice_cli.notice.add_command(operation)


@main.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@as_json
def db_upgrade(as_json: bool) -> None:
    """Bring the database to the shape of this version."""
    with installation(migrate=True):
        show({"upgraded": True}) if as_json else click.echo("The database is up to date.")


@main.command()
@click.argument("file", type=click.File("rb"))
@as_json
def ingest(file: BinaryIO, as_json: bool) -> None:
    """Keep the Stripe events of FILE (- is standard input) and open their cases."""
    counts = eventfile.Counts()
    with installation(), _progress("events", quiet=as_json) as step:
        for number, _ in enumerate(eventfile.ingest(app.engine(), eventfile.read_values(file), counts), start=1):
            step(number)
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


@main.command()
@click.option("--since", callback=_since, help="From where on: 30d, 2h, or an ISO time. Default: where it last ended.")
@as_json
def sync(since: datetime | None, as_json: bool) -> None:
    """Catch up: read the events that Stripe lists, 30 days at most, then look for open invoices without a case."""
    counts, read, opened, again = eventfile.Counts(), 0, 0, 0
    with installation(), _progress("events", quiet=as_json) as step:
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


def _tell_counts(counts: eventfile.Counts) -> None:
    names = {"".join(c if c.isprintable() else "?" for c in name): n for name, n in counts.ignored_types.items()}
    types = ", ".join(f"{name} {number}" for name, number in sorted(names.items()))
    ignored = f"{counts.ignored} ignored" + (f" (not ours: {types})" if types else "")
    click.echo(f"{counts.new} new, {counts.duplicate} duplicate, {ignored}, {len(counts.rejected)} rejected")
    for one in counts.rejected[:MANY]:
        where = f"line {one['line']}" if "line" in one else one["event"]
        click.echo(f"{where}: {one['reason']}", err=True)
    if len(counts.rejected) > MANY:
        click.echo(f"and {len(counts.rejected) - MANY} more; --json lists them all", err=True)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Any]:
    """Show a counter on a terminal; yield a function that takes the number done, or None while finishing."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _number: None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task(what)

        def step(number: int | None) -> None:
            progress.update(task, description="opening cases" if number is None else f"{number} {what}")

        yield step


@main.command()
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="TOML file; default: DUNNING_POLICY.")
@as_json
def plan(file: Any, policy_file: Path | None, as_json: bool) -> None:
    """Print the calendar of each failed payment in FILE (JSON lines), if every charge is declined again."""
    policy = Policy.load(policy_file) if policy_file else app.policy()
    bad = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            calendar = plans.calendar(plans.payment_from(line), policy)
        except plans.BadPayment as error:
            bad += 1
            click.echo(f"line {number}: {error}", err=True)
            continue
        show(calendar) if as_json else _tell_calendar(calendar)
    if bad:
        raise click.exceptions.Exit(1)


def _tell_calendar(calendar: dict[str, Any]) -> None:
    shared = [why for why in calendar["steps"][0]["reasons"] if why.startswith(("class:", "evidence:", "unknown:"))]
    click.echo(f"{calendar['payment_id']}  {', '.join(shared)}")
    for step in calendar["steps"]:
        what = step.get("notice") or step.get("outcome") or ""
        why = "; ".join(reason for reason in step["reasons"] if reason not in shared)
        click.echo(f"  {step['at']}  {step['local']}  {step['step']:8} {what:16} {why}")


@main.group()
def policy() -> None:
    """The merchant's policy."""


@policy.command("show")
@as_json
def policy_show(as_json: bool) -> None:
    """Print the policy in force, as a file that can be changed and used."""
    chosen = as_table(app.policy())
    show(json.loads(json.dumps(chosen, default=str))) if as_json else click.echo(tomli_w.dumps(chosen), nl=False)


def as_table(policy: Policy) -> dict[str, Any]:
    """Return a policy as the table that it could have been read from; of its rival only what that does otherwise."""
    chosen: dict[str, Any] = _known(asdict(policy))
    rival = chosen.pop("rival", {})
    others = {key: value for key, value in rival.items() if value != chosen[key]}
    return chosen | ({"rival": others} if rival else {})


def _known(value: Any) -> Any:
    """Return a value without the keys that hold nothing: TOML has no word for it."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items() if item is not None}
    return [_known(item) for item in value] if isinstance(value, tuple) else value


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@as_json
def policy_check(file: Path, as_json: bool) -> None:
    """Check a policy FILE: every value, what contradicts itself, and that every case comes to an end."""
    chosen = Policy.load(file)
    with _progress("calendars", quiet=as_json) as step:
        found = plans.check(chosen, step)
    show(found.as_json()) if as_json else _tell_check(file, found)
    if not found.ok:
        raise click.exceptions.Exit(1)


def _tell_check(file: Path, found: plans.Checked) -> None:
    for line in (*found.contradictions, *found.counterexamples[:MANY]):
        click.echo(f"{file}: {line}", err=True)
    if len(found.counterexamples) > MANY:
        click.echo(f"and {len(found.counterexamples) - MANY} more; --json lists them all", err=True)
    if found.ok:
        click.echo(f"{file}: a valid policy")
    if not found.counterexamples:
        click.echo(f"{found.calendars} calendars, of every decline code: each one ends in time and keeps every promise")


@main.command()
@as_json
def doctor(as_json: bool) -> None:
    """Look whether everything is in order, and say what to do where it is not."""
    with installation(check=False):
        found = examine(app.engine(), load_settings(), app.now())
    if as_json:
        told = [{"code": each.code, "count": each.count} for each in found.unknown]
        show({"checks": [asdict(each) for each in found.checks], "unknown_codes": told})
    else:
        doctor_view.tell(found.checks)
    if not all(each.ok for each in found.checks):
        raise click.exceptions.Exit(1)


@main.command()
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
    from worker import demo as practice
    from worker.demo_view import tell

    try:
        result = practice.run(practice.Practice(seed, payments, days, mode), quiet=as_json)
    except practice.Stuck as error:
        raise click.ClickException(str(error)) from None
    show(result.as_json()) if as_json else tell(result)
    if result.broken:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    sys.exit(main())
