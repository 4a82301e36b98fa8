"""What becomes of a charge when PostgreSQL goes away? Real servers, stopped in three ways, and commits cut off."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from tests.faults.conftest import Build, SetStage
from tests.faults.harness import town, until
from tests.faults.proxy import Cut, Proxy
from worker.embedded import Servers

COMMITS = 13  # of one pass with one charge, those of the pace included


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=["fast", "immediate", "kill -9"])
def test_a_database_that_goes_away_in_the_call_loses_and_doubles_nothing(build: Build, how: signal.Signals) -> None:
    """Fault 18: four charges are at the bank while it restarts; the same worker goes on, and each charge is one."""
    house = build(town(12))
    house.start("worker")
    house.start("beat")
    house.open_all()
    house.read_all()
    house.gate.close("door", every=True)
    house.let_charges_be_due()
    until(lambda: house.gate.payments >= 4, "four calls")
    house.ground.end("postgres", how)
    house.ground.start()
    house.gate.open()
    house.expire()
    house.play(days=10)
    assert house.process("worker").poll() is None
    assert house.approved == 12
    house.kept()


@pytest.fixture
def line(running: Servers) -> Iterator[Proxy]:
    """Give a line to the tests' database that can be cut."""
    proxy = Proxy(f"{make_url(running.database_url).query['host']}/.s.PGSQL.5432")
    yield proxy
    proxy.close()


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(True, id="before it arrives", marks=pytest.mark.slow),
        pytest.param(False, id="before it is confirmed"),
    ],
)
@pytest.mark.parametrize("number", range(1, COMMITS + 1))
def test_a_line_cut_at_a_commit_loses_and_doubles_nothing(
    set_stage: SetStage, line: Proxy, number: int, before: bool
) -> None:
    """Fault 18, at COMMIT: whether it was done is unknown to the worker, whichever of its commits it was."""
    stage = set_stage(DUNNING_DATABASE_URL=f"postgresql+psycopg://dunning@127.0.0.1:{line.port}/dunning")
    line.cut = Cut(b"COMMIT", number, before)
    stage.start()
    line.accept()
    stage.finish()
    assert [approved for _, approved in stage.charges] == [True]
