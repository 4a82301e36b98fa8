"""Commands of an operator: is all in order, charge nothing for now, and this database comes from a backup."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from worker import app, audit, doctor_view, stops
from worker.doctor import examine
from worker.installation import as_json, installation, show
from worker.settings import load_settings

MODE = "nothing is charged, said or ended until every charge of ours since then is known again"
HOW = "workers do that by themselves within minutes; `dunning sync` reads the events at once"


@click.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@as_json
def db_upgrade(as_json: bool) -> None:
    """Bring the database to the shape of this version."""
    with installation(migrate=True):
        show({"upgraded": True}) if as_json else click.echo("The database is up to date.")


@click.command()
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


@click.command("audit")
@as_json
def audit_command(as_json: bool) -> None:
    """Look whether what must always be true is true; it only reads."""
    with installation():
        found = audit.examine(app.engine(), app.policy(), app.now())
    broken = [each for each in found if not each.ok]
    if as_json:
        show({"broken": len(broken), "statements": [each.as_json() for each in found]})
    else:
        _tell(found)
    if broken:
        raise click.exceptions.Exit(1)


def _tell(found: list[audit.Finding]) -> None:
    for each in found:
        click.echo(f"{click.style('ok  ', fg='green') if each.ok else click.style('FAIL', fg='red')}  {each.statement}")
        for row in each.rows:
            click.echo("        " + ", ".join(f"{name} {value}" for name, value in row.items()))
        if not each.ok:
            click.echo(f"      {each.advice}")


@click.command("stop-charging")
@click.option("--reason", default="by an operator", show_default=True, help="Why; the history of each case tells it.")
@as_json
def stop_charging(reason: str, as_json: bool) -> None:
    """Charge nothing from now on, on every worker. Plans, readings and notices go on; what is under way is settled."""
    _stop(stops.OPERATOR, reason, "charging is stopped; `dunning resume-charging` ends that", as_json=as_json)


@click.command()
@click.option("--reason", default="from a backup", show_default=True, help="Where the database comes from.")
@as_json
def restored(reason: str, as_json: bool) -> None:
    """Say that this database comes from a backup: act on nothing until all that it lacks is read again."""
    _stop(stops.RESTORED, reason, f"{MODE}; {HOW}", as_json=as_json)


def _stop(name: str, reason: str, told: str, *, as_json: bool) -> None:
    with installation():
        stops.stop(app.engine(), name, reason, app.now())
        show(_state()) if as_json else click.echo(told)


@click.command("resume-charging")
@click.option("--unexplained", is_flag=True, help="Also after a restore, though charges of ours are not known again.")
@as_json
def resume_charging(unexplained: bool, as_json: bool) -> None:
    """Charge again; after a restore only once all is explained."""
    with installation():
        with app.engine().begin() as db:
            for name in (stops.OPERATOR, *((stops.RESTORED,) if unexplained else ())):
                stops.lift(db, name)
        state = _state()
    if as_json:
        show(state)
    else:
        click.echo(f"not yet: {MODE}; {HOW}" if state["stopped"] else "charging goes on")
    if state["stopped"]:
        raise click.exceptions.Exit(1)


def _state() -> dict[str, Any]:
    with app.engine().connect() as db:
        return {"stopped": stops.shown(db)}
