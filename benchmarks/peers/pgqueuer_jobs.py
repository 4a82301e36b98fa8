"""PgQueuer with ``execute_after``: the job is a row, taken in batches by one asynchronous worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import psycopg
from pgqueuer import Job, PgQueuer, PsycopgDriver, Queries, run

from benchmarks.peers import database
from worker.clock import machine_now

COMMAND = ["benchmarks.peers.pgqueuer_jobs"]  # its own command ends in an AttributeError
AT_ONCE = 1000


@asynccontextmanager
async def make() -> AsyncIterator[PgQueuer]:
    """Give the worker."""
    worker = PgQueuer(await _driver())

    @worker.entrypoint("nothing")
    async def nothing(_job: Job) -> None:
        """Do nothing."""

    yield worker


def prepare() -> None:
    """Make its tables."""

    async def install() -> None:
        await Queries(await _driver()).install()

    asyncio.run(install())


def enqueue(count: int, due: datetime) -> None:
    """Store so many rows."""

    async def store() -> None:
        queries = Queries(await _driver())
        for first in range(0, count, AT_ONCE):
            some = min(AT_ONCE, count - first)
            await queries.enqueue(["nothing"] * some, [None] * some, [0] * some, [due - machine_now()] * some)

    asyncio.run(store())


def left() -> int:
    """Count the rows; what is done is moved to a log."""
    with psycopg.connect(database()) as db:
        found = db.execute("SELECT count(*) FROM pgqueuer").fetchone()
    return int(found[0]) if found else 0


async def _driver() -> PsycopgDriver:
    return PsycopgDriver(await psycopg.AsyncConnection.connect(database(), autocommit=True))


if __name__ == "__main__":
    # Asked as often as we look what is due; batches as they come without being asked for.
    asyncio.run(run(make, dequeue_timeout=timedelta(seconds=1)))
