"""A Celery app with our settings and one task that takes its time; PLAIN=1 gives it Celery's own consumer."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

LONGEST = 60.0

app = Celery("plain")
app.config_from_object("celeryconfig")
app.conf.imports = []
if os.environ.get("PLAIN"):
    app.conf.worker_consumer = "celery.worker.consumer:Consumer"


@app.task(name="nap")  # type: ignore[untyped-decorator]  # celery has no types
def nap(begun: str, over: str) -> None:
    """Tell that it has begun, and end when a file is there."""
    Path(begun).touch()
    until = time.monotonic() + LONGEST
    while not Path(over).exists() and time.monotonic() < until:
        time.sleep(0.05)
