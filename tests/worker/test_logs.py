"""Is nothing secret or personal in a log line, and everything else still readable?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.logs import BLOT, redact

REPO = Path(__file__).parents[2]
CANARIES = [
    "sk_live_51Canary",
    "rk_test_Canary9",
    "whsec_Canary",
    "pm_1Canary",
    "seti_1Canary",
    "pi_1_secret_Canary",
    "ada.lovelace+x@customer.example",
    "4242424242424242",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "378282246310005",
]
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
    logging.getLogger("celery").exception("raised too")
"""


def logged(canary: str) -> list[str]:
    """Return what a process logs that meets this text everywhere."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, canary],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stdout
    return done.stderr.splitlines()


@pytest.mark.parametrize("canary", CANARIES)
def test_what_is_secret_is_blotted_out(canary: str) -> None:
    """Keys, method ids, client secrets, addresses and card numbers, within a sentence too."""
    text = redact(f"before {canary}, after")
    assert canary not in text
    assert text == f"before {BLOT}, after"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_is_left(text: str) -> None:
    """A log in which every number is blotted out helps nobody."""
    assert redact(text) == text


@pytest.mark.parametrize("canary", ["sk_test_Canary", "ada@customer.example", "4242424242424242"])
def test_no_canary_gets_through_a_real_process(canary: str) -> None:
    """However a line is made (text, field, nested, exception, library), it is one JSON object without the canary."""
    lines = logged(canary)
    assert len(lines) == 8
    assert [line for line in lines if canary in line] == []
    assert {json.loads(line)["level"] for line in lines} == {"info", "warning", "error"}
