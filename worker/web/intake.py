"""How are events stored that come at the same moment? Together, and each is answered after the commit.

While one transaction is under way, what comes meanwhile waits for the next one. Beyond a number of events nobody waits:
the provider brings them again, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from worker import watch
from worker.inbox import Event, keep

MOST = 1000
NOTE_SECONDS = 1.0


class Full(Exception):
    """Too many events wait to be stored."""


@dataclass(slots=True)
class Waiting:
    """One event, and what became of it."""

    event: Event
    new: bool | None = None
    error: SQLAlchemyError | None = None

    @property
    def done(self) -> bool:
        """Whether anything became of it."""
        return self.new is not None or self.error is not None


@dataclass(slots=True)
class Intake:
    """What comes in over one loop into one database."""

    engine: Engine
    most: int = MOST
    waiting: list[Waiting] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    noted: float = 0.0

    async def store(self, event: Event) -> bool:
        """Store an event; return, once it is committed, whether it was new. Raises ``Full`` or ``SQLAlchemyError``.

        Whose turn it is stores everything that waits.
        """
        if len(self.waiting) >= self.most:
            raise Full
        mine = Waiting(event)
        self.waiting.append(mine)
        async with self.turn:
            if not mine.done:
                batch, self.waiting = self.waiting, []
                await run_in_threadpool(self._write, batch)
        if mine.error is not None:
            raise mine.error
        return mine.new is True

    def _write(self, batch: list[Waiting]) -> None:
        store(self.engine, batch)
        if time.monotonic() > self.noted + NOTE_SECONDS:
            self.noted = time.monotonic()
            watch.did(self.engine, "web", watch.ANSWERED)


def store(engine: Engine, batch: list[Waiting]) -> None:
    """Store events in one transaction, one by one where the database refuses what is in one of them."""
    try:
        with engine.begin() as db:
            new = keep(db, [each.event for each in batch])
    except SQLAlchemyError as error:
        if isinstance(error, DataError) and len(batch) > 1:
            for each in batch:
                store(engine, [each])
        else:
            for each in batch:
                each.error = error
    else:
        for each in batch:
            each.new = each.event.id in new
