"""A whole installation as processes, on real servers that can be stopped, killed and started again.

Workers, beats and web are processes of ``dunning`` itself; PostgreSQL and Valkey are the embedded ones, each behind a
proxy, as is the bank. The bank is the strict one, and its ledger and the messages that an SMTP server took are what a
test may believe. Our own tables are looked at only to see when everything is quiet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import redis
from celery import Celery
from sqlalchemy import Engine, make_url, text

from schedules import Card, Decline, FailedPayment, Policy
from tests.faults.proxy import Proxy
from tests.faults.strict_bank import Gate, Gated, without_fence
from tests.worker.bench import Bench, Street
from tests.worker.builders import FUNDS, LOST, START, one, payment, sql
from worker import database
from worker.app import make_engine
from worker.clock import set_clock
from worker.embedded import servers
from worker.planning import open_case
from worker.practice.books import Books
from worker.roles import Roles

LIMIT = 60.0
LOOK = 0.05
SOCKET_TIMEOUT = 10  # as celeryconfig.py has it
LEASE = 60  # seconds: five times the limits below and the longest wait for a turn
SECRET = "whsec_faults"
PROCESS = {"worker": ["worker", "--concurrency=4"], "beat": ["beat"], "web": ["web", "--port=0"]}
WAITING = text("""
    WITH free AS (SELECT due_at FROM cases WHERE (lease_token IS NULL OR lease_until < clock_timestamp())
                     AND quarantined_at IS NULL
                   UNION ALL
                  SELECT due_at FROM outbox WHERE lease_token IS NULL OR lease_until < clock_timestamp())
    SELECT (SELECT count(*) FROM events WHERE handled_at IS NULL AND tries < 5) AS events,
           (SELECT count(*) FROM free WHERE due_at <= :now) AS due,
           (SELECT count(*) FROM cases WHERE lease_until >= clock_timestamp()) +
           (SELECT count(*) FROM outbox WHERE lease_until >= clock_timestamp()) AS held,
           (SELECT min(due_at) FROM free) AS next
