"""How fast is what is due settled, at what price, and how fast are others at the same wait with nothing to do?

Ours are the roles themselves, a worker and a beat, with rows that have all become due at one instant: each is claimed,
read at the provider, written down, charged and recorded. The provider is a process of its own; what it costs is told
apart. The peers' jobs do nothing, and all become due at one instant too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from sqlalchemy import text

from benchmarks import peers
from benchmarks.measure import Row, Scale, interleave, ratios
from benchmarks.place import place
from benchmarks.processes import Family, servers
from benchmarks.renewals import DUE_AT, FAILED_AT, add_due
from worker import app
from worker.clock import machine_now, set_clock
from worker.roles import Roles

COUNT, WARM = 10_000, 200
LOOK_SECONDS, STUCK_SECONDS, LINES = 0.1, 60.0, 5
USUAL_PACE, FASTEST_PACE = 15, 100  # requests a second to one endpoint: unset, and the most that the setting takes
FEW = 10  # of the full count there is one in so many where the usual pace decides
SLOW = 0.05
MOST_CORES, MOST_MB, LEAST_ATTEMPTS = 1, 400, 90
THREADS, MANY_THREADS = ("worker.cli", "worker", "--concurrency=8"), ("worker.cli", "worker", "--concurrency=32")
PREFORK = ("benchmarks.settler", "--pool=prefork", "--concurrency=8")
GEVENT = ("benchmarks.settler", "--pool=gevent", "--concurrency=32")
INSTANT = ("benchmarks.settler", "--instant")
SETTLED = text("SELECT count(*) FROM attempts WHERE settled_at IS NOT NULL")


class Stuck(RuntimeError):
    """Nothing went on for a minute."""


@dataclass(frozen=True, slots=True)
class Way:
    """One set-up of ours: the commands of its workers, and a provider with its delay and its pace."""

    workers: tuple[tuple[str, ...], ...] = (THREADS,)
    delay: float = 0
    declines: bool = False
    pace: int = FASTEST_PACE


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run came to, for each job where it says so; the servers are PostgreSQL and Valkey."""

    jobs_s: float
    calls_s: float
    workers_ms: float
    servers_ms: float
    workers_mb: float
    servers_mb: float

    @property
    def cores(self) -> float:
        """Return how many cores were busy all the time."""
        return (self.workers_ms + self.servers_ms) * self.jobs_s / 1000


RIVAL, PROMISED = "provider in the process: 2 workers", "provider 50 ms away: threads"
OURS = {
    "provider in the process: 1 worker": Way((INSTANT,)),
    RIVAL: Way((INSTANT, INSTANT)),
    "provider 0 ms away: threads, 1 worker": Way(),
    "provider 0 ms away: threads, 2 workers": Way((THREADS, THREADS)),
    "provider 0 ms away: threads, 1 worker, every charge declined": Way(declines=True),
    "provider 0 ms away: prefork": Way((PREFORK,)),
    "provider 0 ms away: gevent": Way((GEVENT,)),
    PROMISED: Way((MANY_THREADS,), SLOW),
    "provider 50 ms away: prefork": Way((PREFORK,), SLOW),
    "provider 50 ms away: gevent": Way((GEVENT,), SLOW),
    "provider 50 ms away: threads, at the usual pace": Way(delay=SLOW, pace=USUAL_PACE),
}


