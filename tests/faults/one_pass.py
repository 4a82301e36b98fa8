"""What does one worker do in one pass, in a process of its own that may be killed in the middle?

    python -m tests.faults.one_pass

This process has imported everything heavy and opened nothing. For each line of JSON on standard input (the
environment of a pass, with ``MUTANT`` naming a fault of our own) it forks a child that sweeps once and carries every
hint out; one line with the child's exit status comes back. After ``DIES_AFTER`` seconds of work the kernel ends it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import smtplib
import sys
import traceback
from contextlib import suppress
from importlib import import_module

import babel.numbers
import holidays
import jinja2
import psycopg
import requests
from sqlalchemy.dialects.postgresql import psycopg as dialect

# What reads DUNNING_FAILPOINT, and what imports that, is imported in the child.
import worker.app
import worker.cases
import worker.limits
import worker.links
import worker.logs
from worker.stripe_gateway import GatewayError, StripeGateway

HEAVY = (babel.numbers, dialect, jinja2, psycopg, requests, smtplib)


def main() -> None:
    """Fork one child for each line, until there are no more."""
    with suppress(GatewayError):  # nobody listens there; what a request needs is imported on the way
        StripeGateway("sk_test_1", "http://127.0.0.1:9", 1, 1).read("in_1")
    holidays.country_holidays("US")
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _live(json.loads(line))
        print(os.waitpid(child, 0)[1], flush=True)  # noqa: T201 - the answer


def _live(environment: dict[str, str]) -> None:
    """Do one pass and end, without the clean-up of the parent."""
    os.environ.update(environment)
    try:
        one_pass(environment.get("MUTANT"))
    except Exception:  # noqa: BLE001 - told on standard error, as any crash
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def one_pass(mutant: str | None) -> None:
    """Sweep once as a tick does, and carry out every hint as a worker does."""
    from worker import sweep, tasks

    if mutant:
        getattr(import_module("tests.faults.mutants"), mutant)()
    worker.logs.set_up()
    signal.setitimer(signal.ITIMER_REAL, float(os.environ.get("DIES_AFTER", "0")))
    hints: list[tuple[str, int, str]] = []
    sweep.tick(tasks.desk(), lambda task, row_id, token: hints.append((task, row_id, token)))
    for task, row_id, token in hints:
        {"dunning.work": tasks.work, "dunning.deliver": tasks.deliver}[task](row_id, token)
    worker.app.engine().dispose()


if __name__ == "__main__":
    main()
