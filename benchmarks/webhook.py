"""How many webhooks does one web process take, how fast, and is any lost when five times as many come?

The process is ``dunning web``, asked over HTTP with signatures by a sender in a process of its own. pgbench commits the
same event on one connection, alone and with its case and history, which here are left to the workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles

from sqlalchemy import text

from benchmarks.events import SECRET, bodies, script
from benchmarks.measure import Row, Scale, interleave, ratios
from benchmarks.pgbench import pgbench
from benchmarks.place import place
from worker import app

COUNT, CONNECTIONS = 20_000, 8
TIMES, MANY = 5, 256  # of what is served otherwise, and the connections over which it comes
LEAST = 0.4
OK, REFUSED, BROKEN = 200, 429, 500
WHOLE, ALONE = "pgbench, event + case + history, 1 connection", "pgbench, event only, 1 connection"
STORED, OVERLOAD = f"one web process, {CONNECTIONS} connections", f"{TIMES} times as many, {MANY} connections"

Figures = dict[tuple[str, str], float]  # by what they are, and their unit


def measure(scale: Scale) -> list[Row]:
    """Send over few connections, and far too much over many; insert the like by pgbench."""
    count = max(scale.of(COUNT), MANY)
    with place(DUNNING_STRIPE_WEBHOOK_SECRET=SECRET) as folder, _web(folder) as port:
        send = partial(_send, folder, port, count)
        rate = send(CONNECTIONS, 0)[STORED, "events/s"]  # warm
        ways: dict[str, Callable[[], Figures]] = {
            WHOLE: lambda: {(WHOLE, "events/s"): pgbench(script(), count)},
            ALONE: lambda: {(ALONE, "events/s"): pgbench(script(whole=False), count)},
            STORED: lambda: send(CONNECTIONS, 0),
            OVERLOAD: lambda: send(MANY, TIMES * rate),
        }
        rounds = interleave(ways, scale.rounds)
    runs = {key: tuple(each[key] for each in way) for way in rounds.values() for key in way[0]}
    return _rows(runs)


def _rows(runs: dict[tuple[str, str], tuple[float, ...]]) -> list[Row]:
    none_of = ("events lost", "stored, and told of an error")
    rows = [
        Row("webhook", what, unit, found, most=0 if what.endswith(none_of) else None)
        for (what, unit), found in runs.items()
    ]
    ours, whole, alone = (runs[what, "events/s"] for what in (STORED, WHOLE, ALONE))
    return [
        *rows,
        Row("webhook", "one web process, to pgbench on 1", "×", ratios(ours, whole), least=LEAST),
        Row("webhook", "one web process, to pgbench with the event only", "×", ratios(ours, alone)),
    ]


@contextmanager
def _web(folder: Path) -> Iterator[int]:
    """Run one web process; give its port."""
    file = folder / "port"
    command = [sys.executable, "-m", "worker.cli", "web", "--port", "0", "--port-file", str(file)]
    with (folder / "web.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while not file.exists() and process.poll() is None:
                time.sleep(0.05)
            yield int(file.read_text())
        finally:
            process.terminate()


def _send(folder: Path, port: int, count: int, connections: int, rate: float) -> Figures:
    """Have new events sent by a process of its own; return what became of them."""
    file, told = folder / "events.jsonl", folder / "told.json"
    with file.open("wb") as out:
        out.writelines(body + b"\n" for body in bodies(count))
    with app.engine().begin() as db:
        db.execute(text("TRUNCATE events, cases, history CASCADE"))
    command = [sys.executable, "-m", "benchmarks.sender", str(port), str(file), f"--connections={connections}"]
    with told.open("wb") as out:
        subprocess.run([*command, f"--rate={rate}"], check=True, stdout=out)
    with app.engine().connect() as db:
        stored = set(db.execute(text("SELECT id FROM events")).scalars())
    return _figures(OVERLOAD if rate else STORED, stored=stored, **json.loads(told.read_bytes()))


def _figures(what: str, stored: set[str], seconds: float, told: list[tuple[str, int, float]]) -> Figures:
    answered = [late * 1000 for _, status, late in told if status == OK]
    late = quantiles(answered, n=100)
    found = {
        (what, "events/s"): len(stored) / seconds,
        (f"{what}, half answered within", "ms"): late[49],
        (f"{what}, 99 % answered within", "ms"): late[98],
    }
    if what == STORED:
        return found
    lost = sum(status == OK and name not in stored for name, status, _ in told)
    untold = sum((not status or status >= BROKEN) and name in stored for name, status, _ in told)
    return found | {
        (f"{what}, refused with 429", "%"): sum(status == REFUSED for _, status, _ in told) / len(told) * 100,
        (f"{what}, any other answer", "%"): sum(status not in (OK, REFUSED) for _, status, _ in told) / len(told) * 100,
        (f"{what}, events lost", "events"): lost,
        (f"{what}, stored, and told of an error", "events"): untold,
    }
