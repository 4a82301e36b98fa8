"""Commands about what would be done: the calendar of a payment, and the policy that makes it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import tomli_w

from schedules import Policy
from worker import app, plans
from worker.installation import as_json, show
from worker.progress import progress

MANY = 20


@click.command()
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


@click.group()
def policy() -> None:
    """The merchant's policy."""


@policy.command("show")
@as_json
def policy_show(as_json: bool) -> None:
    """Print the policy in force, as a file that can be changed and used."""
    chosen = as_table(app.policy())
    show(json.loads(json.dumps(chosen, default=str))) if as_json else click.echo(tomli_w.dumps(chosen), nl=False)


def as_table(policy: Policy) -> dict[str, Any]:
    """Return a policy as the table that it could have been read from; of rival and segments only what they change."""
    chosen = _table(policy)
    told: dict[str, Any] = {"rival": _changes(chosen, policy.rival)} if policy.rival else {}
    segments = [_known(asdict(who)) | _changes(chosen, mine) for who, mine in policy.segments]
    return chosen | told | ({"segments": segments} if segments else {})


def _table(policy: Policy) -> dict[str, Any]:
    table: dict[str, Any] = _known(asdict(replace(policy, rival=None, segments=())))
    return {key: value for key, value in table.items() if key != "segments"}


def _changes(chosen: dict[str, Any], other: Policy) -> dict[str, Any]:
    return {key: value for key, value in _table(other).items() if value != chosen.get(key)}


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
    with progress("calendars", quiet=as_json) as step:
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
