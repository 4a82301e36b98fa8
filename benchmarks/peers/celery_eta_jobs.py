"""Celery with ``eta``: the message waits in a worker's memory until it is due."""

from __future__ import annotations

import os
from datetime import datetime

import redis
from celery import Celery

from benchmarks.peers import broker

COMMAND = ["celery", "--app=benchmarks.peers.celery_eta_jobs", "worker", "--loglevel=WARNING"]

app = Celery("peer", broker=os.environ["DUNNING_BROKER_URL"], task_ignore_result=True)


@app.task(name="nothing")  # type: ignore[untyped-decorator]  # celery has no types
def nothing() -> None:
    """Do nothing."""


def prepare() -> None:
    """Nothing has to be there."""


def enqueue(count: int, due: datetime) -> None:
    """Send so many messages."""
    for _ in range(count):
        nothing.apply_async(eta=due)


def left() -> int:
    """Count what is in the queue, and what was fetched and is not acknowledged."""
    connection = redis.Redis.from_url(broker())
    return int(connection.llen("celery")) + int(connection.hlen("unacked"))
