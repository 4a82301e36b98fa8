"""The commands of risk: score every subscription and show the highest; learn a better model from what came."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import Row

from schedules.learned import Model
from worker import app
from worker.installation import as_json, installation, show, write
from worker.learn import NothingToLearn, version_at
from worker.locales import money
from worker.progress import progress
from worker.risk.judge import Horizon, Verdict, judge
from worker.risk.nightly import KIND, model_of, read_and_score
from worker.risk.samples import Lesson, fit, logged
from worker.risk.scores import highest
from worker.settings import load_settings
from worker.subscriptions import Counts

if TYPE_CHECKING:
    from worker.risk.simulated import Kept


def _share(_context: click.Context, _option: click.Parameter, value: str) -> float:
    """Return the share that ``75%`` or ``75`` names."""
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        msg = f"{value!r}: expected 0% to 100%"
        raise click.BadParameter(msg)
    return share


@click.group(invoke_without_command=True)
@click.option("--no-read", is_flag=True, help="Score what is stored; do not ask the provider.")
@click.option("--model", "file", type=click.Path(path_type=Path), help="A model of `risk learn`; default: the setting.")
@click.option("--least", default="0%", callback=_share, metavar="SHARE", help="Show from this chance within 90 days.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Show so many at most.")
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets, a row for each subscription.")
@click.pass_context
def risk(  # noqa: PLR0913 - one argument for each option
    context: click.Context, *, no_read: bool, file: Path | None, least: float, limit: int, as_json: bool, as_csv: bool
) -> None:
    """Score how likely each subscription is lost to a payment within 30 and 90 days; show the highest."""
    if context.invoked_subcommand:
        return
    if as_json and as_csv:
        msg = "--json and --csv exclude one another"
        raise click.UsageError(msg)
    counts, now = Counts(), app.now()
    with installation():
        model = model_of(file or load_settings().risk_model)
        gateway = None if no_read else app.gateway()
        with progress("subscriptions", quiet=as_json or as_csv) as step:
            for number in read_and_score(app.engine(), gateway, now, model, counts):
                step(number)
        with app.engine().connect() as db:
            found = [_told(row) for row in highest(db, now, least, limit)]
    if as_json:
        show({"model": model.version, "read": counts.read, **_left_out(counts), "subscriptions": found})
    elif as_csv:
        click.echo(_table(found), nl=False)
    else:
        _print(found, counts, model.version)


def _told(row: Row[Any]) -> dict[str, Any]:
    """Return one subscription with its score."""
    return {
        "subscription": row.id,
        "account": row.account,
        "customer": row.customer_id,
        "plan": row.plan,
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "next_charge_at": row.next_charge_at.isoformat() if row.next_charge_at else None,
        "chance_30": round(row.chance_30, 4),
        "chance_90": round(row.chance_90, 4),
        "reasons": row.reasons,
        "model": row.model,
    }


def _left_out(counts: Counts) -> dict[str, Any]:
    return {"never_paid": counts.never_paid, "gone": counts.gone, "rejected": counts.rejected}


def _table(found: list[dict[str, Any]]) -> str:
    """Return rows for a spreadsheet."""
    names = ("subscription", "account", "customer", "plan", "amount_minor", "currency", "next_charge_at", "chance_30")
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow((*names, "chance_90", "reasons", "model"))
    for each in found:
        reasons = "; ".join(each["reasons"])
        sheet.writerow((*(each[name] for name in names), each["chance_90"], reasons, each["model"]))
    return out.getvalue()


def _print(found: list[dict[str, Any]], counts: Counts, version: str) -> None:
    click.echo(f"{counts.read} subscriptions read; scored by {version}; chances within 30 and 90 days")
    for each in found:
        due = (each["next_charge_at"] or "no charge")[:10]
        click.echo(f"{each['chance_30']:6.1%} {each['chance_90']:6.1%}  {each['subscription']}  {due}")
        for reason in each["reasons"]:
            click.echo(f"{'':17}{reason}")
    for each in counts.rejected:
        click.echo(f"left out: {each['subscription']}: {each['reason']}", err=True)
    if counts.gone:
        click.echo(f"shown no longer: {', '.join(counts.gone)}", err=True)


@risk.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the model to FILE if it is better.")
@click.option("--simulate", "number", type=click.IntRange(100), help="Learn from a year of so many practice lives.")
@click.option("--seed", default=1, show_default=True, help="Which lives; those of the next seed judge the model.")
@as_json
def learn(*, out: Path | None, number: int | None, seed: int, as_json: bool) -> None:
    """Learn what was seen of subscriptions before a payment lost them; only a model that is better is written."""
    try:
        lessons, others = _simulated(number, seed) if number else (_stored(), None)
        verdict = judge(others or lessons, lessons if others else None)
        model = fit(lessons, KIND + version_at(app.now(), len(lessons)))
    except NothingToLearn as error:
        raise click.ClickException(str(error)) from None
    if out and verdict.better:
        write(out, json.dumps(model.as_json(), indent=1, sort_keys=True) + "\n", "--out")
    help_given = _kept(model, number, seed) if number else []
    if as_json:
        told = {"version": model.version, "lessons": len(lessons), **verdict.as_json()}
        show({**told, "prevention": [each.as_json() for each in help_given]})
    else:
        _tell(model.version, len(lessons), verdict, out)
        for each in help_given:
            _tell_kept(each)
    if not verdict.better:
        raise click.exceptions.Exit(1)


def _stored() -> list[Lesson]:
    """Return what this installation's own scores teach."""
    with installation(), app.engine().connect() as db:
        return list(logged(db, app.now()))


