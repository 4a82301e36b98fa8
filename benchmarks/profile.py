"""Where does the CPU time of the hot paths go? Each runs in this process, which is looked at each thousandth second.

A look goes to the library whose Python code runs then; what a function of C takes is its caller's.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import process_time
from types import FrameType
from typing import cast
from uuid import UUID

from benchmarks.events import bodies
from benchmarks.instant import Instant
from benchmarks.measure import Row, Scale, ratios
from benchmarks.place import place
from benchmarks.renewals import DUE_AT, add_due
from worker import app, charging, ingest, sweep
from worker.desk import Desk
from worker.eventfile import read_raw
from worker.stripe_gateway import StripeGateway
from worker.tasks import TOGETHER

COUNT, LEASE_SECONDS = 5_000, 600
EVERY = 0.001
MICRO, HUNDRED, LEAST_SHARE = 1_000_000, 100, 3  # per cent; what has less is not told
ROOT = f"{Path(__file__).parents[1]}/"


def measure(scale: Scale) -> list[Row]:
    """Return what an event that is taken in and an attempt that is settled take, and who has a share in it."""
    count, rows = scale.of(COUNT), list[Row]()
    for what, path in {"an event taken in": _taken_in, "an attempt settled": _settled}.items():
        with place():
            rows += _rows(what, [_spent(path(range(n * count, (n + 1) * count)), count) for n in range(scale.rounds)])
    return rows


def _taken_in(numbers: range) -> Callable[[], None]:
    """Return what takes a file of so many events in, without a process for each core."""
    lines = b"\n".join(bodies(len(numbers)))

    def take() -> None:
        values = list(read_raw(BytesIO(lines)))
        alone = ingest.BATCH - 1  # a whole batch would go to another process
        for first in range(0, len(values), alone):
            batch = values[first : first + alone]
            sum(ingest.ingest(app.engine(), app.policy(), app.now(), batch, ingest.Counts()))

    return take


def _settled(numbers: range) -> Callable[[], None]:
    """Return what claims and settles new cases with these numbers."""
    provider = cast("StripeGateway", Instant())
    desk = Desk(app.engine(), provider, app.policy(), live=True, lease_seconds=LEASE_SECONDS, now=DUE_AT)
    add_due(desk.engine, numbers)

    def settle() -> None:
        hints: list[tuple[int, UUID]] = []
        while sweep.tick(desk, lambda _task, number, token: hints.append((number, UUID(token)))).cases:
            for first in range(0, len(hints), TOGETHER):
                charging.work_each(desk, hints[first : first + TOGETHER])
            hints.clear()

    return settle


def _spent(act: Callable[[], None], count: int) -> Counter[str]:
    """Return the microseconds of CPU that each library took, for each of so many."""
    seen = Counter[str]()

    def look(_signal: int, frame: FrameType | None) -> None:
        seen[library(frame)] += 1

    begun = process_time()
    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    act()
    signal.setitimer(signal.ITIMER_PROF, 0)
    whole = MICRO * (process_time() - begun) / count
    return Counter({name: whole * looks / seen.total() for name, looks in seen.items()})


def library(frame: FrameType | None) -> str:
    """Return whose code runs; what was written at run time, as by a dataclass, is its caller's."""
    while frame and frame.f_code.co_filename.startswith("<"):
        frame = frame.f_back
    file = frame.f_code.co_filename if frame else ""
    if "site-packages/" in file:
        return file.partition("site-packages/")[2].partition("/")[0]
    return f"{file.removeprefix(ROOT).partition('/')[0]}/" if file.startswith(ROOT) else "Python"


def _rows(what: str, rounds: list[Counter[str]]) -> list[Row]:
    """Tell the whole, then everybody's share of it, the largest first."""
    sums = tuple(spent.total() for spent in rounds)
    names = set[str]().union(*rounds)
    shares = {name: ratios((HUNDRED * spent[name] for spent in rounds), sums) for name in names}
    rows = [Row("profile", f"{what}: {name}", "%", runs) for name, runs in shares.items()]
    told = sorted((row for row in rows if row.median >= LEAST_SHARE), key=lambda row: -row.median)
    return [Row("profile", what, "µs", sums), *told]
