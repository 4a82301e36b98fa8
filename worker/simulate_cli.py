"""The command that judges policies before they touch money: on a world, or on the merchant's own past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from worker.installation import as_json, show, write
from worker.practice.beliefs import names
from worker.practice.protocol import World
from worker.practice.world import BuiltInWorld
from worker.practice.worlds import Checked, WorldError, load_world
from worker.progress import progress
from worker.simulate import NoEnd, view
from worker.simulate.compare import Comparison, NotTheSame, figures_of, require_same
from worker.simulate.figures import Figures
from worker.simulate.policies import DEFAULT, FIXED, Plan, plan_named

ALL, MOST = "all", 6
BUILT_IN = "Built-in world"


def _levels(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the assumptions that are not at their middle value; ``all`` stands for each of them."""
    chosen: dict[str, str] = {}
    for value in values:
        name, _, level = value.partition("=")
        if level not in ("low", "high") or name not in (ALL, *names()):
            msg = f"{value!r}: expected NAME=low or NAME=high, of {ALL} or a name in world.toml such as {names()[0]}"
            raise click.BadParameter(msg)
        chosen |= dict.fromkeys(names() if name == ALL else (name,), level)
    return chosen


@click.command()
@click.option("--world", "place", metavar="FILE.py:CLASS", help="A world of your own instead of the built-in one.")
@click.option(
    "--policy",
    "words",
    multiple=True,
    metavar="FILE",
    help=f"A policy, or {DEFAULT} or {FIXED}; again. The first is the base.",
)
@click.option("--seed", default=1, show_default=True, help="Another one draws anew.")
@click.option("--payments", default=10_000, show_default=True, type=click.IntRange(1), help="How many have failed.")
@click.option(
    "--level",
    "levels",
    multiple=True,
    callback=_levels,
    metavar="NAME=low|high",
    help="An assumption of the built-in world; again.",
)
@click.option("--history", is_flag=True, help="Replay the cases that are stored here instead of a world.")
@as_json
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures to FILE.")
def simulate(  # noqa: PLR0913 - one argument for each option
    *,
    place: str | None,
    words: tuple[str, ...],
    seed: int,
    payments: int,
    levels: dict[str, str],
    history: bool,
    as_json: bool,
    html: Path | None,
) -> None:
    """Tell what policies would bring back, before one of them touches money."""
    _require_fitting(place, levels, history=history, html=html, as_json=as_json)
    plans = _plans(words or (DEFAULT, FIXED))
    if history:
        _tell_past(plans, as_json=as_json)
        return
    make = _maker(place, seed, payments, levels)
    try:
        found = _compared(place or BUILT_IN, make, plans, quiet=as_json)
    except (WorldError, NoEnd, NotTheSame) as error:
        raise click.ClickException(str(error)) from None
    _tell(Comparison(place or BUILT_IN, seed, levels, found), as_json=as_json, html=html)


def _require_fitting(
    place: str | None, levels: dict[str, str], *, history: bool, html: Path | None, as_json: bool
) -> None:
    """Refuse options that contradict one another, and a page that could not be written after all the work."""
    if as_json and html:
        msg = "--json and --html exclude one another"
        raise click.UsageError(msg)
    if levels and place:
        msg = "--level is about the built-in world: leave out --world"
        raise click.UsageError(msg)
    if history and (place or levels or html):
        msg = "--history is told by your own cases: leave out --world, --level and --html"
        raise click.UsageError(msg)
    if html and not html.absolute().parent.is_dir():
        msg = f"cannot write {html}: there is no folder {html.absolute().parent}"
        raise click.BadParameter(msg, param_hint="'--html'")


def _plans(words: tuple[str, ...]) -> list[Plan]:
    """Return the policies that are meant; one that is named twice gets a number."""
    if len(words) > MOST:
        msg = f"{len(words)} policies: at most {MOST} can be told apart"
        raise click.BadParameter(msg, param_hint="'--policy'")
    plans = [plan_named(word) for word in words]
    again = [words[:number].count(word) for number, word in enumerate(words)]
    return [
        Plan(f"{plan.name} ({times + 1})" if times else plan.name, plan.decide, plan.cooldown)
        for plan, times in zip(plans, again, strict=True)
    ]


def _maker(place: str | None, seed: int, payments: int, levels: dict[str, str]) -> Callable[[], World]:
    """Return what makes the same world as often as it is asked."""
    if place is None:
        return lambda: BuiltInWorld(seed, payments, levels=levels)
    return lambda: Checked(load_world(place, seed, payments), place)


def _compared(name: str, make: Callable[[], World], plans: list[Plan], *, quiet: bool) -> tuple[Figures, ...]:
    """Play each policy on a world of its own."""
    found: list[Figures] = []
    for plan in plans:
        with progress(f"payments under {plan.name}", quiet=quiet) as step:
            found.append(figures_of(make(), plan, step))
        require_same(found, name)
    if not found[0].told:
        msg = f"{name}: no payment failed"
        raise WorldError(msg)
    return tuple(found)


def _tell(found: Comparison, *, as_json: bool, html: Path | None) -> None:
    """Show a comparison in the form that is asked for."""
    if as_json:
        show(found.as_json())
    elif html:
        _write(html, found)
    else:
        view.tell(found)


def _write(file: Path, found: Comparison) -> None:
    """Write the page, or say why the file cannot be written."""
    from worker.simulate.page import page

    write(file, page(found), "--html")
    click.echo(f"{file}: {view.heading(found)}")


def _tell_past(plans: list[Plan], *, as_json: bool) -> None:
    """Replay the stored cases under each policy."""
    from worker import app
    from worker.installation import installation
    from worker.simulate import past_view
    from worker.simulate.history import Hindsights, hindsight
    from worker.simulate.past import past_cases

    with installation(), app.engine().connect() as db:
        pasts, now = past_cases(db), app.now()
    found = Hindsights(now, pasts, [hindsight(plan, pasts, now) for plan in plans])
    show(found.as_json()) if as_json else past_view.tell(found)
