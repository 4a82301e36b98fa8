"""What the tests of the worker share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from tests.gateway.wire import served
from tests.worker.bench import Serve, Street
from tests.worker.builders import HOUR, START, one
from tests.worker.visitor import TOKEN, Open, Visitor
from worker import app
from worker.clock import set_clock
from worker.embedded import Servers
from worker.settings import Settings, load_settings
from worker.web.webhooks import make_web

REPO = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(scope="session")
def street() -> Iterator[Street]:
    """Give the server of all practice banks."""
    running = Street()
    yield running
    running.close()


@pytest.fixture
def serve(engine: Engine, street: Street) -> Serve:
    """Return a function that opens a bank over a world until the next one is opened."""
    return partial(street.open, engine)


@pytest.fixture
def configured(running: Servers, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this process work as a worker on the tests' own servers."""
    monkeypatch.setenv("DUNNING_DATABASE_URL", running.database_url)
    monkeypatch.setenv("DUNNING_BROKER_URL", running.broker_url)
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", "sk_test_1")
    made = (app.engine, app.gateway)
    for each in made:
        each.cache_clear()
    yield
    app.engine().dispose()
    for each in made:
        each.cache_clear()


FORKING = """
import json, os, sys, traceback
from worker import cli
for name in cli.COMMANDS:
    cli.main.get_command(None, name)
for line in sys.stdin:
    job = json.loads(line)
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(job["streams"][number], mode), number)
    os.environ.update(job["environment"])
    sys.stdin, code = open(0, closefd=False), 0
    try:
        cli.main(job["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code or 0)
"""


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a function that runs one command in a process of its own, forked from one that has imported it all."""
    place = tmp_path_factory.mktemp("commands")
    streams = [place / name for name in ("given", "output", "errors")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUNNING_")}
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        cwd=REPO,
        env={**clean, "PYTHONPATH": str(REPO)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments: str, given: bytes = b"", **environment: str) -> Done:
        for stream in streams:
            stream.write_bytes(given if stream is streams[0] else b"")
        job = {"arguments": arguments, "environment": environment, "streams": [str(stream) for stream in streams]}
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(job) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return subprocess.CompletedProcess(
            arguments, code, streams[1].read_text("utf-8"), streams[2].read_text("utf-8")
        )

    with parent:
        yield run


@pytest.fixture
def run(engine: Engine, running: Servers, commands: Run) -> Run:
    """Return a function that runs a command on the tests' own servers; the database is empty."""
    assert one(engine, "SELECT count(*) FROM cases") == 0
    places = {"DUNNING_DATABASE_URL": running.database_url, "DUNNING_BROKER_URL": running.broker_url}
    return lambda *arguments, **more: commands(*arguments, **{**places, **more})


@pytest.fixture
def operate(run: Run, tmp_path: Path) -> Run:
    """Return a function that runs a command as an operator does, half an hour after the start."""
    clock = tmp_path / "operators_clock"
    set_clock(clock, START + timedelta(minutes=30))
    return partial(run, DUNNING_CLOCK_FILE=str(clock))


@pytest.fixture
def visit(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return a function that serves an installation and returns a visitor, logged in unless it has no token."""
    monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
    load_settings.cache_clear()
    set_clock(tmp_path / "clock", START + HOUR)
    with ExitStack() as stack:

        def come(database: Engine = engine, *, login: bool = True, **changes: Any) -> Visitor:
            chosen: dict[str, Any] = {"console_token": SecretStr(TOKEN), **changes}
            visitor = Visitor(stack.enter_context(served(make_web(Settings(**chosen), database))))
            if login and chosen["console_token"]:
                assert visitor.post("/login", token=TOKEN).status_code == 303
            return visitor

        yield come
