"""Does an endpoint that hangs hold up the charges, or a worker that is killed lose a message? Real processes."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schedules import Policy
from tests.faults.conftest import Build
from tests.faults.harness import House, town, until
from tests.gateway.wire import served
from tests.worker.builders import START, one
from worker.models import outbox
from worker.planning import open_case
from worker.sweep import AT_ONCE

SECRET = f"whsec_{b64encode(b'canary-canary-canary-canary').decode()}"
HOOKS = ("case.opened", "case.planned", "case.recovered")


@dataclass
class Endpoint:
    """The merchant's: it may hang, and counts what it was asked, what it took, and how much at once."""

    url: str = ""
    hangs: bool = False
    asked: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    open: int = 0
    most: int = 0

    async def answer(self, request: Request) -> Response:
        """Take a message, as soon as it does not hang."""
        await request.body()
        self.asked.append(request.headers["webhook-id"])
        self.open += 1
        self.most = max(self.most, self.open)
        while self.hangs and not await request.is_disconnected():  # noqa: ASYNC110 - another thread ends it
            await asyncio.sleep(0.02)
        self.open -= 1
        if not self.hangs:
            self.taken.append(request.headers["webhook-id"])
        return Response()


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run an endpoint."""
    found = Endpoint()
    with served(Starlette(routes=[Route("/canary", found.answer, methods=["POST"])])) as url:
        found.url = f"{url}/canary"
        yield found
        found.hangs = False


def built(build: Build, folder: Path, told: Endpoint, cases: int) -> House:
    """Return an installation that tells the endpoint everything, with a case for each of its renewals."""
    (folder / "policy.toml").write_text(f"hooks = {list(HOOKS)}\n")
    settings = {"POLICY": str(folder / "policy.toml"), "HOOK_URL": told.url, "HOOK_SECRET": SECRET}
    house = build(town(cases), **{f"DUNNING_{name}": value for name, value in settings.items()})
    house.bench.control("advance", {})
    with house.ground.engine.begin() as db:
        for failed in house.town.failures():
            open_case(db, failed, None, Policy(hooks=HOOKS), START)
    return house


def hooks(house: House) -> int:
    """Return how many messages there are for the endpoint."""
    with house.ground.engine.connect() as db:
        return int(db.execute(select(func.count()).where(outbox.c.kind == "hook")).scalar_one())


def logged(house: House, *names: str) -> str:
    """Return everything that some roles have logged."""
    return "".join((house.folder / "logs" / f"{name}.log").read_text(encoding="utf-8") for name in names)


def test_an_endpoint_that_hangs_holds_up_no_charge(build: Build, tmp_path: Path) -> None:
    """Two threads of four wait for it, whatever waits behind them; once it answers it hears everything."""
    with endpoint() as told:
        told.hangs = True
        house = built(build, tmp_path, told, 20)
        house.start("worker")
        house.start("beat")
        unread = "SELECT count(*) FROM cases WHERE refreshed_at IS NULL"
        until(lambda: told.asked and one(house.ground.engine, unread) == 0, "readings")
        house.let_charges_be_due()
        until(lambda: house.approved == 20, "charges")
        assert (told.taken, told.most) == ([], AT_ONCE)
        assert hooks(house) > 60
        told.hangs = False
        house.at(house.now + timedelta(hours=1))
        house.settle()
        assert (len(set(told.taken)), told.most) == (hooks(house), AT_ONCE)
        assert one(house.ground.engine, "SELECT count(*) FROM outbox WHERE delivered_at IS NULL") == 0
        assert "canary" not in logged(house, "worker", "beat")
        house.kept()


def test_a_worker_that_is_killed_while_telling_loses_nothing(build: Build, tmp_path: Path) -> None:
    """What it was telling is told again, under the same id; everything else once."""
    with endpoint() as told:
        told.hangs = True
        house = built(build, tmp_path, told, 3)
        house.start("worker")
        house.start("beat")
        until(lambda: len(told.asked) == AT_ONCE, "the endpoint")
        house.kill("worker")
        until(lambda: told.open == 0, "the end of its connections")
        told.hangs = False
        house.expire()
        house.start("worker.2")
        house.settle()
        assert sorted(set(told.asked)) == sorted(told.taken)
        assert len(told.taken) == hooks(house)
        assert {each for each in told.asked if told.asked.count(each) > 1} == set(told.asked[:AT_ONCE])
