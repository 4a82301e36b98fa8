"""How does a month go? A driver that steps business time from due instant to due instant, and the diary it writes.

Everything is real but Celery: PostgreSQL, the practice bank over HTTP, signed webhooks into the web application. Hints
of the sweep are collected and carried out here, in order. The diary holds every effect that anybody outside could
see, by the day after the first failure in the customer's own calendar, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import requests
from sqlalchemy import Engine, func, select

from schedules import Policy
from tests.gateway.wire import Record, served
from tests.stories.scripted import NEW_YORK
from worker import charging, notices, sweep
from worker.desk import Desk
from worker.mail import Mailbox
from worker.models import cases, events, outbox
from worker.practice.bank import make_app
from worker.practice.protocol import World
from worker.settings import Settings
from worker.stripe_gateway import StripeGateway
from worker.web.webhooks import make_web

JSON = dict[str, Any]
SECRET = "whsec_story"
MOST_ROUNDS = 2000


@dataclass
class Month:
    """One installation, its bank and its clock; ``play`` fills the diary."""

    engine: Engine
    bank: str
    gateway: StripeGateway
    record: Record
    mailbox: Mailbox
    policy: Policy
    live: bool
    clock: list[datetime]
    http: requests.Session = field(default_factory=requests.Session)
    seen: list[tuple[datetime, str, str]] = field(default_factory=list)
    mailed: list[datetime] = field(default_factory=list)
    _states: dict[str, str] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _zones: dict[str, str] = field(default_factory=dict)

    def play(self, days: float = 35) -> None:
        """Step from due instant to due instant until nothing is due any more, or ``days`` have passed."""
        now = self._bank_next()
        assert now is not None, "nothing fails in this story"
        begun, rounds = now, 0
        while now is not None and now <= begun + timedelta(days=days):
            self.clock[0] = max(self.clock[0], now)
            self._settle(self.clock[0])
            now = min((at for at in (self._bank_next(), self._our_next()) if at is not None), default=None)
            rounds += 1
            assert rounds < MOST_ROUNDS, f"no end: {self.seen[-5:]}"

    def messages(self, zone: str = NEW_YORK) -> list[str]:
        """Return every message: the day and hour on the customer's wall clock, which notice, and of which payments."""
        found: dict[str, list[str]] = {}
        for at, payment_id, effect in self.seen:
            if effect.startswith("notice "):
                when = f"{at.astimezone(ZoneInfo(zone)):%a %d %b %H}h {effect.removeprefix('notice ')}"
                found.setdefault(when, []).append(payment_id)
        return [f"{when}: {', '.join(sorted(told))}" for when, told in found.items()]

    def _settle(self, now: datetime) -> None:
        """Do everything that is due at ``now``, on both sides, until nothing is left."""
        for _ in range(MOST_ROUNDS):
            self._control("advance", {})
            self._until_delivered()
            found = self._tick(self.desk(now))
            self._until_delivered()
            self._look(now)
            settled = found == sweep.Swept(0, 0, 0) or not self._due(now)
            if settled and not self._carry_mail(now) and not self._events_waiting():
                return
        msg = f"never settled at {now.isoformat()}"
        raise AssertionError(msg)

    def _tick(self, desk: Desk) -> sweep.Swept:
        """Sweep once and carry out every hint."""
        hints: list[tuple[str, int, str]] = []
        found = sweep.tick(desk, lambda task, row_id, token: hints.append((task, row_id, token)))
        for hint in hints:
            self._carry_out(desk, *hint)
        return found

    def desk(self, now: datetime) -> Desk:
        """Return what a worker would work with at ``now``."""
        return Desk(self.engine, self.gateway, self.policy, self.live, 60, now)

    def _carry_out(self, desk: Desk, task: str, row_id: int, token: str) -> None:
        if task == "dunning.work":
            charging.work(desk, row_id, UUID(token))
        else:
            notices.deliver(desk, self.mailbox, row_id, UUID(token))

    def _until_delivered(self) -> None:
        deadline = time.monotonic() + 20
        while (told := self._control("pending"))["pending"]:
            assert time.monotonic() < deadline, "webhooks are not taken"
            time.sleep(0.002)
        assert not told["given_up"], "a webhook was given up"

    def _carry_mail(self, now: datetime) -> bool:
        """Carry new notices to their customers."""
        new = [path for path in sorted(self.mailbox.folder.glob("*.eml")) if path.name not in self._told]
        for path in new:
            mail = message_from_bytes(path.read_bytes())
            self.mailed.append(now)
            for payment_id in mail.get_all("X-Dunning-Payment", ()):
                self.seen.append((now, payment_id, f"notice {mail['X-Dunning-Notice']}"))
                self._control("notice", {"invoice": payment_id, "notice": mail["X-Dunning-Notice"]})
            self._told.add(path.name)
        return bool(new)

    def _look(self, now: datetime) -> None:
        """Write down which cases changed their state."""
        with self.engine.connect() as db:
            for row in db.execute(select(cases).order_by(cases.c.id)):
                state = row.state if row.recovered_by is None else f"{row.state} by {row.recovered_by}"
                if self._states.get(row.payment_id) != state:
                    self._states[row.payment_id] = state
                    self.seen.append((now, row.payment_id, state))

    def _events_waiting(self) -> bool:
        with self.engine.connect() as db:
            failed = db.execute(select(events.c.error).where(events.c.error.is_not(None))).scalars().all()
            assert not failed, f"events could not be handled: {failed}"
            unhandled = select(func.count()).select_from(events).where(events.c.handled_at.is_(None))
            return bool(db.execute(unhandled).scalar_one())

    def _due(self, now: datetime) -> bool:
        """Whether another sweep can find anything: a cheap question before a dear one."""
        due = self._our_next()
        return self._events_waiting() or (due is not None and due <= now)

    def _our_next(self) -> datetime | None:
        with self.engine.connect() as db:
            found = [db.execute(select(func.min(table.c.due_at))).scalar() for table in (cases, outbox)]
        return min((at for at in found if at is not None), default=None)

    def _bank_next(self) -> datetime | None:
        found = self._control("next")["next"]
        return datetime.fromisoformat(found) if found else None

    def _control(self, name: str, body: JSON | None = None) -> JSON:
        url = f"{self.bank}/_practice/{name}"
        answer = self.http.get(url, timeout=20) if body is None else self.http.post(url, json=body, timeout=20)
        answer.raise_for_status()
        found: JSON = answer.json()
        return found

    # What the tests read

    @property
    def ledger(self) -> JSON:
        """Return the bank's own account of every charge."""
        return self._control("ledger")

    @property
    def charges(self) -> list[JSON]:
        """Return every charge that the bank saw after the renewals, in order."""
        found: list[JSON] = self.ledger["attempts"]
        return found

    def charged_at(self, payment_id: str = "in_1") -> list[datetime]:
        """Return the local instants of the merchant's charges of one invoice."""
        mine = (each for each in self.charges if each["by"] == "merchant" and each["invoice"] == payment_id)
        return [datetime.fromisoformat(each["local"]) for each in mine]

    def diary(self, zone: str = NEW_YORK, names: tuple[str, ...] = ("in_1",)) -> dict[int, list[str]]:
        """Return the effects of each day that has any; the invoice's id stands before them when there are several."""
        lines = [*self.seen, *self._paid_lines(), *self._other_writes()]
        first = min(at for at, _, _ in lines).astimezone(ZoneInfo(zone)).date()
        days: dict[int, list[str]] = {}
        for at, payment_id, effect in sorted(lines, key=lambda line: line[0]):
            day = (at.astimezone(ZoneInfo(zone)).date() - first).days
            days.setdefault(day, []).append(effect if len(names) == 1 else f"{payment_id}: {effect}")
        return {day: sorted(effects, key=_order) for day, effects in days.items()}

    def _paid_lines(self) -> Iterator[tuple[datetime, str, str]]:
        for each in self.charges:
            who = "charge" if each["by"] == "merchant" else f"{each['by']} pays"
            effect = f"{who}: {'approved' if each['approved'] else each['code']}"
            yield datetime.fromisoformat(each["at"]), each["invoice"], effect

    def _other_writes(self) -> Iterator[tuple[datetime, str, str]]:
        pays = self.record.pays()
        for each in self.record.writes():
            if each not in pays:
                yield datetime.fromisoformat(each.headers["at"]), each.path, f"{each.method} {each.path} {each.status}"


