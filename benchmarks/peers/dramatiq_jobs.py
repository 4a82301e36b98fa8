"""Dramatiq with ``delay``: the message waits in a queue of its own, and is sent again when it is due."""

from __future__ import annotations

from datetime import datetime, timedelta

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import broker
from worker.clock import machine_now

COMMAND = ["dramatiq", "benchmarks.peers.dramatiq_jobs"]

dramatiq.set_broker(RedisBroker(url=broker()))  # type: ignore[no-untyped-call]  # it has types, but not here


@dramatiq.actor
def nothing() -> None:
    """Do nothing."""


def prepare() -> None:
    """Nothing has to be there."""


def enqueue(count: int, due: datetime) -> None:
    """Send so many messages."""
    for _ in range(count):
        nothing.send_with_options(delay=max(due - machine_now(), timedelta()))


def left() -> int:
    """Count the messages that are not acknowledged, those that wait for their instant too."""
    connection = redis.Redis.from_url(broker())
    return sum(int(connection.hlen(f"dramatiq:{queue}.msgs")) for queue in ("default", "default.DQ"))
