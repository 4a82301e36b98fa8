"""Do the promises hold under hours of random faults? One seed drives the faults, their order and their length.

    python -m tests.faults.soak --seed 1 --minutes 20 --cases 10000 --days 4.5 --pause 30 --after 1

Two workers, two beats and a web process serve many renewals while processes are killed and stopped, servers end and
lines break. The clock goes on all the while. Then it stands still: everything due must be done within two leases. At
last it goes on to the end of every case. The judges are the bank's ledger and the messages that an SMTP server took.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from email import message_from_bytes
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import click

from tests.faults.harness import LEASE, SECRET, Ground, House, Town, a_house, town, until
from tests.faults.proxy import Cut, Proxy
from tests.worker.bench import Street
from tests.worker.builders import START, one, sql
from tests.worker.postbox import Postbox, smtp
from worker.practice.events import signature

ROLES = ("worker", "worker.2", "beat", "beat.2", "web")
PLACES = (
    *("after_claim_commit", "before_send", "after_send", "before_record_commit"),
    *("before_mail_commit", "before_mail", "after_mail"),
)
DOOR = ("429", "409", "500_before", "500_after", "reset_before", "reset_after", "slow", "timeout_after")
STEP = timedelta(hours=12)
# Past the deadline of the default policy.
LATE = "SELECT count(*) FROM cases WHERE closed_at IS NULL AND failed_at < :now - interval '28 days'"


@dataclass(frozen=True)
class Plan:
    """How long faults happen, in minutes, and how many days go by meanwhile; ``pause`` is seconds between two faults.

    ``after`` is how many days follow without faults. What recovers must be more than what breaks: many cases need
    longer pauses and fewer days.
    """

    seed: int
    minutes: float
    cases: int
    days: float
    pause: float
    after: float


@dataclass
class Verdict:
    """What came of it. ``settled`` is in seconds after the last fault; what follows it must be nothing.

    An event is lost when a renewal failed and we never asked for its invoice.
    """

    seed: int
    cases: int
    recovered: int
    notices: int
    faults: dict[str, int]
    settled: float
    double_charges: int
    doubled_charges_at_once: int
    lost_events: int
    doubled_notices: int
    unfinished: int
    quarantined: int

    @property
    def broken(self) -> list[str]:
        """Name the promises that broke."""
        promises = list(asdict(self).items())[6:]
        return [name for name, count in promises if count] + ["settled"] * (self.settled > 2 * LEASE)


class Soak:
    """One installation under faults."""

    def __init__(self, house: House, dice: Random) -> None:
        self.house, self.dice, self.done = house, dice, Counter[str]()
        self.pause = Event()

    def wait(self, least: float, most: float) -> None:
        """Let machine time pass: that long is the fault itself."""
        self.pause.wait(self.dice.uniform(least, most))

    def faults(self) -> dict[str, Callable[[], None]]:
        """Return every fault by its name; each one is over when its function returns."""
        house = self.house
        lines = {"database": house.ground.database, "broker": house.ground.broker, "bank": house.bank}
        found: dict[str, Callable[[], None]] = {
            "kill a role": self.kill,
            "stop a role": self.stop,
            "die at a place": self.die,
            "provider": self.provider,
            "flush the queue": self.flush,
            "cut off the queue's clients": self.cut_clients,
            "restart the queue": lambda: self.restart("valkey", signal.SIGKILL),
            "stop the queue": self.stop_queue,
            "fill the queue": self.fill,
            "restart the database": self.restart_database,
            "cut a commit": self.cut,
            "event again": self.again,
        }
        for name, line in lines.items():
            found[f"reset {name}"] = line.reset
            found[f"refuse {name}"] = partial(self.refuse, line)
            found[f"silence {name}"] = partial(self.silence, line)
            found[f"delay {name}"] = partial(self.slow, line)
        return found

    def kill(self) -> None:
        """Kill a role; it is started again at once."""
        name = self.dice.choice(ROLES)
        self.house.kill(name)
        self.begin(name)

    def begin(self, name: str, **environment: str) -> None:
        """Start a role, and send the bank's events to it if it is the web."""
        if name == "web":
            (self.house.folder / "web.port").unlink(missing_ok=True)
        self.house.start(name, **environment)
        if name == "web":
            self.house.hear_events()

    def stop(self) -> None:
        """Stop a role for seconds."""
        process = self.house.process(self.dice.choice(ROLES))
        process.send_signal(signal.SIGSTOP)
        self.wait(1, 8)
        process.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """Let a worker run until it dies at a certain place, or some seconds."""
        name = self.dice.choice(ROLES[:2])
        self.house.kill(name)
        self.begin(name, DUNNING_FAILPOINT=self.dice.choice(PLACES))
        process = self.house.process(name)
        with suppress(AssertionError):
            until(lambda: process.poll() is not None, "a death", 8)
        self.house.kill(name)
        self.begin(name)

    def provider(self) -> None:
        """Have the next few payment requests go wrong, in one way."""
        self.house.bench.fault(self.dice.choice(DOOR), times=self.dice.randint(1, 4), seconds=6)

    def flush(self) -> None:
        """Empty the queue."""
        with self.house.ground.valkey() as line:
            line.flushall()

    def restart(self, server: str, how: signal.Signals) -> None:
        """End a server and start it again."""
        self.house.ground.end(server, how)
        self.wait(0, 2)
        self.house.ground.start()

    def restart_database(self) -> None:
        """End PostgreSQL in one of three ways."""
        self.restart("postgres", self.dice.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))

    def stop_queue(self) -> None:
        """Stop Valkey for seconds."""
        pid = self.house.ground.pid("valkey")
        os.kill(pid, signal.SIGSTOP)
        self.wait(1, 12)
        os.kill(pid, signal.SIGCONT)

    def fill(self) -> None:
        """Leave the queue no room for seconds."""
        with self.house.ground.valkey() as line:
            line.config_set("maxmemory", 1)
            self.wait(0.5, 3)
            line.config_set("maxmemory", 0)

    def cut(self) -> None:
        """Break a line to the database at a commit."""
        line = self.house.ground.database
        line.cut = Cut(b"COMMIT", self.dice.randint(1, 20), self.dice.random() < 0.5)
        self.wait(1, 2)
        line.cut = None

    def cut_clients(self) -> None:
        """Have Valkey itself cut off everybody."""
        with self.house.ground.valkey() as line:
            line.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def refuse(self, line: Proxy) -> None:
        """Refuse a line for seconds."""
        line.refuse()
        self.wait(0.5, 3)
        line.accept()

    def silence(self, line: Proxy) -> None:
        """Swallow everything on a line for seconds, then break it."""
        line.mode = "black_hole"
        self.wait(0.5, 4)
        line.mode = "pass"
        line.reset()

    def slow(self, line: Proxy) -> None:
        """Delay everything on a line for seconds."""
        line.delay = 0.05
        self.wait(1, 3)
        line.delay = 0.0

    def again(self) -> None:
        """Deliver old events again, in no order."""
        told = [event.body() for event in self.house.books.log.events[-500:]]
        for event in self.dice.sample(told, min(5, len(told))):
            with suppress(OSError, AssertionError):
                self.post(json.dumps(event).encode())

    def post(self, body: bytes) -> None:
        """Deliver one event."""
        line = HTTPConnection("127.0.0.1", self.house.web_port(), timeout=10)
        header = signature(SECRET, body, int(time.time()))
        with suppress(HTTPException):
            line.request("POST", "/webhooks/stripe", body, {"Stripe-Signature": header})
            line.getresponse().read()
        line.close()

    def catch_up(self) -> None:
        """Have the missed events read, as beat does every few minutes of machine time."""
        with suppress(Exception):  # whatever is broken at this moment will be whole at another
            sql(self.house.ground.engine, "UPDATE cursors SET begun_at = begun_at - interval '1 hour'")
            self.house.celery.send_task("dunning.catch_up")

    def revive(self) -> None:
        """Start again what has ended, as a supervisor does."""
        for name in ROLES:
            if self.house.process(name).poll() is not None:
                self.house.kill(name)
                self.begin(name)

    def run(self, plan: Plan) -> float:
        """Do one fault after the other while the clock goes on; return when the last was over."""
        begun, ends = time.monotonic(), time.monotonic() + 60 * plan.minutes
        faults, shown = self.faults(), begun
        ticker = Ticker(self.house, begun, 60 * plan.minutes, plan.days)
        while time.monotonic() < ends:
            name = self.dice.choice(sorted(faults))
            faults[name]()
            self.done[name] += 1
            ticker.step()
            self.revive()
            self.wait(0.2 * plan.pause, 1.8 * plan.pause)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                self.catch_up()
                click.echo(f"{shown - begun:6.0f} s  {self.house.now:%d %b %H:%M}  {self.done.total()} faults  {name}")
        ticker.step()
        self.revive()
        return time.monotonic()


