"""Is somebody who chooses to leave left alone within one tick: no charge, no notice, no link that asks for anything?"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest

from tests.worker.bench import Bench, Scripted
from tests.worker.builders import DAY, FUNDS, HOUR, LOST, MINUTE, add_notice, payment, sql, the_case
from tests.worker.test_links import Open, Shop, shop
from worker import notices
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.practice.events import NO_REQUEST

__all__ = ["shop"]
WAITING = "SELECT kind, name FROM outbox WHERE due_at IS NOT NULL AND channel = 'mail'"
TOLD = "SELECT name FROM outbox WHERE kind = 'notice' ORDER BY id"


def midway(shop: Open) -> Shop:
    """Return an installation whose customer was charged in vain several times, and has been written to."""
    found = shop(Scripted([payment()], declines=[FUNDS] * 50))
    while the_case(found.bank.engine).state != "contacting":
        found.bank.go_on()
    assert found.bank.ledger
    return found


def leave(bank: Bench) -> datetime:
    """Have the customer end the subscription, whose open invoice stays open; return when."""
    bank.control("advance", {})
    at = bank.instant[0] + HOUR
    bank.books.cancel(bank.books.bill("in_1"), at, NO_REQUEST, {"feedback": "too_expensive"})
    return at


def deliver(bank: Bench, now: datetime, folder: Path) -> list[Path]:
    """Deliver what is due at an instant; return what has left."""
    desk = bank.desk(now)
    with bank.engine.begin() as db:
        due = claim_due(db, outbox, now, 10, 180)
    for number, token in due:
        notices.deliver(desk, Mailbox("billing@shop.example", folder), number, UUID(token))
    return sorted(folder.glob("*.eml"))


def test_who_leaves_midway_is_charged_and_written_to_no_more_within_one_tick(shop: Open, tmp_path: Path) -> None:
    """The event is heard and worked on once; for two months after, nothing is charged, planned, told or sent."""
    found = midway(shop)
    bank = found.bank
    deliver(bank, bank.instant[0] + 12 * HOUR, tmp_path / "before")
    bank.instant[0] += 12 * HOUR
    charges, told = bank.ledger, sql(bank.engine, TOLD)
    at = leave(bank)
    bank.hear(at + MINUTE)
    bank.work(at + MINUTE)
    row = the_case(bank.engine)
    assert (row.state, row.closed_at, row.due_at) == ("canceled", at + MINUTE, None)
    for days in range(1, 60):
        bank.work(at + days * DAY)
        assert deliver(bank, at + days * DAY, tmp_path / "after") == []
    assert (bank.ledger, sql(bank.engine, TOLD), sql(bank.engine, WAITING)) == (charges, told, [])


def test_a_notice_that_waits_does_not_reach_who_has_left(shop: Open, tmp_path: Path) -> None:
    """It was due before; the tick that hears of the end leaves it unsaid, and so does one that has not heard."""
    bank = midway(shop).bank
    add_notice(bank.engine, 1, name="reminder", at=bank.instant[0], due_at=bank.instant[0])
    at = leave(bank)
    assert deliver(bank, at + MINUTE, tmp_path / "letters") == []
    bank.hear(at + 2 * MINUTE)
    bank.work(at + 2 * MINUTE)
    assert deliver(bank, at + 10 * DAY, tmp_path / "letters") == []
    assert sql(bank.engine, WAITING) == []


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not heard of yet"])
def test_the_link_of_who_has_left_leads_nowhere(shop: Open, *, heard: bool) -> None:
    """Its button asks the bank, and says that nothing is due; once the end is heard of, there is no button."""
    found = midway(shop)
    at = leave(found.bank)
    if heard:
        found.bank.hear(at + MINUTE)
        found.bank.work(at + MINUTE)
    found.at(at + 2 * MINUTE)
    methods = ("GET", "POST") if heard else ("POST",)
    for method in methods:
        answer = found.ask(method)
        assert (answer.status_code, "Nothing is due here any more" in answer.text) == (200, True)
        assert "<button" not in answer.text


def test_who_leaves_on_the_first_day_never_hears_of_us(shop: Open, tmp_path: Path) -> None:
    """A card reported lost would have been told of at the next open hour."""
    bank = shop(Scripted([payment(decline=LOST)])).bank
    at = leave(bank)
    bank.hear(at + MINUTE)
    bank.work(at + MINUTE)
    assert the_case(bank.engine).state == "canceled"
    assert deliver(bank, at + 10 * DAY, tmp_path) == []
    assert (bank.ledger, sql(bank.engine, TOLD)) == ([], [])
