"""Does every command that the pages show do what a reader expects of it? Each block runs in a shell of its own.

A page's blocks run in order, on an installation with three failed payments beside a practice bank. Blocks marked
``bash`` set up a machine (accounts, containers, units): no test may do that, and their page says who ran them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from schedules import Decline
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import START, case_row, one, payment
from tests.worker.postbox import smtp
from worker.clock import set_clock
from worker.embedded import Servers

REPO = Path(__file__).parents[2]
PAGES = (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# What a reader puts in.
PLACES = {r"\bID\b": "in_1", r"\bCUSTOMER\b": "cus_2", r"_test_…": "_test_1", "whsec_…": "whsec_1", r"in_1NxYz": "in_1"}
STAYS = ("dunning up", "dunning worker", "dunning beat", "dunning web")  # started by the tests of the roles


def blocks(page: Path) -> list[str]:
    """Return the shell blocks of a page, without the indent of the list that they stand in."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in found]


def runnable(block: str) -> str:
    """Return what a shell can run here of a block."""
    lines = block.replace("\\\n", " ").replace(".venv/bin/dunning", "dunning").splitlines()
    kept = [line for line in lines if not line.startswith((*STAYS, "make "))]
    text = "\n".join(kept)
    for place, value in PLACES.items():
        text = re.sub(place, value, text)
    return text


SHOWN = [page for page in PAGES if blocks(page)]


@pytest.fixture
def street(serve: Serve) -> Bench:
    """Give three failed payments, one of them of an expired card."""
    payments = [payment(1), payment(2, decline=Decline("expired_card")), payment(3)]
    opened = serve(Scripted(payments))
    opened.control("webhook", {"url": "https://dunning.example/webhooks/stripe", "secret": "whsec_1"})
    opened.hear(START)
    opened.work(START)
    return opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the command and the files that the pages speak of."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "dunning"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worker.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    failed = {key: str(value) for key, value in case_row().items() if key in ("payment_id", "customer_id", "currency")}
    line = {**failed, "amount_minor": 1999, "failed_at": START.isoformat(), "decline": {"code": "insufficient_funds"}}
    (tmp_path / "payments.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (tmp_path / "ids.txt").write_text("in_1\nin_3\n", encoding="utf-8")
    set_clock(tmp_path / "clock", START + timedelta(minutes=30))
    return tmp_path


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, street: Bench, running: Servers, folder: Path) -> None:
    """Each one succeeds, prints no error, and charges nobody twice."""
    with smtp() as (_, mail_server):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DUNNING_")},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPO),
            "DUNNING_DATABASE_URL": running.database_url,
            "DUNNING_BROKER_URL": running.broker_url,
            "DUNNING_CLOCK_FILE": str(folder / "clock"),
            "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{street.port}",
            "DUNNING_STRIPE_API_KEY": "rk_test_1",
            "DUNNING_STRIPE_WEBHOOK_SECRET": "whsec_1",
            "DUNNING_SMTP_URL": mail_server,
            "DUNNING_MAIL_FROM": "billing@shop.example",
        }
        for block in filter(str.strip, map(runnable, blocks(page))):
            done = subprocess.run(
                [shutil.which("bash") or "sh", "-euc", block],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{block}\n{done.stdout}\n{done.stderr}"
    street.agrees()
    assert one(street.engine, "SELECT count(*) FROM cases") >= 3


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_every_target_of_make_that_a_page_shows_is_there(page: Path) -> None:
    """What make would do is read, not done: some of it takes minutes, and tests are among it."""
    for target in {
        line.split()[1] for block in blocks(page) for line in block.splitlines() if line.startswith("make ")
    }:
        done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, check=False)
        assert done.returncode == 0, target