@dataclass
class Ticker:
    """Moves the business clock with machine time: so many days in so many seconds."""

    house: House
    begun: float
    seconds: float
    days: float

    def step(self) -> None:
        """Put the clock where it should be by now, and let the bank's world go on."""
        share = min((time.monotonic() - self.begun) / self.seconds, 1)
        self.house.at(START + share * timedelta(days=self.days))
        with suppress(OSError):
            self.house.bench.control("advance", {})


def play(plan: Plan, folder: Path) -> Verdict:
    """Run the soak in a folder and return its verdict."""
    dice = Random(plan.seed)
    world = people(plan.cases, plan.days, dice)
    with ExitStack() as stack:
        ground = Ground(folder / "data")
        stack.callback(ground.close)
        street = Street()
        stack.callback(street.close)
        postbox, address = stack.enter_context(smtp())
        (folder / "run").mkdir()
        house = stack.enter_context(a_house(ground, street, folder / "run", world, DUNNING_SMTP_URL=address))
        soak = Soak(house, dice)
        for name in ROLES:
            soak.begin(name)
        house.ready("worker", "worker.2")
        over = soak.run(plan)
        settled = settle(soak, over)
        finish(soak, timedelta(days=plan.after))
        return judge(plan.seed, soak, world, postbox, settled)


