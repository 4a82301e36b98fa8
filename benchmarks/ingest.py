"""Do events of a file come in faster than PostgreSQL commits them one by one?

``dunning ingest`` keeps an event and opens its case, with the first line of its history. pgbench does the same three
inserts, of the same bytes into the same tables, in a transaction for each event, without a policy or a check.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from benchmarks.events import bodies, script
from benchmarks.measure import Row, Scale, interleave, ratios
from benchmarks.pgbench import pgbench
from benchmarks.place import place
from worker import app, inbox
from worker.ingest import BATCH
from worker.sweep import EVENTS

COUNT, CONNECTIONS = 100_000, 8
LEAST = 1.2
OURS = "dunning ingest FILE: kept, and the case opened"
RAW = f"pgbench, event + case + history, {CONNECTIONS} connections"


def measure(scale: Scale) -> list[Row]:
    """Take a file in by the command, handle by ticks what webhooks have kept, and insert the like by pgbench."""
    count = scale.of(COUNT)
    with place() as folder:
        file = folder / "events.jsonl"
        with file.open("wb") as out:
            out.writelines(body + b"\n" for body in bodies(count))
        ways: dict[str, Callable[[], float]] = {
            OURS: lambda: _command(file, count),
            RAW: lambda: _raw(count, CONNECTIONS),
            "pgbench, the same on 1 connection": lambda: _raw(count, 1),
            "ticks: cases of kept events opened": lambda: _drained(file),
        }
        rates = interleave(ways, scale.rounds)
    rows = [Row("ingest", what, "events/s", runs) for what, runs in rates.items()]
    return [*rows, Row("ingest", "the command, to pgbench on 8", "×", ratios(rates[OURS], rates[RAW]), least=LEAST)]


def _command(file: Path, count: int) -> float:
    """Run the command in a process of its own, from its start to its end."""
    _empty()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "worker.cli", "ingest", str(file), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    rate = count / (time.perf_counter() - begun)
    told, opened = json.loads(done.stdout)["new"], _number("SELECT count(*) FROM history WHERE what = 'opened'")
    if (told, opened) != (count, count):
        msg = f"of {count} events {told} were new, and {opened} opened a case"
        raise ValueError(msg)
    return rate


def _raw(count: int, connections: int) -> float:
    _empty()
    return pgbench(script(), count, connections)


def _drained(file: Path) -> float:
    """Handle, as ticks do, the events of a file that were kept before."""
    _empty()
    kept = [inbox.parse_event(json.loads(line)) for line in file.read_bytes().splitlines()]
    for start in range(0, len(kept), BATCH):
        with app.engine().begin() as db:
            inbox.keep(db, kept[start : start + BATCH])
    begun = time.perf_counter()
    while inbox.drain(app.engine(), app.policy(), app.now(), EVENTS):
        pass
    return len(kept) / (time.perf_counter() - begun)


def _empty() -> None:
    """Have no event and no case, and what was written before on the disk."""
    with app.engine().begin() as db:
        db.execute(text("TRUNCATE events, cases, history CASCADE"))
    with app.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text("CHECKPOINT"))


def _number(statement: str) -> int:
    with app.engine().connect() as db:
        return int(db.execute(text(statement)).scalar_one())
