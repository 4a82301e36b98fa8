"""Is nothing secret or personal in a log line, and everything else still readable?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Bench, Serve
from tests.worker.builders import START, add_notice, opened, sql
from worker.clock import set_clock
from worker.embedded import Servers
from worker.logs import BLOT, redact

REPO = Path(__file__).parents[2]
CANARIES = [
    "sk_live_51Canary",
    "whsec_Can+ary/9=",
    "rk_test_Canary9",
    "whsec_Canary",
    "pm_1Canary",
    "seti_1Canary",
    "pi_1_secret_Canary",
    "ada.lovelace+x@customer.example",
    "ada.o'hara@customer.example",
    "ada%40customer.example",
    "4242424242424242",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "378282246310005",
    "6304000000000000000",  # nineteen digits
]
# What is to be left of a text, with a canary in the midst of it.
AMIDST = {
    "4242 4242 4242 4242 12/27 CANARY": "[redacted] 12/27 CANARY",
    "key=mysk_live_51Canary;": "key=my[redacted];",
    "12 4242424242424242 123": "12 [redacted] 123",
    "id4242424242424242x": "id[redacted]x",
    "4242424242424242 5555555555554444": "[redacted] [redacted]",
    "redis://user:p%s$s@queue:6379/0": "redis://[redacted]@queue:6379/0",
    f"https://shop.example/pay/{'t' * 64} opened": "https://shop.example/pay/[redacted] opened",
    f"POST /unsubscribe/{'t' * 64} 200": "POST /unsubscribe/[redacted] 200",
    "see https://invoice.stripe.com/i/acct_1/live_YWNjd": "see https://[redacted]",
    "{'id': 'in_1', 'name': 'Ada Hopper', 'city': \"N'Djamena\"}": (
        "{'id': 'in_1', 'name': '[redacted]', 'city': \"[redacted]\"}"
    ),
    json.dumps({"line1": '1 "Main" St', "id": "cus_1"}): '{"line1": "[redacted]", "id": "cus_1"}',
    json.dumps({"body": json.dumps({"email": "x", "phone": "+49 30"})}): (
        r'{"body": "{\"email\": \"[redacted]\", \"phone\": \"[redacted]\"}"}'
    ),
    "cut short: {'postal_code': '10117 Ber": "cut short: {'postal_code': '[redacted]'",
}
HARMLESS = [
    "in_1QAbCdEfGh",
    "case 1234567890123456 of 2026-01-12T15:00:00.123456Z",  # sixteen digits that no card has
    "amount 199900, 17 events",
    "127.0.0.1:8000",
    "dunning-6f1cf0f4-6a35-4a5e-9d27-1c3f5cde0001-in_1-2",
]
PROGRAM = """
import logging, sys
from worker import logs
logs.set_up(logging.DEBUG)
canary = sys.argv[1]
logs.log.info("direct", value=canary)
logs.log.info(f"in the text {canary}")
logs.log.info("nested", value={"deep": [canary]})
logs.log.warning("an object", error=ValueError(canary))
logging.getLogger("celery").warning("as argument %s", canary)
logging.getLogger("celery").warning("as named argument %(a)s", {"a": canary})
logging.getLogger("stripe").info("request %s", canary)
logging.getLogger("stripe").debug("request %s", canary)
try:
    raise RuntimeError(canary)
except RuntimeError:
    logs.log.exception("raised")
    for name in ("celery", "celery.task", "sqlalchemy.engine", "stripe", "uvicorn.error"):
        logging.getLogger(name).exception("raised too")
logs.log.info("a key", value={canary: 1})
if canary.isdigit():
    logs.log.info("a number", value=int(canary))
logs.log.info("a payload", value={"customer": {"address": {"line1": "Canary Row 1"}, "name": "Canary"}})
"""
ENDS = """
import sys, threading
from worker import logs
logs.set_up()
canary = sys.argv[1]
def fail():
    raise RuntimeError(canary)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
CELERY = """
import logging, sys
from worker.celery_app import celery_app
celery_app.log.setup(loglevel=logging.DEBUG, redirect_stdouts=True)
for name in ("", "celery", "celery.task", "celery.worker", "dunning.tasks", "multiprocessing"):
    logging.getLogger(name).error("said %s", sys.argv[1])
"""


