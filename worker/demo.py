"""What would it do for me? Practice on a month of failing subscriptions, with every part real but the money.

A Celery worker, beat, web, PostgreSQL, Valkey and the practice bank run as processes. The driver below plays the
calendar: it moves the business clock to the next instant at which anything is due, and only when everything before
it is settled. So nothing runs late by accident. The verdict is counted in the bank's ledger, not in our tables.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import Engine, Row, select, text

from schedules import Decline, Policy
from schedules.declines import RETRY_CLASSES, DeclineClass, classify
from worker import app, database
from worker.celery_app import celery_app
from worker.clock import set_clock
from worker.demo_view import view
from worker.embedded import servers
from worker.embedded_site import EmbeddedError
from worker.models import cases
from worker.report import Report, make_report
from worker.roles import Roles
from worker.settings import load_settings

STEP_SECONDS = 120
WAKE_SECONDS = 0.15
LOOK_SECONDS = 0.006
NEVER = datetime.max.replace(tzinfo=UTC)
WAITING = text("""
    SELECT (SELECT count(*) FROM events WHERE handled_at IS NULL AND tries < 5) AS events,
           (SELECT count(*) FROM cases
             WHERE due_at <= :now AND (lease_token IS NULL OR lease_until < clock_timestamp())) AS due,
           (SELECT count(*) FROM outbox
             WHERE due_at <= :now AND (lease_token IS NULL OR lease_until < clock_timestamp())) AS messages,
           (SELECT count(*) FROM cases WHERE lease_token IS NOT NULL) +
           (SELECT count(*) FROM outbox WHERE lease_token IS NOT NULL) AS held,
           least((SELECT min(due_at) FROM cases), (SELECT min(due_at) FROM outbox)) AS next
""")


class Stuck(RuntimeError):
    """Something due was not settled in time; the logs of the roles say why."""


@dataclass(frozen=True, slots=True)
class Practice:
    """What to play: the seed of the world, how many renewals fail, over how many days, and in which mode."""

    seed: int
    payments: int
    days: int
    mode: str = "live"


@dataclass(frozen=True, slots=True)
class Result:
    """What came back, and what the bank saw."""

    practice: Practice
    report: Report
    bank: dict[str, Any]
    disturbed: int
    restarts: int
    seconds: float

    @property
    def broken(self) -> dict[str, int]:
        """The promises that the bank's ledger shows broken, with how often."""
        checks = {name: self.bank[name] for name in ("double_charges", "off_hours")}
        checks["disturbed"] = self.disturbed
        checks["unfinished"] = self.report.total.unfinished
        checks["writes"] = self.bank["writes"] if self.practice.mode == "observe" else 0
        return {name: count for name, count in checks.items() if count}

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {**asdict(self.practice), **self.report.total.as_json(), "bank": self.bank, "broken": self.broken} | {
            "disturbed": self.disturbed,
            "restarts": self.restarts,
            "seconds": round(self.seconds, 1),
        }


