"""How does a whole file of events come in? In batches, by a process for each core.

A batch is decoded, checked, kept and its cases opened in one place and one transaction; the reader only cuts the file
into lines. What is lost with a process is taken in by another run of the same file, which finds the rest known.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import islice
from threading import Thread
from typing import Any

from sqlalchemy import Engine

from schedules import Policy
from worker.app import make_engine
from worker.eventfile import Found, decoded
from worker.failpoints import failpoint
from worker.inbox import BadEvent, Event, parse_event, take_in

BATCH = 500
PROCESSES = min(os.cpu_count() or 1, 4)  # PostgreSQL needs cores as well
COLLECT_AFTER = 100_000  # objects: what a file is read into holds no circles, and looking for some took a sixth


@dataclass(slots=True)
class Counts:
    """What became of the values of a file."""

    new: int = 0
    duplicate: int = 0
    ignored: int = 0
    ignored_types: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form that the command line promises."""
        return {"new": self.new, "duplicate": self.duplicate, "ignored": self.ignored, "rejected": self.rejected}

    def ignore(self, event: Event) -> None:
        """Count an event that this product does not listen to."""
        self.ignored += 1
        self.ignored_types[event.type] = self.ignored_types.get(event.type, 0) + 1

    def add(self, other: Counts) -> None:
        """Count what became of other values too."""
        self.new += other.new
        self.duplicate += other.duplicate
        self.ignored += other.ignored
        self.rejected += other.rejected
        for kind, number in other.ignored_types.items():
            self.ignored_types[kind] = self.ignored_types.get(kind, 0) + number


def ingest(engine: Engine, policy: Policy, now: datetime, values: Iterable[Found], counts: Counts) -> Iterator[int]:
    """Take in the events among ``values``, counting in ``counts``; yields of how many values each batch was.

    Only full batches go to other processes: a small file starts none. Raises ``BrokenProcessPool`` when one is killed.
    """
    under_way, left = deque[Future[Counts]](), iter(values)
    url = engine.url.render_as_string(hide_password=False)
    with _processes() as pool:
        while len(batch := list(islice(left, BATCH))) == BATCH:
            under_way.append(pool.submit(_take_there, url, policy, now, batch))
            if len(under_way) > 2 * PROCESSES:
                counts.add(under_way.popleft().result())
                yield BATCH
        for taken in under_way:
            counts.add(taken.result())
            yield BATCH
    counts.add(_take(engine, policy, now, batch))
    yield len(batch)


def _processes() -> ProcessPoolExecutor:
    """Return processes that begin with the first batch, as copies of one that has no thread of ours."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(PROCESSES, context, _begin)


def _begin() -> None:
    """In another process: Ctrl-C is for its parent, without which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(COLLECT_AFTER)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _take_there(url: str, policy: Policy, now: datetime, batch: list[Found]) -> Counts:
    return _take(_engine(url), policy, now, batch)


@lru_cache(maxsize=1)
def _engine(url: str) -> Engine:
    """Return the engine of another process."""
    return make_engine(url)


def _take(engine: Engine, policy: Policy, now: datetime, batch: list[Found]) -> Counts:
    counts = Counts()
    ours = [event for found in batch if (event := _event(decoded(found), counts))]
    with engine.begin() as db:
        counts.new = len(take_in(db, ours, policy, now))
        failpoint("before_batch_commit")
    counts.duplicate = len(ours) - counts.new
    return counts


def _event(found: Found, counts: Counts) -> Event | None:
    """Return an event to keep; anything else is counted here."""
    try:
        event, problem = None, found.problem
        if problem is None:
            event = parse_event(found.value)
    except BadEvent as error:
        problem = str(error)
    if event is None:
        counts.rejected.append({"line": found.line, "reason": problem})
        return None
    if not event.ours:
        counts.ignore(event)
        return None
    return event