def logged(canary: str, program: str = PROGRAM, code: int = 0) -> list[str]:
    """Return what a process logs that meets this text everywhere, and ends with this code."""
    done = subprocess.run(
        [sys.executable, "-c", program, canary],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    return done.stderr.splitlines()


@pytest.mark.parametrize("canary", CANARIES)
def test_what_is_secret_is_blotted_out(canary: str) -> None:
    """Keys, method ids, client secrets, addresses and card numbers, within a sentence too."""
    text = redact(f"before {canary}, after")
    assert canary not in text
    assert text == f"before {BLOT}, after"


@pytest.mark.parametrize("text", AMIDST)
def test_only_what_is_secret_is_blotted_out(text: str) -> None:
    """What stands right beside it is neither lost nor a hiding place."""
    assert redact(text) == AMIDST[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_is_left(text: str) -> None:
    """A log in which every number is blotted out helps nobody."""
    assert redact(text) == text


@pytest.mark.parametrize("canary", ["sk_test_Canary", "ada@customer.example", "4242424242424242"])
def test_no_canary_gets_through_a_real_process(canary: str) -> None:
    """However a line is made (text, field, nested, exception, library), it is one JSON object without the canary."""
    lines = logged(canary)
    assert len(lines) == 14 + canary.isdigit()
    assert [line for line in lines if canary in line or "Canary" in line] == []
    assert {json.loads(line)["level"] for line in lines} == {"info", "warning", "error"}


def test_what_ends_a_process_or_a_thread_is_told_without_a_canary() -> None:
    """A traceback that nobody caught is a line like any other, with everything but the secret."""
    lines = [json.loads(line) for line in logged("sk_live_Canary", ENDS, code=1)]
    assert [(line["event"], line["level"]) for line in lines] == [("uncaught", "critical")] * 2
    assert all(line["exception"].endswith(f"RuntimeError: {BLOT}") for line in lines)


def test_celery_writes_through_the_same_filter() -> None:
    """By itself it gives some of its loggers handlers of their own, which no filter sees."""
    lines = [json.loads(line)["event"] for line in logged("sk_live_Canary", CELERY)]
    assert lines == [f"said {BLOT}"] * 6


WORK = """
import logging, sys
from worker import logs, tasks
logs.set_up()
for name, level in (("sqlalchemy.engine", logging.INFO), ("urllib3", logging.DEBUG)):
    logging.getLogger(name).setLevel(level)
tasks.celery_app.tasks[sys.argv[1]].apply(args=(int(sys.argv[2]), sys.argv[3]))
logs.log.info("after")
"""


def lines_of(bench: Bench, running: Servers, place: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return what a process logs that does one task as a worker does, and then says something else."""
    set_clock(place / "clock", bench.instant[0])
    places = {"DUNNING_DATABASE_URL": running.database_url, "DUNNING_BROKER_URL": running.broker_url}
    bank = {"DUNNING_STRIPE_API_KEY": "sk_test_1", "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{bench.port}"}
    rest = {"DUNNING_HOME": str(place), "DUNNING_CLOCK_FILE": str(place / "clock"), "DUNNING_MODE": "live"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, *arguments],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), **places, **bank, **rest},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_line_of_the_work_on_a_case_names_it(
    engine: Engine, running: Servers, serve: Serve, tmp_path: Path
) -> None:
    """Ours, the database's and the network library's, from the first statement to the last; and none after it."""
    bench, case_id = serve(), opened(engine)
    [(_, token)] = bench.claim(START)
    *work, after = lines_of(bench, running, tmp_path, "dunning.work", str(case_id), str(token))
    assert {line["logger"].partition(".")[0] for line in work} >= {"dunning", "sqlalchemy", "urllib3"}
    assert [line for line in work if line.get("case_id") != case_id] == []
    assert (after["event"], "case_id" in after) == ("after", False)


def test_every_line_about_a_message_names_its_case_once_it_is_known(
    engine: Engine, running: Servers, serve: Serve, tmp_path: Path
) -> None:
    """The message from the beginning, the case as soon as its row is read, also while the provider is asked."""
    bench = serve()
    bench.instant[0] = START + timedelta(hours=1)
    opened(engine)
    message_id = add_notice(engine, 1, due_at=START, at=START)
    lease = "UPDATE outbox SET lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'"
    [[token]] = sql(engine, f"{lease} RETURNING lease_token")
    *work, _ = lines_of(bench, running, tmp_path, "dunning.deliver", str(message_id), str(token))
    assert [line for line in work if line.get("message_id") != message_id] == []
    assert {line.get("case_id") for line in work if line["logger"].startswith("urllib3")} == {1}
