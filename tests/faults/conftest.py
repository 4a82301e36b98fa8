"""What the tests under faults share. All dice come from one seed, FAULTS_SEED, which a failing test prints."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.faults.harness import Ground, House, a_house
from tests.faults.passes import Forks, Stage
from tests.faults.strict_bank import Gate, Gated, without_fence
from tests.worker.bench import Scripted, Street
from tests.worker.builders import START, opened
from worker.embedded import Servers

SetStage = Callable[..., Stage]
Build = Callable[..., House]


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> Random:
    """Give the dice of one test."""
    seed = os.environ.get("FAULTS_SEED", "1")
    print(f"FAULTS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    return Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def street() -> Iterator[Street]:
    """Give the server of all practice banks."""
    running = Street()
    yield running
    running.close()


@pytest.fixture(scope="session")
def forks() -> Iterator[tuple[Forks, Forks]]:
    """Give two parents of workers."""
    pair = Forks(), Forks()
    yield pair
    for each in pair:
        each.close()


@pytest.fixture
def set_stage(  # noqa: PLR0913, PLR0917 - one fixture each
    engine: Engine, street: Street, forks: tuple[Forks, Forks], running: Servers, tmp_path: Path, dice: Random
) -> SetStage:
    """Return a function that opens a strict bank over a world, with one case whose charge is planned."""

    def begin(world: Scripted | None = None, *, planned: bool = True, **settings: str) -> Stage:
        gate = Gate()
        bench = street.open(engine, world or Scripted())
        bank: Any = street.bank
        without_fence(bank.state.books)
        bank.add_middleware(Gated, gate=gate)
        environment = {
            "DUNNING_HOME": str(tmp_path),
            "DUNNING_DATABASE_URL": running.database_url,
            "DUNNING_BROKER_URL": running.broker_url,
            "DUNNING_STRIPE_API_KEY": "sk_test_1",
            "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{bench.port}",
            "DUNNING_CLOCK_FILE": str(tmp_path / "clock"),
            "DUNNING_MODE": "live",
            "DUNNING_CONNECT_SECONDS": "2",
            "DUNNING_READ_SECONDS": "5",
            "DUNNING_REQUESTS_PER_SECOND": "100",
        }
        stage = Stage(bench, gate, forks, tmp_path, environment | settings)
        stage.at(START)
        if planned:
            opened(engine)
            bench.work(START)
            stage.due()
        return stage

    assert dice
    return begin


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """Give servers of our own, which may be killed, in a folder that their account can reach under root too."""
    base = Path(tempfile.mkdtemp(prefix="dunning-faults-"))
    base.chmod(0o755)
    found = Ground(base / "data")
    yield found
    found.close()
    shutil.rmtree(base)


@pytest.fixture
def build(ground: Ground, street: Street, tmp_path: Path, dice: Random) -> Iterator[Build]:
    """Return a function that builds an installation over a town; what went wrong in its logs is shown on failure."""
    with ExitStack() as stack:
        yield lambda world, **environment: stack.enter_context(a_house(ground, street, tmp_path, world, **environment))
    assert dice
