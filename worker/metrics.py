"""How is it going, in figures that Prometheus can read? All of them are read from the database at each scrape.

So they are right however many processes there are, and however often one is restarted. A counter counts rows that
neither go away nor change any more; whatever a person can put right is a gauge. No label names a customer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, case, extract, func, select
from sqlalchemy.exc import SQLAlchemyError

from worker import inbox, jobs, stops, watch
from worker.limits import circuit
from worker.models import (
    ATTEMPT_STATES,
    MACHINE_NOW,
    MESSAGES,
    OPEN_STATES,
    OUTCOMES,
    UNCERTAIN,
    UNRESOLVED,
    attempts,
    cases,
    events,
    failures,
    heartbeats,
    outbox,
)
from worker.notices import MEANT
from worker.report.figures import MEANS

Part = Callable[[Connection, datetime], Iterator[Metric]]
Labels = tuple[str, ...]
WHY = case((outbox.c.error == UNCERTAIN, "uncertain"), else_="given_up")
UNDELIVERED = (
    select(WHY, func.count())
    .where(outbox.c.due_at.is_(None), outbox.c.delivered_at.is_(None), outbox.c.merged_into.is_(None))
    .where(*(outbox.c.error.not_like(f"{each}%") for each in MEANT))
    .group_by(WHY)
)


def exposition(engine: Engine, now: datetime) -> bytes:
    """Return all figures at a business instant, in the text form of Prometheus."""
    return generate_latest(Figures(engine, now))


@dataclass(frozen=True)
class Figures(Collector):
    """Reads each part by itself: one that cannot be read is named, and the others are told all the same."""

    engine: Engine
    now: datetime

    def collect(self) -> Iterator[Metric]:
        """Yield every figure that can be read."""
        found: dict[Part, list[Metric]] = {}
        with suppress(SQLAlchemyError), self.engine.connect() as db:
            for part in PARTS:
                with suppress(SQLAlchemyError), db.begin():
                    found[part] = list(part(db, self.now))
        for metrics in found.values():
            yield from metrics
        missing = (((part.__name__.strip("_"),), part not in found) for part in PARTS)
        text = "1 when these figures could not be read at this scrape"
        yield _by(GaugeMetricFamily("dunning_unread", text, labels=["figures"]), missing)


def _by(
    family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[Labels, float]], known: Iterable[str] = ()
) -> Metric:
    """Fill a family with the sums of the values under each label; the ``known`` labels are there even when zero."""
    sums: dict[Labels, float] = {(label,): 0 for label in known}
    for labels, value in values:
        sums[labels] = sums.get(labels, 0) + value
    for labels, value in sums.items():
        family.add_metric(labels, value)
    return family


def _money(db: Connection, _now: datetime) -> Iterator[Metric]:
    """Tell of cases and their amounts by where they stand: one pass over the table."""
    key = cases.c.state, cases.c.currency, cases.c.recovered_by
    sums = func.count().label("number"), func.sum(cases.c.amount_minor).label("minor")
    rows = db.execute(select(*key, *sums).group_by(*key)).all()
    ended = [row for row in rows if row.state in OUTCOMES]
    back = [row for row in rows if row.recovered_by is not None]
    gauge = GaugeMetricFamily("dunning_cases", "Cases by state", labels=["state"])
    yield _by(gauge, (((row.state,), row.number) for row in rows), (*OPEN_STATES, *OUTCOMES))
    yield CounterMetricFamily("dunning_cases_opened", "Cases that were ever opened", sum(row.number for row in rows))
    counter = CounterMetricFamily("dunning_cases_ended", "Cases that have ended", labels=["outcome"])
    yield _by(counter, (((row.state,), row.number) for row in ended), OUTCOMES)
    gauge = GaugeMetricFamily("dunning_at_risk_minor", "Amounts of open cases, in minor units", labels=["currency"])
    yield _by(gauge, (((row.currency,), row.minor * (row.state in OPEN_STATES)) for row in rows))
    counter = CounterMetricFamily("dunning_recovered", "Cases whose money came back", labels=["by"])
    yield _by(counter, (((row.recovered_by,), row.number) for row in back), MEANS)
    text = "Money that came back, in minor units"
    counter = CounterMetricFamily("dunning_recovered_minor", text, labels=["by", "currency"])
    yield _by(counter, (((row.recovered_by, row.currency), row.minor) for row in back))


def _charges(db: Connection, _now: datetime) -> Iterator[Metric]:
    """Tell of attempts by what became of them, and for how long the provider was asked for the settled ones."""
    took = extract("epoch", func.sum(attempts.c.settled_at - attempts.c.sent_at)).label("seconds")
    found = select(attempts.c.state, func.count().label("number"), took).group_by(attempts.c.state)
    rows = {row.state: row for row in db.execute(found)}
    text = "Attempts to charge that are settled; foreign: made by others, observed: only planned"
    counter = CounterMetricFamily("dunning_attempts", text, labels=["outcome"])
    settled = [state for state in ATTEMPT_STATES if state not in UNRESOLVED]
    yield _by(counter, (((state,), row.number) for state, row in rows.items() if state in settled), settled)
    gauge = GaugeMetricFamily(
        "dunning_attempts_unresolved", "Attempts whose outcome is not known yet", labels=["state"]
    )
    yield _by(gauge, (((state,), row.number) for state, row in rows.items() if state in UNRESOLVED), UNRESOLVED)
    answered = [rows[state] for state in ("succeeded", "declined") if state in rows]
    number, seconds = sum(row.number for row in answered), float(sum(row.seconds for row in answered))
    text = "From the request to charge until its outcome was known"
    yield SummaryMetricFamily("dunning_charge_seconds", text, count_value=number, sum_value=seconds)


def _messages(db: Connection, now: datetime) -> Iterator[Metric]:
    """Tell of messages that left, that are due, and that did not arrive."""
    name = case((outbox.c.case_id.is_(None), func.split_part(outbox.c.name, "-", 1)), else_=outbox.c.name).label("name")
    left = select(name, outbox.c.channel, func.count()).group_by(name, outbox.c.channel)
    left = left.where(outbox.c.kind == "notice", outbox.c.delivered_at.is_not(None))
    text = "Notices that left, counted for each invoice that they name"
    counter = CounterMetricFamily("dunning_notices", text, labels=["notice", "channel"])
    yield _by(counter, (((notice, channel), number) for notice, channel, number in db.execute(left)))
    due = select(outbox.c.kind, func.count().label("number"), func.min(outbox.c.due_at).label("oldest"))
    rows = db.execute(due.where(outbox.c.due_at <= now).group_by(outbox.c.kind)).all()
    gauge = GaugeMetricFamily("dunning_messages_due", "Messages that are due", labels=["kind"])
    yield _by(gauge, (((row.kind,), row.number) for row in rows), MESSAGES)
    oldest = max(((now - row.oldest).total_seconds() for row in rows), default=0)
    yield GaugeMetricFamily("dunning_oldest_message_due_seconds", "How long the oldest of them has been due", oldest)
    text = "Messages that perhaps arrived, and that were given up"
    gauge = GaugeMetricFamily("dunning_messages_undelivered", text, labels=["why"])
    yield _by(gauge, (((why,), number) for why, number in db.execute(UNDELIVERED)), ("uncertain", "given_up"))


def _queue(db: Connection, now: datetime) -> Iterator[Metric]:
    """Tell what waits to be done, and what waits for a person."""
    number, seconds = watch.due(db, now)
    yield GaugeMetricFamily("dunning_cases_due", "Cases whose next step is due", number)
    yield GaugeMetricFamily("dunning_oldest_due_seconds", "How long the oldest of them has been due", seconds)
    text = "Open cases that ended their worker again and again and wait for a person"
    yield GaugeMetricFamily("dunning_cases_quarantined", text, watch.quarantined(db))
    age = extract("epoch", MACHINE_NOW - func.min(events.c.received_at))
    unhandled = select(func.count(), func.coalesce(age, 0)).where(events.c.handled_at.is_(None))
    number, seconds = db.execute(unhandled.where(events.c.tries < inbox.MOST_TRIES)).one()
    yield GaugeMetricFamily("dunning_events_waiting", "Events kept and not handled yet", number)
    yield GaugeMetricFamily("dunning_oldest_event_seconds", "How long the oldest of them has waited", float(seconds))
    number, _ = db.execute(unhandled.where(events.c.tries >= inbox.MOST_TRIES)).one()
    yield GaugeMetricFamily("dunning_events_failed", "Events that nobody could handle", number)
    number = db.execute(select(func.count()).select_from(failures)).scalar_one()
    yield GaugeMetricFamily("dunning_failed_jobs", "Jobs that ended in an error nobody expected", number)


def _work(db: Connection, _now: datetime) -> Iterator[Metric]:
    """Tell who is at work, what stops everybody, and what the last audit said."""
    tick = watch.age(db, "worker", watch.TICK)
    text = "Since the last tick was done; +Inf: there was none"
    yield GaugeMetricFamily("dunning_tick_age_seconds", text, math.inf if tick is None else tick)
    since = extract("epoch", MACHINE_NOW - func.max(heartbeats.c.at))
    ages = db.execute(select(heartbeats.c.role, since).group_by(heartbeats.c.role))
    gauge = GaugeMetricFamily("dunning_heartbeat_age_seconds", "Since a role has last done work", labels=["role"])
    yield _by(gauge, (((role,), float(seconds)) for role, seconds in ages))
    text = "How many reasons there are for charging nothing"
    yield GaugeMetricFamily("dunning_charging_stopped", text, len(stops.in_force(db)))
    text = "1 while the provider is asked nothing, or once a minute, because it did not answer"
    yield GaugeMetricFamily("dunning_provider_circuit_open", text, circuit(db)["state"] != "closed")
    audit = jobs.last(db, "audit")
    text = "Statements that the last audit found broken"
    yield GaugeMetricFamily("dunning_audit_broken", text, len(audit.result["broken"]) if audit else 0)


PARTS: tuple[Part, ...] = (_money, _charges, _messages, _queue, _work)
