"""Is an event lost when it comes late, twice, in the wrong order, to nobody, or never? With real processes."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from http.client import HTTPConnection
from secrets import token_hex
from typing import Any

from tests.faults.conftest import Build
from tests.faults.harness import SECRET, House, town, until
from tests.worker.builders import START, at_once, one, sql
from worker.practice.events import signature

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def post(house: House, event: dict[str, Any]) -> int:
    """Deliver one event as the provider does; return the status."""
    body = json.dumps(event).encode()
    line = HTTPConnection("127.0.0.1", house.web_port(), timeout=30)
    line.request("POST", "/webhooks/stripe", body, {"Stripe-Signature": signature(SECRET, body, int(time.time()))})
    status = line.getresponse().status
    line.close()
    return status


def run(house: House, task: str) -> None:
    """Send a task that beat would send now and then, as if the last time were long ago; wait until it has ended."""
    sql(house.ground.engine, "UPDATE cursors SET begun_at = begun_at - interval '1 day'")
    name = f"run-{token_hex(4)}"
    house.celery.send_task(f"dunning.{task}", task_id=name)
    until(
        lambda: any(f"[{name}] succeeded" in str(line["event"]) for line in house.log("worker")), f"the end of {task}"
    )


def test_events_three_times_at_once_and_backwards_come_to_the_same_end(build: Build) -> None:
    """Fault 19: paid before failed, each three times; one row for each, and the invoice's own state decides."""
    world = town(2)
    world.acts["in_1"] = ("paid", START + HOUR)
    house = build(world)
    house.start("web")
    house.at(START + 2 * HOUR)
    house.bench.control("advance", {})
    told = [event.body() for event in house.books.log.events]
    for event in reversed(told):
        assert at_once([lambda event=event: post(house, event)] * 3) == [200] * 3  # type: ignore[misc]
    house.start("worker")
    house.start("beat")
    house.play(days=10)
    ids = {event["id"] for event in told if event["type"].startswith("invoice.pa") or event["type"] == "charge.failed"}
    assert one(house.ground.engine, "SELECT count(*) FROM events WHERE id = ANY(:ids)", ids=list(ids)) == len(ids)
    approvals = [(each["invoice"], each["by"]) for each in house.bench.ledger if each["approved"]]
    assert sorted(approvals) == [("in_1", "customer"), ("in_2", "merchant")]
    house.kept()


def test_a_receiver_that_was_away_for_two_days_catches_up(build: Build) -> None:
    """Fault 20: renewals fail while nobody listens; all of their events are read later, the oldest first, once."""
    house = build(town(12, every=4 * HOUR))
    house.start("web")
    house.hear_events()
    house.kill("web")
    house.start("worker")
    house.ready("worker")
    until(lambda: one(house.ground.engine, "SELECT count(*) FROM cursors WHERE name = 'events'"), "the first catch-up")
    run(house, "catch_up")
    house.at(START + 2 * DAY)
    house.bench.control("advance", {})
    run(house, "catch_up")
    order = (
        "SELECT payload #>> '{data,object,id}' FROM events WHERE type = 'invoice.payment_failed' ORDER BY received_at"
    )
    heard = [name for (name,) in sql(house.ground.engine, order)]
    assert heard == list(house.town.people)
    run(house, "catch_up")
    assert len(sql(house.ground.engine, order)) == 12
    house.start("beat")
    house.play(days=14)
    assert house.approved == 12
    house.kept()


def test_an_invoice_whose_payment_nobody_told_of_is_found(build: Build) -> None:
    """Fault 21: it was paid and no event was ever made; the daily comparison finds it, and it is not charged."""
    house = build(town(2))
    house.start("worker")
    house.open_all()
    house.read_all()
    house.books.bill("in_1").status = "paid"
    house.at(START + 2 * HOUR)
    run(house, "sweep_invoices")
    house.settle()
    assert one(house.ground.engine, "SELECT state FROM cases WHERE payment_id = 'in_1'") == "recovered"
    house.start("beat")
    house.play(days=10)
    assert [each["invoice"] for each in house.bench.ledger] == ["in_2"]
