"""Does a worker grow? Its resident memory while it settles a hundred thousand attempts, told every thousand.

It is the role itself with eight threads, and the provider a process of its own that answers at once. One run: at a
hundred requests a second to each endpoint, which is the most that a worker asks for, it takes twenty minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import psutil

from benchmarks.measure import Row, Scale, ratios
from benchmarks.place import place
from benchmarks.processes import MEGA
from benchmarks.settle import LOOK_SECONDS, STUCK_SECONDS, THREADS, Stuck, Way, provider, release, settings, settled
from worker.roles import Roles

COUNT, EVERY = 100_000, 1_000
SHRUNK, GROWN = 0.95, 1.05


def measure(scale: Scale) -> list[Row]:
    """Return the worker's memory at the first thousand, at the last, and the most between, as ratios to the first."""
    with _worker(scale.of(COUNT)) as process:
        seen = [process.memory_info().rss / MEGA for _ in _thousands(scale.of(COUNT))]
    first, last, most = (seen[0],), (seen[-1],), (max(seen),)
    return [
        Row("memory", f"a worker after {EVERY:,} attempts", "MB", first),
        Row("memory", f"the same after {EVERY * len(seen):,} attempts", "MB", last),
        Row("memory", "last to first", "×", ratios(last, first), least=SHRUNK, most=GROWN),
        Row("memory", "most on the way to first", "×", ratios(most, first), most=GROWN),
    ]


@contextmanager
def _worker(count: int) -> Iterator[psutil.Process]:
    """Run a worker and a beat over so many cases that are due at one instant; give the worker's process."""
    with TemporaryDirectory(prefix="dunning-bench-") as scratch, provider(Way(), Path(scratch)) as address:
        clock = Path(scratch) / "clock"
        with place(**settings(Way(), address, clock)) as folder, Roles({}, folder / "logs") as roles:
            release(range(max(count, EVERY)), clock)
            roles.start("worker", THREADS)
            roles.start("beat", ("worker.cli", "beat"))
            yield psutil.Process(roles.running["worker"].pid)


def _thousands(count: int) -> Iterator[int]:
    """Yield after every thousand attempts how many there were; raise ``Stuck`` when it does not go on."""
    done, moved = 0, time.perf_counter()
    for goal in range(EVERY, max(count, EVERY) + 1, EVERY):
        while (now_done := settled()) < goal:
            done, moved = (now_done, time.perf_counter()) if now_done > done else (done, moved)
            if time.perf_counter() - moved > STUCK_SECONDS:
                msg = f"{done} attempts were settled, and no other one within {STUCK_SECONDS:g} s"
                raise Stuck(msg)
            time.sleep(LOOK_SECONDS)
        click.echo(f"  {goal}", err=True)
        yield goal