@dataclass(slots=True)
class Driver:
    """Plays the calendar for the bank and the roles."""

    engine: Engine
    bank: str
    clock: Path
    notices: Path
    roles: Roles
    http: requests.Session = field(default_factory=requests.Session)
    told: set[str] = field(default_factory=set)
    told_at: dict[str, datetime] = field(default_factory=dict)
    woken: float = 0.0
    asked: tuple[int, ...] = (0, 0, 0)

    def play(self, days: int, look: Callable[[datetime], None]) -> None:
        """Step from instant to instant until nothing is due within ``days`` of the first failure."""
        now = self._bank_next()
        end = now + timedelta(days=days) if now else None
        while now is not None and end is not None and now <= end:
            set_clock(self.clock, now)
            self._let_it_happen()
            following = self._settle(now)
            look(now)
            coming = [at for at in (following, self._bank_next()) if at is not None]
            now = max(min(coming), now) if coming else None

    def _let_it_happen(self) -> None:
        while self._post("advance")["more"]:
            pass

    def _settle(self, now: datetime) -> datetime | None:
        """Wait until everything due at ``now`` is done and told; return the next instant anything of ours is due."""
        limit = time.monotonic() + STEP_SECONDS
        while time.monotonic() < limit:
            self.roles.revive()
            with self.engine.connect() as db:
                waiting = db.execute(WAITING, {"now": now}).one()
            unclaimed = waiting.events, waiting.due, waiting.messages
            if any(unclaimed):
                self._wake(unclaimed)
            elif not waiting.held and not self._get("pending")["pending"] and not self._carry_mail(now):
                self.asked = unclaimed
                following: datetime | None = waiting.next
                return following
            time.sleep(LOOK_SECONDS)
        msg = f"not settled after {STEP_SECONDS} s at {now.isoformat()}; the logs are in {self.roles.logs}"
        raise Stuck(msg)

    def _wake(self, unclaimed: tuple[int, ...]) -> None:
        """Wake the sweep as beat would: when something new waits, and again when the last tick seems lost."""
        grown = any(count > before for count, before in zip(unclaimed, self.asked, strict=True))
        if grown or time.monotonic() - self.woken > WAKE_SECONDS:
            celery_app.send_task("dunning.tick")
            self.woken = time.monotonic()
        self.asked = unclaimed

    def _carry_mail(self, now: datetime) -> int:
        """Carry new notices to their customers; return how many there were."""
        new = [path for path in self.notices.glob("*.eml") if path.name not in self.told]
        for path in new:
            mail = message_from_bytes(path.read_bytes())
            for payment_id in mail.get_all("X-Dunning-Payment", ()):
                self._post("notice", {"invoice": payment_id, "notice": mail["X-Dunning-Notice"]})
                self.told_at.setdefault(payment_id, now)
            self.told.add(path.name)
        return len(new)

    def _bank_next(self) -> datetime | None:
        found = self._get("next")["next"]
        return datetime.fromisoformat(found) if found else None

    def ledger(self) -> dict[str, Any]:
        """Return what the bank counted."""
        summary: dict[str, Any] = self._get("ledger")["summary"]
        return summary

    def disturbed(self, policy: Policy) -> int:
        """Count the payments that came back in silence, of which the customer was told while silence could help."""
        silently = select(cases).where(cases.c.recovered_by.in_(("silent_retry", "card_update")))
        with self.engine.connect() as db:
            rows = db.execute(silently).all()
        return sum(self.told_at.get(row.payment_id, NEVER) < _silent_until(row, policy) for row in rows)

    def _get(self, name: str) -> dict[str, Any]:
        return self._answer(self.http.get(f"{self.bank}/_practice/{name}", timeout=30))

    def _post(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._answer(self.http.post(f"{self.bank}/_practice/{name}", json=body, timeout=30))

    def point_webhooks_at(self, url: str, secret: str) -> None:
        """Tell the bank where its events go."""
        self._post("webhook", {"url": url, "secret": secret})

    def _answer(self, answer: requests.Response) -> dict[str, Any]:
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def run(practice: Practice, *, quiet: bool) -> Result:
    """Play one practice to its end; raises ``EmbeddedError`` or ``Stuck``. Nothing is left running."""
    began = time.monotonic()
    folder = load_settings().home.absolute() / "demo"
    with ExitStack() as stack:
        stack.enter_context(_alone(folder))
        driver = _set_up(stack, folder, practice)
        look = stack.enter_context(view(driver.engine, practice.payments, quiet=quiet))
        driver.play(practice.days, look)
        with driver.engine.connect() as db:
            report = make_report(db, app.now())
        disturbed = driver.disturbed(app.policy())
        return Result(practice, report, driver.ledger(), disturbed, driver.roles.restarts, time.monotonic() - began)


def _silent_until(row: Row[Any], policy: Policy) -> datetime:
    """Return how long silence could help, by the meaning of the first refusal."""
    meant = classify(Decline(**row.decline), row.failed_card.get("brand"), policy.overrides).decline_class
    held = timedelta(hours=max(policy.hold_hours, default=0)) if meant is DeclineClass.STALE_CREDENTIAL else timedelta()
    silent: datetime = row.failed_at + (timedelta(days=policy.silent_days) if meant in RETRY_CLASSES else held)
    return silent


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second practice out of the same folder, and begin without leftovers of the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another demo is running in {folder}"
            raise EmbeddedError(msg) from None
        for name in ("notices", "logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("bank.port", "web.port", "clock"):
            (folder / name).unlink(missing_ok=True)
        yield


def _set_up(stack: ExitStack, folder: Path, practice: Practice) -> Driver:
    """Start servers, bank and roles, and wait until each of them listens."""
    found = stack.enter_context(servers(folder))
    clock, notices = folder / "clock", folder / "notices"
    set_clock(clock, datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    secret = f"whsec_{os.urandom(16).hex()}"
    roles = stack.enter_context(Roles({}, folder / "logs"))
    _start_bank(roles, folder, practice, secret)
    bank = f"http://127.0.0.1:{_port(roles, folder / 'bank.port')}"
    environment = {
        "DUNNING_HOME": str(folder),
        "DUNNING_DATABASE_URL": found.database_url,
        "DUNNING_BROKER_URL": found.broker_url,
        "DUNNING_STRIPE_API_KEY": "sk_test_practice",
        "DUNNING_STRIPE_API_BASE": bank,
        "DUNNING_STRIPE_WEBHOOK_SECRET": secret,
        "DUNNING_CLOCK_FILE": str(clock),
        "DUNNING_MODE": practice.mode,
        "DUNNING_CONNECT_SECONDS": "2",
        "DUNNING_READ_SECONDS": "5",
        "DUNNING_REQUESTS_PER_SECOND": "100",
        "DUNNING_LEASE_SECONDS": "60",
    }
    os.environ.update(environment)
    load_settings.cache_clear()
    engine = app.engine()
    stack.callback(engine.dispose)
    database.start_afresh(engine)
    roles.start("web", ["worker.cli", "web", "--port=0", f"--port-file={folder / 'web.port'}"])
    roles.start("worker", ["worker.cli", "worker", "--concurrency=4"])
    roles.start("beat", ["worker.cli", "beat"])
    driver = Driver(engine, bank, clock, notices, roles)
    driver.point_webhooks_at(f"http://127.0.0.1:{_port(roles, folder / 'web.port')}/webhooks/stripe", secret)
    return driver


def _start_bank(roles: Roles, folder: Path, practice: Practice, secret: str) -> None:
    options = {
        "port-file": folder / "bank.port",
        "seed": practice.seed,
        "payments": practice.payments,
        "days": practice.days,
        "clock-file": folder / "clock",
        "webhook-secret": secret,
    }
    roles.start("bank", ["worker.practice.bank", *(f"--{name}={value}" for name, value in options.items())])


def _port(roles: Roles, file: Path) -> int:
    """Wait until a role has written down the port it took."""
    limit = time.monotonic() + STEP_SECONDS
    while time.monotonic() < limit:
        if file.exists():
            return int(file.read_text(encoding="ascii"))
        if any(process.poll() is not None for process in roles.running.values()):
            break
        time.sleep(LOOK_SECONDS)
    msg = f"{file.stem} did not start; the logs are in {roles.logs}"
    raise Stuck(msg)
