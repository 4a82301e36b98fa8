"""What does so many failed payments a day take? Computed from what was measured, and from what a case does.

    python -m benchmarks settle report memory --json > run.json
    python -m benchmarks.sizing run.json --write

What a case does on average is played: the built-in world under the default policy. What a machine needs for it is read
from the run. The constants below are what neither knows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path

import click

from benchmarks.report import CASE, EVENTS, KEPT
from benchmarks.settle import PROMISED
from benchmarks.table import number
from schedules import Facts, Step
from worker.practice.world import BuiltInWorld
from worker.settings import Settings
from worker.simulate import play
from worker.simulate.policies import DEFAULT, plan_named

PAGE = Path(__file__).parents[1] / "docs" / "sizing.md"
BEGIN, END = "<!-- sizing -->", "<!-- /sizing -->"
SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000, 7_000_000)  # failed payments a day
PLAYED, DAY, YEAR, GIGA = 3_000, 86_400, 365, 1e9
SECONDS = 1.5  # that a charge takes at Stripe, with the reading before it
THREADS, BUSY = 8, 0.7  # of a worker, and how much of a core it may use: Python runs one thread at a time
PACES = (15, 25, 100)  # requests a second to one endpoint: unset; of Stripe, unless it agrees to more; ours at most
CONNECTIONS = 15  # of a process, at most: worker/app.py
OTHERS = 3  # processes beside the workers: a beat, two webs
ROWS = {
    "worker_ms": ("settle", f"{PROMISED}: CPU of the workers"),
    "server_ms": ("settle", f"{PROMISED}: CPU of PostgreSQL and Valkey"),
    "worker_mb": ("memory", "a worker after 1,000 attempts"),
    "case_bytes": ("report", CASE),
    "kept_bytes": ("report", KEPT),
    "event_bytes": ("report", EVENTS),
}


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured: of an attempt, of a worker, and of what the database keeps for each case."""

    worker_ms: float
    server_ms: float
    worker_mb: float
    case_bytes: float
    kept_bytes: float
    event_bytes: float

    @classmethod
    def of(cls, run: Path) -> Costs:
        """Read them from the JSON of a run; raise ``ClickException`` naming what it lacks."""
        told = json.loads(run.read_text(encoding="utf-8"))["rows"]
        found = {(row["work"], row["what"]): float(row["median"]) for row in told}
        if missing := [" / ".join(row) for row in ROWS.values() if row not in found]:
            msg = f"{run} lacks {', '.join(missing)}"
            raise click.ClickException(msg)
        return cls(**{name: found[row] for name, row in ROWS.items()})


@dataclass(frozen=True, slots=True)
class Case:
    """What one failed payment comes to on average; ``peak`` is the busiest hour to the mean one."""

    charges: float
    readings: float
    notices: float
    days: float
    peak: float

    @classmethod
    def played(cls) -> Case:
        """Play a world."""
        plan, done = plan_named(DEFAULT), Counter[str]()

        def decide(facts: Facts, now: datetime) -> Step:
            step = plan.decide(facts, now)
            done[type(step).__name__] += step.at <= now
            return step

        ended = list(play(BuiltInWorld(1, PLAYED), decide, cooldown=plan.cooldown))
        hours = Counter(tried.step.at.hour for one in ended for tried in one.tries)
        days = sum((one.closed_at - one.payment.failed_at).total_seconds() for one in ended if one.closed_at) / DAY
        notices, charges = sum(len(one.contacts) for one in ended), hours.total()
        peak = max(hours.values()) / charges * 24
        return cls(charges / PLAYED, done["Refresh"] / PLAYED, notices / PLAYED, days / PLAYED, peak)

    @property
    def reads(self) -> float:
        """How often its invoice is read: before each charge, after each refusal, for each notice."""
        return self.charges + self.readings + self.notices


def line(size: int, case: Case, costs: Costs) -> list[str]:
    """Return the cells of a row of the table."""
    mean = size * case.charges / DAY
    peak, asked = mean * case.peak, size * case.reads / DAY * case.peak
    cores = peak * costs.worker_ms / 1000
    workers = max(1, ceil(peak * SECONDS / THREADS), ceil(cores / BUSY))
    open_gb = size * case.days * costs.case_bytes / GIGA
    year_gb = size * (YEAR * (costs.case_bytes + costs.kept_bytes) + keep_days() * costs.event_bytes) / GIGA
    figures = (size, size * case.days, mean, peak, asked, cores, peak * costs.server_ms / 1000, workers)
    more = (workers * costs.worker_mb / 1000, (workers + OTHERS) * CONNECTIONS, open_gb, year_gb)
    return [number(figure) for figure in (*figures, *more)]


def a_day(pace: int, case: Case) -> float:
    """Return how many failed payments a day keep the busiest endpoint at this pace in the busiest hour."""
    return pace / (case.reads * case.peak) * DAY


def keep_days() -> int:
    """Return for how many days events are kept, unless somebody sets it."""
    return int(Settings.model_fields["keep_events_days"].default)


HEAD = (
    "failed payments a day",
    "open cases",
    "charges/s",
    "charges/s in the busiest hour",
    "requests/s to the busiest endpoint",
    "cores of workers",
    "cores of PostgreSQL and Valkey",
    "workers",
    "GB of memory in workers",
    "connections",
    "GB, open cases",
    "GB after a year",
)


def table(case: Case, costs: Costs) -> str:
    """Return the page's table, with what it was computed from."""
    rows = [HEAD, ("---",) * len(HEAD), *(line(size, case, costs) for size in SIZES)]
    does = f"{case.charges:.2f} charges, {case.readings:.2f} readings beside those, {case.notices:.2f} notices"
    lasts = f"open for {case.days:.1f} days, the busiest hour {case.peak:.1f} times the mean one"
    price = f"{costs.worker_ms:.1f} ms of a worker and {costs.server_ms:.1f} ms of the servers for a charge"
    stored = f"{costs.case_bytes:,.0f} + {costs.kept_bytes:,.0f} + {costs.event_bytes:,.0f} bytes"
    told = f"A case: {does}; {lasts}. Measured: {price}; {stored} for a case, what it did, and its events."
    most = (f"{number(a_day(pace, case))} at {pace} requests/s" for pace in PACES)
    ceiling = f"One account takes so many failed payments a day: {', '.join(most)} to one endpoint."
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", told, ceiling])


@click.command()
@click.argument("run", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", is_flag=True, help="Put the table into docs/sizing.md.")
def main(run: Path, *, write: bool) -> None:
    """Tell what so many failed payments a day take, by what a RUN of the benchmarks measured."""
    found = table(Case.played(), Costs.of(run))
    click.echo(found)
    if write:
        text = PAGE.read_text(encoding="utf-8")
        between = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{found}\n{END}", text, flags=re.DOTALL)
        PAGE.write_text(between, encoding="utf-8")


if __name__ == "__main__":
    main()
