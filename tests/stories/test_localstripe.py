"""Does a whole case go well against a Stripe that nobody here wrote? From the event file to the recovered money."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, select

from schedules import Policy
from tests.gateway.peer import FAILS_WHEN_CHARGED, GOOD, Peer, as_stripe_would, localstripe
from worker import charging, sweep
from worker.desk import Desk
from worker.eventfile import read_raw
from worker.ingest import Counts, ingest
from worker.models import attempts, cases
from worker.readings import instant

JSON = dict[str, Any]


@dataclass
class Installation:
    """An installation pointed at localstripe, whose steps are taken one due instant after the other."""

    engine: Engine
    peer: Peer
    now: datetime

    def hear(self, *events: JSON) -> None:
        """Take in an events file as a merchant would export it."""
        counts = Counts()
        file = io.BytesIO(json.dumps({"object": "list", "data": list(events)}).encode())
        for _ in ingest(self.engine, Policy.default(), self.now, read_raw(file), counts):
            pass
        assert not counts.rejected

    def step(self) -> None:
        """Do what is due now."""
        desk = Desk(self.engine, self.peer.gateway, Policy.default(), True, 60, self.now)  # noqa: FBT003
        hints: list[tuple[int, str]] = []
        sweep.tick(desk, lambda task, row_id, token: hints.append((row_id, token)) if task == "dunning.work" else None)
        for case_id, token in hints:
            charging.work(desk, case_id, UUID(token))

    def step_until(self, condition: Callable[[], bool]) -> None:
        """Go on from due instant to due instant."""
        for _ in range(20):
            self.step()
            if condition():
                return
            due: datetime = self.case.due_at
            self.now = max(self.now, due)
        msg = f"waited in vain; the case is {self.case}"
        raise AssertionError(msg)

    @property
    def case(self) -> Row[Any]:
        """Return the one case."""
        with self.engine.connect() as db:
            return db.execute(select(cases)).one()

    @property
    def attempts(self) -> list[tuple[int, str]]:
        """Return number and state of every attempt."""
        with self.engine.connect() as db:
            found = db.execute(select(attempts.c.number, attempts.c.state).order_by(attempts.c.id))
            return [(row.number, row.state) for row in found]


def failure(invoice: JSON) -> JSON:
    """Return the event that localstripe does not make of a first charge that fails."""
    told = {"object": as_stripe_would(invoice)}
    created = invoice["charge"]["created"]
    return {"id": "evt_failure", "object": "event", "type": "invoice.payment_failed", "created": created, "data": told}


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Run a localstripe of this test's own."""
    with localstripe() as found:
        yield found


def begin(engine: Engine, peer: Peer) -> tuple[Installation, str, str]:
    """Return an installation that has heard of one failed invoice, with its customer and the invoice's id."""
    customer = peer.customer(FAILS_WHEN_CHARGED)
    invoice = peer.subscribe(customer)
    ours = Installation(engine, peer, instant(invoice["charge"]["created"]) + timedelta(minutes=1))
    ours.hear(failure(invoice))
    ours.step()
    assert (ours.case.state, ours.case.step["step"], ours.attempts) == ("silent", "charge", [])
    assert ours.case.decline["code"] == "card_declined"
    return ours, customer, str(invoice["id"])


def test_a_customers_new_card_is_charged_at_once_and_the_case_is_recovered(engine: Engine, peer: Peer) -> None:
    """An event that localstripe made of the new default card leads to a reading, one charge, and the end."""
    ours, customer, invoice = begin(engine, peer)
    peer.store_card(customer, GOOD)
    ours.hear(*peer.ask("GET", "events?limit=100")["data"])
    ours.step()
    assert (ours.case.state, ours.case.recovered_by) == ("recovered", "customer")
    assert ours.attempts == [(1, "succeeded")]
    assert peer.charges(customer) == ["failed", "succeeded"]
    ours.hear(*peer.ask("GET", "events?limit=100")["data"])
    ours.step()
    assert (peer.charges(customer), peer.gateway.read(invoice).ended) == (["failed", "succeeded"], "paid")


def test_a_card_that_fails_again_is_a_declined_attempt_and_the_next_step_is_planned(engine: Engine, peer: Peer) -> None:
    """The answer leaves it open; the reading minutes later tells, and the next charge is days away."""
    ours, customer, _ = begin(engine, peer)
    ours.step_until(lambda: ours.attempts == [(1, "declined")])
    assert peer.charges(customer) == ["failed", "failed"]
    assert (ours.case.state, ours.case.step["step"], ours.case.step["attempt"]) == ("silent", "charge", 2)
    assert ours.case.due_at > ours.now + timedelta(hours=20)
