"""What does an installation write while one case runs its course? All of it at debug level, by one process.

    python -m tests.stories.talkative BANK

The settings come from the environment. Events are fetched from the bank and sent to the web application as Stripe
sends them; hints are carried out at once. The first notice finds no mail server, and the bank refuses the key once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import datetime
from typing import Any

import requests
from sqlalchemy import Engine, func, select

from tests.gateway.wire import served
from worker import app, cli, logs, sweep, tasks
from worker.clock import set_clock
from worker.models import cases, outbox
from worker.practice.events import signature
from worker.settings import load_settings
from worker.web.webhooks import make_web

MOST_ROUNDS = 200
LIBRARIES = ("asyncio", "celery", "kombu", "sqlalchemy", "sqlalchemy.engine", "urllib3", "uvicorn", "uvicorn.error")


def main(bank: str) -> None:
    """Play the case to its end, then show it in every way there is."""
    logs.set_up(logging.DEBUG)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with served(make_web(load_settings(), app.engine())) as web:
        heard: set[str] = set()
        for number in range(MOST_ROUNDS):
            _control(bank, "access", {"revoked": number == 1})
            _hear(bank, web, heard)
            _tick()
            if not _go_on(app.engine()):
                break
        for page in ("healthz", "metrics", "pay/nonsense"):
            print(requests.get(f"{web}/{page}", timeout=20).text)  # noqa: T201
    for command in ("case list", "case show 1", "case show --json 1", "report", "policy show"):
        cli.main(command.split(), standalone_mode=False)


def _control(bank: str, name: str, body: dict[str, Any]) -> None:
    requests.post(f"{bank}/_practice/{name}", json=body, timeout=20).raise_for_status()


def _hear(bank: str, web: str, heard: set[str]) -> None:
    """Deliver the events that are new, signed, the oldest first; one of them with a signature that does not fit."""
    _control(bank, "advance", {})
    listed = requests.get(f"{bank}/v1/events?limit=100", headers={"Authorization": "Bearer sk_test_1"}, timeout=20)
    for event in reversed(listed.json().get("data", [])):
        body, secret = json.dumps(event).encode(), load_settings().stripe_webhook_secret[0].get_secret_value()
        header = signature(secret if event["id"] in heard else "whsec_other", body, int(time.time()))
        requests.post(f"{web}/webhooks/stripe", body, headers={"Stripe-Signature": header}, timeout=20)
        heard.add(event["id"])


def _tick() -> None:
    """Sweep once and carry out every hint, as Celery does: an exception is logged, and the next one is carried out."""
    hints: list[tuple[str, int, str]] = [("dunning.work", 1, "no token at all")]
    sweep.tick(tasks.desk(), lambda task, row_id, token: hints.append((task, row_id, token)))
    for task, row_id, token in hints:
        try:
            {"dunning.work": tasks.work, "dunning.deliver": tasks.deliver}[task](row_id, token)
        except Exception:
            logging.getLogger("celery.app.trace").exception("Task %s%r raised", task, (row_id, token))
        if task == "dunning.deliver":  # the first one has found no mail server
            os.environ.pop("DUNNING_SMTP_URL", None)
            load_settings.cache_clear()


def _go_on(engine: Engine) -> bool:
    """Step the clock to when something is due; say whether anything is."""
    with engine.connect() as db:
        due = [db.execute(select(func.min(table.c.due_at))).scalar() for table in (cases, outbox)]
        opened = db.execute(select(func.count()).select_from(cases)).scalar_one()
    coming: list[datetime] = [at for at in due if at is not None]
    clock_file = load_settings().clock_file
    if coming and clock_file is not None:
        set_clock(clock_file, max(app.now(), min(coming)))
    return bool(coming) or not opened


if __name__ == "__main__":
    main(sys.argv[1])