def _simulated(number: int, seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Return what the lives of a seed teach, and those of the next one to judge it by."""
    from worker.risk.simulated import lessons

    return list(lessons(number, seed)), list(lessons(number, seed + 1))


def _kept(model: Model, number: int, seed: int) -> list[Kept]:
    """Return what prevention keeps in the lives of the next seed, by where it begins."""
    from worker.risk.simulated import kept

    return list(kept(model, number, seed + 1))


def _tell_kept(each: Kept) -> None:
    monthly = ", ".join(f"{money(of, name)} of {money(lost, name)}" for name, (lost, of) in each.monthly.items())
    click.echo(f"prevention from {each.least:.0%} on: before {each.helped} renewals; {each.kept} of {each.lost} kept")
    click.echo(f"  a month of them: {monthly}")


def _tell(version: str, lessons: int, found: Verdict, out: Path | None) -> None:
    click.echo(f"model {version}: {lessons} lessons")
    for each in found.horizons:
        _tell_horizon(each)
    if not found.better:
        click.echo("not written: it is not certainly better than each, or its chances do not hold", err=True)
    elif out:
        click.echo(f"written: {out}; DUNNING_RISK_MODEL={out} uses it")
    else:
        click.echo("better; --out FILE writes it")


def _tell_horizon(each: Horizon) -> None:
    click.echo(f"within {each.days} days: {each.count} judged, {each.foretold:.2%} foretold, {each.came:.2%} lost")
    for foretold, came, between, count in each.tenths:
        low, high = between or (0.0, 1.0)
        bar = "#" * round(40 * came)
        click.echo(f"  {foretold:6.2%} foretold  {came:6.2%} lost ({low:.2%} to {high:.2%})  of {count:5}  {bar}")
    click.echo(f"  lift of the last tenth {each.lift:.1f} ({each.lift_between[0]:.1f} to {each.lift_between[1]:.1f})")
    click.echo(f"  it holds {each.caught:.0%} of what was lost; Brier score {each.brier['model']:.5f}, better than")
    for who, gain in each.gain.items():
        click.echo(f"    {who:13} {each.brier[who]:.5f} by {gain.mean:+.5f} ({gain.low:+.5f} to {gain.high:+.5f})")
