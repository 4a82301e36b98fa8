"""One case, a strict bank, and workers that live for one pass each: what the crash matrix and the mutants play with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row

from tests.faults.strict_bank import Gate
from tests.worker.bench import Bench
from tests.worker.builders import one, sql, the_case, until
from worker.clock import set_clock
from worker.inbox import keep, parse_event

ROOT = Path(__file__).parents[2]
EXPIRE = "UPDATE {} SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_token IS NOT NULL"
NEVER_BROKEN = "UPDATE limits SET failures = 0, next_at = clock_timestamp(), probe_until = NULL"


class Forks:
    """Starts children that do one pass; one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.one_pass"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, environment: dict[str, str]) -> int:
        """Run one pass to its end; return the exit code of the process, or the signal that killed it, negative."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(environment) + "\n")
        stdin.flush()
        return os.waitstatus_to_exitcode(int(stdout.readline()))

    def close(self) -> None:
        """End the parent of the children."""
        self._process.communicate(timeout=30)


@dataclass
class Stage:
    """A bank, a case whose charge is planned, and two workers."""

    bench: Bench
    gate: Gate
    forks: tuple[Forks, Forks]
    folder: Path
    environment: dict[str, str]
    exits: list[int] = field(default_factory=list)

    def start(self, worker: int = 0, *, place: str = "", mutant: str = "") -> int:
        """Let one worker do a pass at the bank's instant, to die at a place; return how its process ended."""
        told = {"DUNNING_FAILPOINT": place, "MUTANT": mutant}
        self.exits.append(self.forks[worker].run({**self.environment, **told}))
        return self.exits[-1]

    def at(self, now: datetime) -> None:
        """Step the business clock of the bank and of the workers."""
        self.bench.instant[0] = now
        set_clock(self.folder / "clock", now)

    def due(self) -> datetime:
        """Step to the instant at which the case is due, and return it."""
        now: datetime = max(self.case.due_at, self.bench.instant[0])
        self.at(now)
        return now

    @property
    def case(self) -> Row[Any]:
        """Return the row of the only case."""
        return the_case(self.bench.engine, one(self.bench.engine, "SELECT id FROM cases"))

    def expire(self) -> None:
        """Let every lease run out: machine time passes."""
        for table in ("cases", "outbox"):
            sql(self.bench.engine, EXPIRE.format(table))

    def race(self, *, steal: bool = True, place: str = "", mutant: str = "") -> None:
        """Let the second worker pass while the first is in its call, if it comes that far, and steal its lease."""
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.start, 0, place=place, mutant=mutant)
            until(lambda: self.gate.reached.is_set() or call.done())
            if steal:
                self.expire()
            self.start(1, place=place, mutant=mutant)
            self.gate.open()
            call.result(timeout=30)

    def finish(self, most: int = 20) -> None:
        """Let undisturbed workers pass until the case has ended; a stuck one fails."""
        for _ in range(most):
            if self.case.closed_at is not None:
                return
            until(lambda: not self.bench.under_way)
            self.expire()
            sql(self.bench.engine, NEVER_BROKEN)
            self.due()
            assert self.start(1) == 0
        pytest.fail("stuck")

    def hear_of_failure(self) -> None:
        """Keep the event of the renewal that failed, as the webhook does; a worker will handle it."""
        self.bench.control("advance", {})
        line = HTTPConnection("127.0.0.1", self.bench.port, timeout=20)
        line.request("GET", "/v1/events?type=invoice.payment_failed", headers={"Authorization": "Bearer sk_test_1"})
        told = [parse_event(each) for each in json.loads(line.getresponse().read())["data"]]
        line.close()
        with self.bench.engine.begin() as db:
            keep(db, told)

    @property
    def charges(self) -> list[tuple[datetime, bool]]:
        """Return every charge the bank made after the renewal: when, and whether it was approved."""
        return [(datetime.fromisoformat(each["at"]), each["approved"]) for each in self.bench.ledger]