def _order(effect: str) -> int:
    """Within a day: what the bank saw, then what was written, then what became of the case."""
    return 0 if "charge:" in effect or "pays:" in effect else 2 if "notice" not in effect else 1


@contextmanager
def a_month(  # noqa: PLR0913 - one argument per choice of a story
    engine: Engine,
    folder: Path,
    world: World,
    *,
    policy: Policy | None = None,
    live: bool = True,
    told: frozenset[str] | None = None,
    on_request: Callable[[Any, list[datetime]], None] | None = None,
    kind: type[Month] = Month,
) -> Iterator[Month]:
    """Serve a bank over ``world`` and the web application; ``told`` are the only events that arrive, else all."""
    clock = [min(each.failed_at for each in world.failures()) - timedelta(hours=1)]
    record = Record()

    def before(exchange: Any) -> None:
        exchange.headers["at"] = clock[0].isoformat()
        if on_request is not None:
            on_request(exchange, clock)

    record.before = before
    settings = Settings.model_validate({"stripe_webhook_secret": SECRET})
    with served(make_web(settings, engine)) as web:
        app = make_app(world, lambda: clock[0], (f"{web}/webhooks/stripe", SECRET), told)
        with served(app, record) as bank:
            gateway = StripeGateway("sk_test_story", bank, 2, 20)
            mailbox = Mailbox("billing@shop.example", folder / "notices")
            month = kind(engine, bank, gateway, record, mailbox, policy or Policy.default(), live, clock)
            with month.http:
                yield month