def people(cases: int, days: float, dice: Random) -> Town:
    """Return a town whose renewals fail over most of the time; a tenth of the cards is lost, some customers pay."""
    every = timedelta(days=0.9 * days) / cases
    world = town(cases, lost=10, refused=6, every=every)
    for name, failed in world.people.items():
        if dice.random() < 0.05:
            world.acts[name] = ("paid", failed.failed_at + timedelta(days=dice.uniform(1, 12)))
    return world


def settle(soak: Soak, over: float) -> float:
    """Wait until nothing that is due is left, with the clock standing still; return the seconds it took."""
    soak.catch_up()
    until(soak.house.quiet, lambda: f"quiet: {soak.house.waiting()}", 10 * LEASE)
    return round(time.monotonic() - over, 1)


def finish(soak: Soak, after: timedelta) -> None:
    """Let the clock go on for a while, without faults, or until no case is open."""
    house, last = soak.house, soak.house.now + after
    still = "SELECT count(*) FROM cases WHERE closed_at IS NULL AND quarantined_at IS NULL"
    while (number := one(house.ground.engine, still)) and house.now < last:
        click.echo(f"without faults  {house.now:%d %b %H:%M}  {number} cases open")
        house.at(house.now + STEP)
        house.bench.control("advance", {})
        soak.catch_up()
        house.settle(10 * LEASE)
        soak.revive()


def judge(seed: int, soak: Soak, world: Town, postbox: Postbox, settled: float) -> Verdict:
    """Count what broke: at the bank, and in the messages."""
    house = soak.house
    ledger = house.bench.control("ledger")
    asked = Counter((each["invoice"], each["at"]) for each in ledger["attempts"] if each["by"] == "merchant")
    mails = Counter(str(message_from_bytes(content)["Message-ID"]) for content in postbox.taken)
    known = {name for name in world.people if house.gate.asked[f"/v1/invoices/{name}"] or name in ledger["approvals"]}
    return Verdict(
        seed=seed,
        cases=len(world.people),
        recovered=len(ledger["approvals"]),
        notices=mails.total(),
        faults=dict(soak.done),
        settled=settled,
        double_charges=ledger["summary"]["double_charges"],
        doubled_charges_at_once=sum(count > 1 for count in asked.values()),
        lost_events=len(world.people) - len(known),
        doubled_notices=sum(count > 1 for count in mails.values()),
        unfinished=one(house.ground.engine, LATE, now=house.now),
        quarantined=one(house.ground.engine, "SELECT count(*) FROM cases WHERE quarantined_at IS NOT NULL"),
    )


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--minutes", default=3.0, show_default=True, help="How long faults happen.")
@click.option("--cases", default=300, show_default=True)
@click.option("--days", default=4.5, show_default=True, help="How many days of business time pass meanwhile.")
@click.option("--after", default=70.0, show_default=True, help="How many days follow without faults.")
@click.option("--pause", default=1.0, show_default=True, help="Seconds between two faults, on average.")
def main(**given: Any) -> None:
    """Run random faults from one seed; exit with 1 if a promise broke, and keep the logs then."""
    folder = Path(tempfile.mkdtemp(prefix="dunning-soak-"))
    folder.chmod(0o755)
    plan = Plan(**given)
    click.echo(f"{plan}; logs in {folder}")
    verdict = play(plan, folder)
    click.echo(json.dumps(asdict(verdict) | {"broken": verdict.broken}))
    if verdict.broken:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
