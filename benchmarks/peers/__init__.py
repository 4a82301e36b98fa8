"""The same wait, held by what a user would take instead: jobs that do nothing, all due at one instant.

Each module here is one peer, used as its own documentation shows, on the servers that the environment names.
"""

from __future__ import annotations

import os
from datetime import datetime
from importlib import import_module
from typing import Protocol, cast

LIBRARIES = ("celery_eta", "procrastinate", "pgqueuer", "dramatiq")
AHEAD, STORED_A_SECOND = 10, 400  # seconds that are left to store jobs before they are due, and how many more


class Peer(Protocol):
    """What a module of this package has. Its worker is a command of Python, after ``python -m``."""

    COMMAND: list[str]

    def prepare(self) -> None:
        """Make what has to be there before the first job."""

    def enqueue(self, count: int, due: datetime) -> None:
        """Store so many jobs, none to be begun before ``due``."""

    def left(self) -> int:
        """Return how many jobs are not done."""


def peer(name: str) -> Peer:
    """Return one peer of ``LIBRARIES``; its library comes with the extra ``bench``."""
    return cast("Peer", import_module(f"{__name__}.{name}_jobs"))


def database() -> str:
    """Return the address of PostgreSQL as psycopg takes it."""
    return os.environ["DUNNING_DATABASE_URL"].replace("postgresql+psycopg", "postgresql")


def broker() -> str:
    """Return the address of the broker as redis-py takes it."""
    return os.environ["DUNNING_BROKER_URL"].replace("redis+socket", "unix").partition("?")[0]
