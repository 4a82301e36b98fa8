"""The command that learns, from this installation's own charges or from a world; only what is better is promoted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schedules import Policy
from worker import app
from worker.installation import as_json, installation, show, write
from worker.learn import LEAST_MATCHED, NothingToLearn, Verdict, chosen, fit, from_play, judge, logged, version_at
from worker.practice.world import BuiltInWorld
from worker.practice.worlds import Checked, WorldError, load_world
from worker.progress import progress
from worker.simulate import NoEnd, play
from worker.simulate.policies import plan_of

if TYPE_CHECKING:
    from worker.learn import Estimate, Sample
    from worker.practice.protocol import World


@click.command()
@click.option("--policy", "file", type=click.Path(path_type=Path), help="What runs; default: the policy in force.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the model to FILE if it is better.")
@click.option("--simulate", "payments", type=click.IntRange(1), help="Learn from so many payments of a world instead.")
@click.option("--world", "place", metavar="FILE.py:CLASS", help="Which world; default: the built-in one.")
@click.option("--seed", default=1, show_default=True, help="Another one draws anew.")
@as_json
def learn(  # noqa: PLR0913 - one argument for each option
    *, file: Path | None, out: Path | None, payments: int | None, place: str | None, seed: int, as_json: bool
) -> None:
    """Learn which instants pay, and judge the model against what runs; a model that is not better is not written."""
    if place and not payments:
        msg = "--world needs --simulate, and how many payments"
        raise click.UsageError(msg)
    policy = Policy.load(file) if file else app.policy()
    try:
        samples = _simulated(policy, place, seed, payments, quiet=as_json) if payments else _stored()
        with progress("charges judged", quiet=as_json) as step:
            verdict = judge(samples, policy, step)
        model = fit(samples, version_at(app.now(), len(samples)))
    except (NothingToLearn, WorldError, NoEnd) as error:
        raise click.ClickException(str(error)) from None
    if out and verdict.better:
        write(out, json.dumps(model.as_json(), indent=1, sort_keys=True) + "\n", "--out")
    if as_json:
        show({"version": model.version, "charges": len(samples), **verdict.as_json()})
    else:
        _tell(model.version, len(samples), verdict, out)
    if not verdict.better:
        raise click.exceptions.Exit(1)


def _stored() -> list[Sample]:
    """Return the charges of this installation."""
    with installation(), app.engine().connect() as db:
        return list(chosen(logged(db)))


def _simulated(policy: Policy, place: str | None, seed: int, payments: int, *, quiet: bool) -> list[Sample]:
    """Return the charges of a policy in a world."""
    make: Callable[[], World] = lambda: BuiltInWorld(seed, payments)  # noqa: E731 - one of two
    if place:
        make = lambda: Checked(load_world(place, seed, payments), place)  # noqa: E731
    plan, played = plan_of("", policy), []
    with progress("payments", quiet=quiet) as step:
        for number, each in enumerate(play(make(), plan.decide, cooldown=plan.cooldown), start=1):
            played.append(each)
            step(number)
    return list(chosen(from_play(played)))


def _tell(version: str, charges: int, found: Verdict, out: Path | None) -> None:
    click.echo(f"model {version}: {charges} charges, {found.charges} of them drawn or planned with a known chance")
    click.echo(f"foretold {found.foretold:.1%} approvals, {found.came:.1%} came; by tenths of what was foretold:")
    for foretold, came, count in found.tenths:
        click.echo(f"  {foretold:6.1%} foretold  {came:6.1%} came  {count} charges  {'#' * round(40 * came)}")
    click.echo("worth of a decision (1 for an approval, less the cost of an attempt; 0 for none), and its interval:")
    for name, worth in (("what runs", found.running), ("the model", found.model)):
        click.echo(f"  {name}: {worth.matched} charges went as it would have sent them, {worth.stops:.1%} not at all")
        for title, each in (("direct", worth.direct), ("IPS", worth.ips), ("doubly robust", worth.doubly_robust)):
            click.echo(f"    {title:13} {_shown(each)}")
    click.echo(f"gain, doubly robust: {_shown(found.gain)}")
    if not found.better:
        click.echo(f"not promoted: {_why_not(found)}", err=True)
    elif out:
        click.echo(f"promoted: {out}; a policy with model = {json.dumps(str(out))} uses it")
    else:
        click.echo("better than what runs; --out FILE writes it")


def _why_not(found: Verdict) -> str:
    if not found.enough:
        return f"too few charges went where both would have sent them: {LEAST_MATCHED} are needed; let more explore"
    return "it is not certainly better than what runs" if found.calibrated else "its chances do not hold"


def _shown(each: Estimate) -> str:
    return f"{each.mean:+.4f} ({each.low:+.4f} to {each.high:+.4f})"
