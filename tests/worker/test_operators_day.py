"""One day of an operator, by command, beside a practice bank: what was done is there for all to see in the console."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from subprocess import CompletedProcess
from typing import Any

import pytest

from schedules import Decline, FailedPayment
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import CARD, START, one, payment, sql, the_case
from tests.worker.visitor import Open
from worker import inbox

Operate = Callable[..., CompletedProcess[str]]
MANY = 200
GIVEN_UP = "UPDATE events SET handled_at = NULL, tries = 5, error = 'KeyError: gone' WHERE id = :id"


def customer(number: int, **changes: Any) -> FailedPayment:
    """The failed renewal of a customer with a card of their own."""
    return payment(number, card=replace(CARD, fingerprint=f"fp_{number}"), **changes)


@pytest.fixture
def street(serve: Serve) -> Bench:
    """Give two hundred customers without money and four others; the worker has read all their cards once."""
    without_money = [customer(number) for number in range(1, MANY + 1)]
    others = [customer(number, decline=Decline("expired_card")) for number in range(MANY + 1, MANY + 5)]
    opened = serve(Scripted([*without_money, *others]))
    opened.control("advance", {})
    told = [inbox.parse_event(event.body()) for event in opened.books.log.events]
    with opened.engine.begin() as db:
        inbox.keep(db, [event for event in told if event.ours])
    inbox.drain(opened.engine, opened.policy, START)
    while opened.work(START):
        pass
    return opened


def answered(done: CompletedProcess[str]) -> Any:
    """Return what a command told, which it did without an error."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_day_of_an_operator(operate: Operate, street: Bench, visit: Open) -> None:
    """Find the stuck case, read why, pause a customer, release a case, replay an event, retry two hundred."""
    stuck, calls, gone, lost = (f"in_{MANY + number}" for number in range(1, 5))
    set_aside = "UPDATE cases SET quarantined_at = clock_timestamp(), claims = 3 WHERE payment_id = :stuck"
    sql(street.engine, set_aside, stuck=stuck)
    console = visit()

    [found] = answered(operate("case", "list", "--stuck", "--json"))
    assert (found["payment_id"], found["quarantined"]) == (stuck, True)
    shown = answered(operate("case", "show", stuck, "--json"))
    assert any(why.startswith("hold: ") for why in shown["step"]["reasons"])
    assert answered(operate("case", "retry", stuck, "--json"))["done"] == 1
    assert answered(operate("case", "list", "--stuck", "--json")) == []
    assert "taken up" in console.reads(f"/cases/{shown['case_id']}")

    customer = f"cus_{MANY + 2}"
    paused = answered(operate("case", "pause", "--customer", customer, "--yes", "--reason", "they called", "--json"))
    assert [each["payment_id"] for each in paused["verdicts"]] == [calls]
    page = console.reads(f"/cases/{paused['verdicts'][0]['case_id']}")
    assert "paused" in page
    assert "they called" in page

    released = answered(operate("case", "release", gone, "--json"))["verdicts"][0]["case_id"]
    assert "released" in console.reads(f"/cases/{released}")

    event = one(street.engine, "SELECT id FROM events WHERE payload #>> '{data,object,id}' = :lost", lost=lost)
    case_id = one(street.engine, "SELECT id FROM cases WHERE payment_id = :lost", lost=lost)
    sql(street.engine, "DELETE FROM history WHERE case_id = :id", id=case_id)
    sql(street.engine, "DELETE FROM cases WHERE id = :id", id=case_id)
    sql(street.engine, GIVEN_UP, id=event)
    assert event in console.reads("/failed")
    assert answered(operate("replay", "--failed", "--dry-run", "--json"))["done"] == 1
    assert event in console.reads("/failed")
    answered(operate("replay", "--failed", "--yes", "--json"))
    inbox.drain(street.engine, street.policy, START)
    assert one(street.engine, "SELECT state FROM cases WHERE payment_id = :lost", lost=lost) == "silent"
    assert event not in console.reads("/failed")

    chosen = ("case", "retry", "--class", "retry_later", "--limit", str(MANY), "--json")
    dry = answered(operate(*chosen, "--dry-run"))
    assert the_case(street.engine).asked_at is None
    real = answered(operate(*chosen, "--yes", "--reason", "salaries were late"))
    assert (dry["done"], dry["verdicts"]) == (MANY, real["verdicts"])
    assert "salaries were late" in console.reads("/cases/1")

    last = one(street.engine, "SELECT max(due_at) FROM cases WHERE decline_class = 'retry_later'")
    while street.work(last):
        pass
    recovered = {row.payment_id for row in sql(street.engine, "SELECT payment_id FROM cases WHERE state = 'recovered'")}
    assert {f"in_{number}" for number in range(1, MANY + 1)} <= recovered
    assert {calls, gone} & recovered == set()
    assert f"recovered : {len(recovered)}" in console.reads("")
    street.agrees()
