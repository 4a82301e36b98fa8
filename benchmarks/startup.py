"""How long until a command answers? Wall time of a whole process, its files in the page cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from time import perf_counter

from benchmarks.measure import Row, Scale, interleave

MOST = 0.4
WAYS = {
    "dunning --help": ("-m", "worker.cli", "--help"),
    "dunning case list --help": ("-m", "worker.cli", "case", "list", "--help"),
    "import of all that a worker needs": ("-c", "import worker.tasks, celery.apps.worker"),
    "Python alone": ("-c", "pass"),
}


def measure(scale: Scale) -> list[Row]:
    """Return the seconds of each command; the first run of each is not counted, it may compile."""
    for arguments in WAYS.values():
        run(arguments)
    found = interleave({what: partial(run, arguments) for what, arguments in WAYS.items()}, scale.rounds)
    asks = {"dunning --help": MOST}
    return [Row("startup", what, "s", runs, most=asks.get(what)) for what, runs in found.items()]


def run(arguments: Sequence[str]) -> float:
    """Run a Python process to its end, with compiled files as an installation has them."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = perf_counter()
    subprocess.run((sys.executable, *arguments), env=env, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - begun
