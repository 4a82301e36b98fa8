"""What does a case cost while it waits? Bytes in PostgreSQL, in Valkey and in a worker; and a worker's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryFile
from typing import IO

import psutil
import redis
from sqlalchemy import text

from benchmarks.measure import Row, Scale, ratios
from benchmarks.peers import broker, peer
from benchmarks.place import place
from benchmarks.waiting import LIVED, NOW, live, multiply, multiply_others
from worker.app import engine
from worker.clock import machine_now, set_clock

PENDING, WITH_ALL, MESSAGES = 1_000_000, 20_000, 100_000
MOST_BYTES = 1_000
TABLES = ("history", "attempts", "events")
WORKER = ("worker.cli", "worker", "--concurrency=8")
TABLE_AND_INDEXES = text("SELECT pg_table_size(CAST(:name AS regclass)), pg_indexes_size(CAST(:name AS regclass))")
LONGEST_LOG = 1_000_000
NOBODY = {"DUNNING_STRIPE_API_KEY": "sk_test_1", "DUNNING_STRIPE_API_BASE": "http://127.0.0.1:9"}
A_MONTH, SETTLED_SECONDS, LOOK_SECONDS, LONGEST = timedelta(days=30), 3.0, 0.02, 900.0


def measure(scale: Scale) -> list[Row]:
    """Fill a database with waiting cases, start workers before and after, and have Celery hold as many messages."""
    with place(**NOBODY) as folder:
        set_clock(folder / "clock", NOW)
        os.environ["DUNNING_CLOCK_FILE"] = str(folder / "clock")
        live(engine())
        empty = [_start() for _ in range(scale.rounds)]
        multiply(engine(), scale.of(PENDING))
        sizes = _sizes(scale.of(PENDING))
        full = [_start() for _ in range(scale.rounds)]
        rows = [*sizes, *_others(scale.of(WITH_ALL)), *_starts(empty, full, scale.of(PENDING))]
    with place():
        return [*rows, *_eta(scale.of(MESSAGES))]


def _sizes(count: int) -> list[Row]:
    table, indexes = _bytes("cases", count + LIVED)
    return [
        Row("pending", "a waiting case in PostgreSQL, with its indexes", "bytes", (table + indexes,), most=MOST_BYTES),
        Row("pending", "of them indexes", "bytes", (indexes,)),
    ]


def _bytes(name: str, count: int) -> tuple[float, float]:
    with engine().connect() as db:
        table, indexes = db.execute(TABLE_AND_INDEXES, {"name": name}).one()
    return table / count, indexes / count


def _others(count: int) -> list[Row]:
    """Tell what the rows of a case's first week in other tables take."""
    before = {name: sum(_bytes(name, 1)) for name in TABLES}
    multiply_others(engine(), count)
    grown = {name: (sum(_bytes(name, 1)) - before[name]) / count for name in TABLES}
    return [Row("pending", f"its {name} of a week", "bytes", (grown[name],)) for name in TABLES]


def _start() -> tuple[float, float, float]:
    """Start a worker; return the seconds until it is ready, then its bytes, and those of Valkey."""
    begun = time.perf_counter()
    with TemporaryFile() as log, _running(WORKER, log) as process:
        _wait(process, lambda: b"ready." in _written(log))
        ready = time.perf_counter() - begun
        time.sleep(SETTLED_SECONDS)
        return ready, process.memory_info().rss, _in_valkey()


def _written(log: IO[bytes]) -> bytes:
    return os.pread(log.fileno(), LONGEST_LOG, 0)


def _starts(empty: Sequence[tuple[float, ...]], full: Sequence[tuple[float, ...]], count: int) -> list[Row]:
    (none_s, none_b, none_v), (full_s, full_b, full_v) = (tuple(zip(*each, strict=True)) for each in (empty, full))
    grown = (
        tuple((one - other) / count for one, other in zip(*pair, strict=True))
        for pair in ((full_b, none_b), (full_v, none_v))
    )
    worker, valkey = grown
    return [
        Row("pending", "a waiting case in a worker", "bytes", worker, most=1),
        Row("pending", "a waiting case in Valkey", "bytes", valkey, most=1),
        Row("pending", "start of a worker, nothing waits", "s", none_s),
        Row("pending", f"start of a worker, {count:,} cases wait", "s", full_s),
        Row("pending", "the same, to nothing", "×", ratios(full_s, none_s), most=1.2),
    ]


def _eta(count: int) -> list[Row]:
    """Have Celery hold messages until a month from now, in a worker that has as many threads as ours."""
    before = _in_valkey()
    with _running((*peer("celery_eta").COMMAND, "--pool=threads", "--concurrency=8")) as process:
        time.sleep(2 * SETTLED_SECONDS)
        alone, due = process.memory_info().rss, (machine_now() + A_MONTH).isoformat()
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "benchmarks.peers", "celery_eta", "enqueue", str(count), due], check=True)
        _wait(process, lambda: not _valkey().llen("celery"))
        taken = time.perf_counter() - begun
        time.sleep(SETTLED_SECONDS)
        grown = (process.memory_info().rss - alone) / count
    return [
        Row("pending", "a Celery message with eta in a worker", "bytes", (grown,)),
        Row("pending", "a Celery message with eta in Valkey", "bytes", ((_in_valkey() - before) / count,)),
        Row("pending", f"until {count:,} of them were sent and taken", "s", (taken,)),
    ]


@contextmanager
def _running(command: Sequence[str], log: IO[bytes] | None = None) -> Iterator[psutil.Process]:
    """Run a Python module in a session of its own, which is killed: one with messages takes minutes to end."""
    out = log or subprocess.DEVNULL
    started = subprocess.Popen([sys.executable, "-m", *command], start_new_session=True, stdout=out, stderr=out)
    try:
        yield psutil.Process(started.pid)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _wait(process: psutil.Process, done: Callable[[], bool]) -> None:
    """Wait for a process to have done something; raise ``TimeoutError`` when it is late or has ended."""
    until = time.perf_counter() + LONGEST
    while not done():
        if time.perf_counter() > until or process.status() == psutil.STATUS_ZOMBIE:
            msg = f"process {process.pid} has ended, or nothing came within {LONGEST:g} s"
            raise TimeoutError(msg)
        time.sleep(LOOK_SECONDS)


def _valkey() -> redis.Redis:
    return redis.Redis.from_url(broker())


def _in_valkey() -> float:
    return float(_valkey().info("memory")["used_memory"])
