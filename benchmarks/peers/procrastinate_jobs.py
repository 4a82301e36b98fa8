"""Procrastinate with ``schedule_at``: the job is a row, and workers ask for what is due."""

from __future__ import annotations

from datetime import datetime

import procrastinate
import psycopg

from benchmarks.peers import database

# As many at the same time as our worker has threads; asked as often as we look what is due.
COMMAND = ["procrastinate", "--app=benchmarks.peers.procrastinate_jobs.app", "worker"]
COMMAND += ["--concurrency=8", "--fetch-job-polling-interval=1"]
AT_ONCE = 1000

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database()))


@app.task(name="nothing")
async def nothing() -> None:
    """Do nothing."""


def prepare() -> None:
    """Make its tables."""
    with app.open():
        app.schema_manager.apply_schema()


def enqueue(count: int, due: datetime) -> None:
    """Store so many rows."""
    with app.open():
        for first in range(0, count, AT_ONCE):
            nothing.configure(schedule_at=due).batch_defer(*[{}] * min(AT_ONCE, count - first))


def left() -> int:
    """Count the rows that are to be done, or being done."""
    with psycopg.connect(database()) as db:
        found = db.execute("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')").fetchone()
    return int(found[0]) if found else 0