""")


class Ground:
    """The servers of one folder, each with a proxy before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        found = self._stack.enter_context(servers(folder))
        self.database_url = make_url(found.database_url)
        self.broker_path = found.broker_url.removeprefix("redis+socket://").partition("?")[0]
        self.database = Proxy(f"{self.database_url.query['host']}/.s.PGSQL.5432")
        self.broker = Proxy(self.broker_path)
        self.engine: Engine = make_engine(found.database_url)

    def pid(self, server: str) -> int:
        """Return the process of ``postgres`` or ``valkey``."""
        home = (self.folder / "servers").resolve()
        file = home / {"postgres": "postgres/postmaster.pid", "valkey": "valkey.pid"}[server]
        return int(file.read_text(encoding="ascii").split()[0])

    def end(self, server: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Signal a server, and wait until it is gone."""
        pid = self.pid(server)
        os.kill(pid, how)
        until(lambda: not _lives(pid), f"the end of {server}")

    def start(self) -> None:
        """Start again whichever server does not run."""
        self._stack.enter_context(servers(self.folder))

    def valkey(self) -> redis.Redis:
        """Return a line to Valkey, past the proxy."""
        return redis.Redis(unix_socket_path=self.broker_path)

    def renew(self) -> None:
        """Put everything back as it was on the first day."""
        for server in ("postgres", "valkey"):
            os.kill(self.pid(server), signal.SIGCONT)
        self.start()
        self.database.accept()
        self.broker.accept()
        with self.valkey() as line:
            line.config_set("maxmemory", 0)
            line.config_set("maxmemory-policy", "noeviction")
            line.flushall()
        database.start_afresh(self.engine)

    def close(self) -> None:
        """Stop the servers."""
        self.engine.dispose()
        self.database.close()
        self.broker.close()
        self._stack.close()


def _lives(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in {"", "Z"}


def until(condition: Callable[[], Any], what: str | Callable[[], str], limit: float = LIMIT) -> None:
    """Wait for a condition by asking again and again; fail when it does not come."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what if isinstance(what, str) else what()}"
        time.sleep(LOOK)


@dataclass
class Town:
    """A world of many renewals that fail at one instant; some are refused again, a few customers act by themselves."""

    people: dict[str, FailedPayment]
    refused: dict[str, int] = field(default_factory=dict)
    acts: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def failures(self) -> Iterator[FailedPayment]:
        """Yield the renewals."""
        return iter(self.people.values())

    def card(self, payment_id: str, at: datetime) -> Card:  # noqa: ARG002 - part of the protocol
        """Return the card, which nobody changes."""
        return self.people[payment_id].card

    def charge(self, payment_id: str, at: datetime) -> Decline | None:  # noqa: ARG002
        """Refuse as often as it is written, then approve."""
        left = self.refused.get(payment_id, 0)
        self.refused[payment_id] = left - 1
        return self.people[payment_id].decline if left > 0 else None

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Nobody reads it."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return what the customer does by itself, if it is still to come."""
        act = self.acts.get(payment_id)
        return act if act and act[1] > after else None

    def close(self) -> None:
        """Nothing to release."""


def town(number: int, *, lost: int = 0, refused: int = 0, every: timedelta = timedelta()) -> Town:
    """Return a town of so many renewals, which fail one after the other ``every`` so often.

    Every ``lost``-th card is lost, every ``refused``-th one is refused once more.
    """
    people = {}
    for n in range(1, number + 1):
        card = Card(f"CARD{n:012d}", "mastercard", "debit", "US", 4, 2031)
        decline = LOST if lost and n % lost == 0 else FUNDS
        people[f"in_{n}"] = payment(n, card=card, decline=decline, failed_at=START + (n - 1) * every)
    again = {name: 1 for n, name in enumerate(people, 1) if refused and n % refused == 0}
    return Town(people, again)


@dataclass
class House:
    """One installation on its ground."""

    ground: Ground
    folder: Path
    bench: Bench
    gate: Gate
    books: Books
    town: Town
    bank: Proxy
    roles: Roles
    stack: ExitStack
    celery: Celery
    others: dict[str, Roles] = field(default_factory=dict)  # who runs each role

    # Processes

    def start(self, name: str, **environment: str) -> None:
        """Start a role: ``worker``, ``beat`` or ``web``, or another one of its kind such as ``worker.2``."""
        command = ["worker.cli", *PROCESS[name.partition(".")[0]]]
        if name.startswith("web"):
            command.append(f"--port-file={self.folder / name}.port")
        roles = self.roles
        if environment:
            roles = self.stack.enter_context(Roles({**self.roles.environment, **environment}, self.roles.logs))
        self.others[name] = roles
        roles.start(name, command)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process of a role."""
        return self.others[name].running[name]

    def kill(self, name: str) -> None:
        """Kill a role; it can be started again under its name."""
        process = self.others.pop(name).running.pop(name)
        process.kill()
        process.wait(LIMIT)
        if process.stdin is not None:
            process.stdin.close()

    def kill_all(self) -> None:
        """End every role at once."""
        for name in [name for name, roles in self.others.items() if name in roles.running]:
            self.kill(name)

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return what a role has logged, line by line, as far as it is complete JSON."""
        written = (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in written.splitlines() if line.startswith("{") and line.endswith("}")]

    def ready(self, *names: str) -> None:
        """Wait until workers consume."""
        until(
            lambda: all(any("ready." in str(line.get("event")) for line in self.log(name)) for name in names), "ready"
        )

    def web_port(self, name: str = "web") -> int:
        """Wait until a web process listens; return its port."""
        file = self.folder / f"{name}.port"
        until(file.exists, "the web process")
        return int(file.read_text(encoding="ascii"))

    def health(self, what: str) -> tuple[int, dict[str, Any]]:
        """Return the status and body of ``healthz`` or ``readyz``."""
        line = HTTPConnection("127.0.0.1", self.web_port(), timeout=20)
        line.request("GET", f"/{what}")
        answer = line.getresponse()
        found = json.loads(answer.read())
        line.close()
        return answer.status, found

    def hear_events(self) -> None:
        """Have the bank send its events to the web process."""
        url = f"http://127.0.0.1:{self.web_port()}/webhooks/stripe"
        self.bench.control("webhook", {"url": url, "secret": SECRET})

    # Time

    def at(self, now: datetime) -> None:
        """Step the business clock of everybody."""
        self.bench.instant[0] = now
        set_clock(self.folder / "clock", now)

    @property
    def now(self) -> datetime:
        """The business instant."""
        return self.bench.instant[0]

    def expire(self) -> None:
        """Let every lease run out: machine time passes."""
        for table in ("cases", "outbox"):
            sql(
                self.ground.engine,
                f"UPDATE {table} SET lease_until = clock_timestamp() - interval '1 second'"  # noqa: S608
                " WHERE lease_token IS NOT NULL",
            )

    # Cases

    def open_all(self, most: int = 10**9) -> None:
        """Open a case for each renewal that failed, as their events would."""
        self.bench.control("advance", {})
        with self.ground.engine.begin() as db:
            for failed in list(self.town.failures())[:most]:
                open_case(db, failed, None, Policy.default(), START)

    def tick(self) -> None:
        """Send the task that beat sends."""
        self.celery.send_task("dunning.tick", expires=1)

    def waiting(self) -> Any:
        """Return how much is due, unhandled or held at this instant."""
        with self.ground.engine.connect() as db:
            return db.execute(WAITING, {"now": self.now}).one()

    def quiet(self) -> bool:
        """Say whether nothing is due, unhandled or held."""
        found = self.waiting()
        return not (found.events or found.due or found.held)

    def settle(self, limit: float = LIMIT) -> None:
        """Wait until everything that is due at this instant is done; wake the sweep where there is no beat."""

        def looked() -> bool:
            if not (quiet := self.quiet()) and not any(name.startswith("beat") for name in self.others):
                self.tick()
            return quiet

        until(looked, lambda: f"quiet at {self.now}: {self.waiting()}", limit)

    def play(self, days: int = 60) -> None:
        """Step from due instant to due instant until every case has ended, or so many days are over."""
        end = START + timedelta(days=days)
        self.settle()
        while (following := self.waiting().next) is not None and following <= end:
            self.at(max(following, self.now))
            self.settle()

    def read_all(self, limit: float = LIMIT) -> None:
        """Wait until every case has been read, and its charge planned."""
        self.settle(limit)
        assert one(self.ground.engine, "SELECT count(*) FROM cases WHERE refreshed_at IS NULL") == 0

    def let_charges_be_due(self, after: timedelta = timedelta(days=4)) -> None:
        """Step to an instant at which every first charge is overdue."""
        latest = one(self.ground.engine, "SELECT max(due_at) FROM cases")
        self.at(max(latest, START + after))

    # What a test may believe

    @property
    def approved(self) -> int:
        """How many invoices the bank was paid for by our charges."""
        found: int = self.bench.summary["approved_by_merchant"]
        return found

    def kept(self) -> None:
        """See that the bank charged nobody twice, and that no attempt was sent under two keys."""
        ledger = self.bench.control("ledger")
        assert ledger["summary"]["double_charges"] == 0, ledger["approvals"]
        instants = [(each["invoice"], each["at"]) for each in ledger["attempts"] if each["by"] == "merchant"]
        assert len(instants) == len(set(instants)), "two charges of one invoice at one instant"


@contextmanager
def a_house(ground: Ground, street: Street, folder: Path, world: Town, **environment: str) -> Iterator[House]:
    """Give an installation on renewed ground, with its bank; no role runs yet. At the end none does."""
    with ExitStack() as stack:
        ground.renew()
        stack.callback(ground.renew)
        gate = Gate()
        bench = street.open(ground.engine, cast("Any", world))
        app: Any = street.bank
        books: Books = app.state.books
        without_fence(books)
        app.add_middleware(Gated, gate=gate)
        bank = Proxy(bench.port)
        stack.callback(bank.close)
        broker = f"redis://127.0.0.1:{ground.broker.port}/0"
        roles = stack.enter_context(Roles(_environment(ground, bank, broker, folder) | environment, folder / "logs"))
        celery = Celery(broker=broker)
        celery.conf.task_publish_retry = False
        celery.conf.broker_transport_options = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": 5}
        stack.callback(celery.close)
        house = House(ground, folder, bench, gate, books, world, bank, roles, stack, celery)
        house.at(START)
        stack.callback(gate.open)
        stack.callback(house.kill_all)
        yield house


def _environment(ground: Ground, bank: Proxy, broker: str, folder: Path) -> dict[str, str]:
    return {
        "DUNNING_HOME": str(folder),
        "DUNNING_DATABASE_URL": f"postgresql+psycopg://dunning@127.0.0.1:{ground.database.port}/dunning",
        "DUNNING_BROKER_URL": broker,
        "DUNNING_STRIPE_API_KEY": "sk_test_1",
        "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{bank.port}",
        "DUNNING_STRIPE_WEBHOOK_SECRET": SECRET,
        "DUNNING_CLOCK_FILE": str(folder / "clock"),
        "DUNNING_MODE": "live",
        "DUNNING_TICK_SECONDS": "0.3",
        "DUNNING_CONNECT_SECONDS": "2",
        "DUNNING_READ_SECONDS": "5",
        "DUNNING_REQUESTS_PER_SECOND": "100",
        "DUNNING_LEASE_SECONDS": str(LEASE),
    }