def measure(scale: Scale) -> list[Row]:
    """Settle by every set-up of ours, and have every peer do nothing as often."""
    ways: dict[str, Callable[[], Cost]] = {
        name: partial(_settle, way, scale.of(COUNT if way.pace == FASTEST_PACE else COUNT // FEW))
        for name, way in OURS.items()
    }
    ways |= {name: partial(do, library, scale.of(COUNT)) for name, (do, library) in PEERS.items()}
    found = interleave(ways, scale.rounds)
    return [row for name, costs in found.items() for row in _rows(name, costs)] + _ratios(found)


def _rows(name: str, costs: tuple[Cost, ...]) -> list[Row]:
    """Tell the speed and the price of one way, and of the promised one whether they are as asked."""

    def row(what: str, unit: str, figure: Callable[[Cost], float], **asked: float) -> Row:
        return Row("settle", f"{name}{what}", unit, tuple(map(figure, costs)), **asked)

    asked = {"least": LEAST_ATTEMPTS} if name == PROMISED else {}
    rows = [
        row("", "attempts/s" if name in OURS else "jobs/s", lambda each: each.jobs_s, **asked),
        row(": CPU of the workers", "ms each", lambda each: each.workers_ms),
        row(": CPU of PostgreSQL and Valkey", "ms each", lambda each: each.servers_ms),
        row(": memory of the workers", "MB", lambda each: each.workers_mb),
    ]
    if name in OURS and OURS[name].delay:
        rows.append(row(": requests", "calls/s", lambda each: each.calls_s))
    if asked:
        rows.append(row(": all processes", "cores", lambda each: each.cores, most=MOST_CORES))
        rows.append(
            row(": memory of all processes", "MB", lambda each: each.workers_mb + each.servers_mb, most=MOST_MB)
        )
    return rows


def _ratios(found: Mapping[str, tuple[Cost, ...]]) -> list[Row]:
    """Compare what two workers of ours settle without a network with what peers do that do nothing."""
    speeds = {name: tuple(each.jobs_s for each in costs) for name, costs in found.items()}
    return [
        Row(
            "settle",
            f"2 workers of ours, to {name}",
            "×",
            ratios(speeds[RIVAL], speeds[name]),
            least=AHEAD_OF.get(name),
        )
        for name in PEERS
    ]


def _settle(way: Way, count: int) -> Cost:
    """Have the roles settle so many attempts that have become due at one instant."""
    with TemporaryDirectory(prefix="dunning-bench-") as scratch, provider(way, Path(scratch)) as address:
        clock = Path(scratch) / "clock"
        set_clock(clock, FAILED_AT)
        with place(**settings(way, address, clock)) as folder, Roles({}, folder / "logs") as roles:
            for number, command in enumerate((*way.workers, ("worker.cli", "beat"))):
                roles.start(f"role {number}", command)
            release(range(WARM), clock)
            _watch(roles, folder, WARM, lambda: WARM - settled())
            calls = _calls(address)
            release(range(WARM, WARM + count), clock)
            return _watch(roles, folder, count, lambda: WARM + count - settled(), lambda: _calls(address) - calls)


def settings(way: Way, address: str, clock: Path) -> dict[str, str]:
    """Return the settings of an installation on this provider and clock."""
    return {
        "DUNNING_STRIPE_API_KEY": "sk_test_benchmark",
        "DUNNING_STRIPE_API_BASE": address,
        "DUNNING_MODE": "live",
        "DUNNING_CLOCK_FILE": str(clock),
        "DUNNING_TICK_SECONDS": "1",
        "DUNNING_REQUESTS_PER_SECOND": str(way.pace),
    }


def release(numbers: range, clock: Path) -> None:
    """Store cases, and have all of them become due at once."""
    set_clock(clock, FAILED_AT)
    add_due(app.engine(), numbers)
    set_clock(clock, DUE_AT)


def settled() -> int:
    """Return how many attempts have their outcome."""
    with app.engine().connect() as db:
        return int(db.execute(SETTLED).scalar_one())


def _calls(address: str) -> int:
    return sum(requests.get(f"{address}/counts", timeout=10).json().values())


@contextmanager
def provider(way: Way, scratch: Path) -> Iterator[str]:
    """Run the provider in a process of its own; give its address."""
    file = scratch / "port"
    command = ["benchmarks.provider", f"--port-file={file}", f"--delay={way.delay}"]
    with Roles({}) as roles:
        roles.start("provider", [*command, *(["--declines"] if way.declines else [])])
        while not file.exists():
            time.sleep(LOOK_SECONDS)
        yield f"http://127.0.0.1:{file.read_text()}"


def _do_nothing(library: str, count: int) -> Cost:
    """Have a peer do nothing so often, all of it due at one instant before which its worker may prepare."""
    with _peer(library) as (peer, roles, folder):
        roles.start(library, peer.COMMAND)
        _ask(library, "enqueue", str(WARM), machine_now().isoformat())
        _watch(roles, folder, WARM, peer.left)
        due = machine_now() + timedelta(seconds=peers.AHEAD + count / peers.STORED_A_SECOND)
        _ask(library, "enqueue", str(count), due.isoformat())
        time.sleep((due - machine_now()).total_seconds())  # one that lies behind is a ValueError
        return _watch(roles, folder, count, peer.left)


def _do_nothing_late(library: str, count: int) -> Cost:
    """Have a peer do nothing so often, all of it due before its worker comes; count from the first that is done."""
    with _peer(library) as (peer, roles, folder):
        _ask(library, "enqueue", str(count), machine_now().isoformat())
        roles.start(library, peer.COMMAND)
        while (left := peer.left()) == count:
            time.sleep(LOOK_SECONDS / 10)
        return _watch(roles, folder, max(left, 1), peer.left)


@contextmanager
def _peer(library: str) -> Iterator[tuple[peers.Peer, Roles, Path]]:
    with place() as folder, Roles({}, folder / "logs") as roles:
        _ask(library, "prepare", "0", "0")
        yield peers.peer(library), roles, folder


def _ask(*words: str) -> None:
    """Have a process of its own do something with a peer: libraries read their addresses when they are imported."""
    subprocess.run([sys.executable, "-m", "benchmarks.peers", *words], check=True)


def _watch(
    roles: Roles, folder: Path, count: int, left: Callable[[], int], calls: Callable[[], int] = lambda: 0
) -> Cost:
    """Wait until nothing is left; tell what it cost. Raises ``Stuck`` when it does not go on."""
    families = Family(tuple(each.pid for each in roles.running.values())), servers(folder)
    held, before = [each.memory() for each in families], [each.cpu() for each in families]
    begun = moved = time.perf_counter()
    least = count
    while now_left := left():
        now = time.perf_counter()
        moved, least = (now, now_left) if now_left < least else (moved, least)
        if now - moved > STUCK_SECONDS:
            lines = (line for log in (folder / "logs").iterdir() for line in log.read_text().splitlines()[-LINES:])
            msg = "\n".join((f"{now_left} of {count} are left", *lines))
            raise Stuck(msg)
        time.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - begun
    workers, others = (each.cpu() - was for each, was in zip(families, before, strict=True))
    workers_mb, servers_mb = (max(each.memory(), was) for each, was in zip(families, held, strict=True))
    workers_ms, servers_ms = 1000 * workers / count, 1000 * others / count
    return Cost(count / seconds, calls() / seconds, workers_ms, servers_ms, workers_mb, servers_mb)


PEERS = {
    "Celery eta, held by its worker": (_do_nothing, "celery_eta"),
    "Celery eta, in the queue": (_do_nothing_late, "celery_eta"),
    "procrastinate": (_do_nothing, "procrastinate"),
    "pgqueuer": (_do_nothing, "pgqueuer"),
    "dramatiq delay": (_do_nothing, "dramatiq"),
}
AHEAD_OF = {name: 1.0 for name in PEERS if name != "pgqueuer"}  # it is not among those that are promised
