"""How is the provider asked about many cases at once? In threads, a few for each kind of request of the process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

GATHER = 0.1  # seconds for which an answer waits for others
T = TypeVar("T")


class Calls:
    """The threads of a process: what is to be paid never waits behind what is only read."""

    def __init__(self, number: int) -> None:
        """Have so many threads of either kind."""
        self.number = number
        self._reads, self._pays = (ThreadPoolExecutor(number, name) for name in ("reads", "pays"))

    def start(self, work: Callable[[], None], number: int, *, pays: bool) -> None:
        """Do the same in up to so many threads; lines of the log tell what they would tell here."""
        for _ in range(min(number, self.number)):
            (self._pays if pays else self._reads).submit(copy_context().run, work)

    def close(self) -> None:
        """Wait until nothing is under way."""
        for threads in (self._reads, self._pays):
            threads.shutdown()


class Late(Exception):
    """No thread was free in time."""


class Questions(Generic[T]):
    """Questions that are asked, and the answers that have come. Without threads one is asked after the other."""

    def __init__(self, calls: Calls | None, ask: Callable[[T], Any], patience: float) -> None:
        """Ask by ``ask``, but nothing that has waited for a thread for more than ``patience`` seconds."""
        self.open = 0
        self._calls, self._ask, self._patience = calls, ask, patience
        self._answers = SimpleQueue[tuple[T, Any]]()

    def add(self, about: Iterable[T], *, pays: bool) -> None:
        """Ask about each of these."""
        todo, latest = deque(about), time.monotonic() + self._patience
        number = len(todo)
        self.open += number
        if self._calls is None or self.open == 1:
            self._ask_each(todo, latest)
        else:
            self._calls.start(lambda: self._ask_each(todo, latest), number, pays=pays)

    def _ask_each(self, todo: deque[T], latest: float) -> None:
        while todo:
            with suppress(IndexError):  # another thread has taken the last one
                each = todo.popleft()
                self._answers.put((each, self._answer(each) if time.monotonic() <= latest else Late()))

    def _answer(self, about: T) -> Any:
        try:
            return self._ask(about)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer gets it
            return error

    def come(self) -> list[tuple[T, Any]]:
        """Wait for an answer; return it, or its error, with all others that come within a moment."""
        found, until = [self._answers.get()], time.monotonic() + GATHER
        with suppress(Empty):
            while len(found) < self.open:
                found.append(self._answers.get(timeout=max(until - time.monotonic(), 0)))
        self.open -= len(found)
        return found
