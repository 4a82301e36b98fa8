"""Is the right one of the customer's cards charged, and put where the provider looks?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from schedules import Card, Policy
from tests.worker.bench import Bench, Scripted
from tests.worker.builders import (
    CARD,
    DAY,
    ENTERED,
    FUNDS,
    HOUR,
    LOST,
    START,
    mail_in,
    one,
    opened,
    payment,
    sql,
    text_of,
    the_attempts,
    the_case,
    told,
)
from worker.cards import Stored, choose, expired, refreshed
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.notices import deliver
from worker.practice.records import Method

Serve = Callable[..., Bench]
NOW = datetime(2026, 2, 28, 23, tzinfo=UTC)
OLD, NEW, SPARE = (Stored(name, replace(CARD, fingerprint=name)) for name in ("pm_old", "pm_new", "pm_spare"))


@pytest.mark.parametrize(
    ("stored", "refused", "chosen"),
    [
        ([OLD], [], OLD),
        ([OLD], [OLD], OLD),
        ([OLD, NEW], [], OLD),
        ([OLD, NEW], [OLD], NEW),
        ([OLD, NEW, SPARE], [OLD, NEW], SPARE),
        ([OLD, NEW], [OLD, NEW], OLD),
        ([OLD, Stored("pm_late", replace(NEW.card, exp_month=1, exp_year=2026))], [OLD], OLD),
        ([OLD, Stored("pm_same", OLD.card)], [OLD], OLD),
    ],
)
def test_the_first_card_that_no_bank_has_refused_is_charged(
    stored: list[Stored], refused: list[Stored], chosen: Stored
) -> None:
    """In the order in which the provider looks; with none left, the one it would take itself."""
    assert choose(stored, [each.card for each in refused], NOW) == chosen


@pytest.mark.parametrize(
    ("month", "year", "over"),
    [(2, 2026, False), (1, 2026, True), (12, 2025, True), (1, 2027, False), (None, 2020, False)],
)
def test_a_card_lasts_to_the_end_of_its_month(month: int | None, year: int, over: bool) -> None:
    """What is not known has not expired."""
    assert expired(replace(CARD, exp_month=month, exp_year=year), NOW) is over


@pytest.mark.parametrize(
    ("after", "method_before", "method", "outcome"),
    [
        (CARD, None, "pm_1", "unchanged"),
        (CARD, "pm_1", "pm_1", "unchanged"),
        (replace(CARD, exp_year=2040), "pm_1", "pm_1", "updated"),
        (replace(CARD, last4="0000"), "pm_1", "pm_1", "updated"),
        (CARD, "pm_1", "pm_2", "updated"),
        (Card(), "pm_1", None, "closed"),
        (Card(), None, None, "none"),
    ],
)
def test_a_refresh_has_an_outcome(after: Card, method_before: str | None, method: str | None, outcome: str) -> None:
    """Updated, unchanged, closed, none."""
    assert refreshed(CARD, after, method_before, method) == outcome


def own_card(street: Bench) -> str:
    """Give the subscription a method of its own beside the customer's default: the card that failed."""
    bill = street.books.bills[0]
    bill.own_method = bill.charges[0].method_id
    return bill.own_method


def store(street: Bench, card: Card, *, default: bool) -> str:
    """Store one more card of the first customer, as a default of theirs or only on file."""
    customer = street.books.customers["cus_1"]
    method = Method(f"pm_more_{len(customer.methods)}", "cus_1", "in_1", card, START, entered=default)
    street.books.methods[method.id] = method
    customer.methods.append(method.id)
    customer.default = method.id if default else customer.default
    return method.id


def carry_out(street: Bench, now: datetime, folder: Path) -> None:
    """Deliver what is due of the outbox."""
    with street.engine.begin() as db:
        due = claim_due(db, outbox, now, 100, 180)
    for number, token in due:
        deliver(street.desk(now), Mailbox("billing@shop.example", folder), number, UUID(token))


def test_a_card_stored_on_the_other_level_is_charged_at_once_and_put_where_the_provider_looks(
    serve: Serve, tmp_path: Path
) -> None:
    """The subscription keeps its old card; the customer's new default is charged, and is the subscription's then."""
    street = serve(Scripted([payment(decline=LOST)]))
    opened(street.engine, payment(decline=LOST))
    street.hear(START)
    own_card(street)
    street.work(START)
    carry_out(street, START, tmp_path)
    new = store(street, ENTERED, default=True)
    sql(street.engine, "UPDATE cases SET news = news + 1, due_at = :at", at=START + HOUR)
    street.work(START + HOUR)
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.closed_at, row.recovered_by) == ("recovered", START + HOUR, "after_contact")
    assert (attempt.pay_with, attempt.by_updater, attempt.card["last4"]) == (new, False, ENTERED.last4)
    carry_out(street, START + HOUR, tmp_path)
    assert street.books.bills[0].own_method == new
    assert "refreshed" in told(street.engine)


def test_a_default_of_the_other_level_is_charged_in_silence_and_moved_nowhere(serve: Serve) -> None:
    """It was there before: nobody asked for the subscription to be charged on it for ever."""
    street = serve(Scripted([payment(decline=LOST)]))
    opened(street.engine, payment(decline=LOST))
    street.hear(START)
    old = own_card(street)
    other = store(street, ENTERED, default=True)
    street.run()
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.recovered_by, attempt.pay_with) == ("recovered", "silent_retry", other)
    assert (street.books.bills[0].own_method, one(street.engine, "SELECT count(*) FROM outbox")) == (old, 0)


@pytest.mark.parametrize("opted_in", [True, False])
def test_other_cards_on_file_are_charged_only_when_the_policy_says_so(serve: Serve, opted_in: bool) -> None:
    """A card that is nobody's default."""
    street = serve(Scripted([payment(decline=LOST)]), policy=Policy(other_cards=opted_in))
    opened(street.engine, payment(decline=LOST))
    street.hear(START)
    spare = store(street, ENTERED, default=False)
    street.run()
    assert [attempt.pay_with for attempt in the_attempts(street.engine)] == ([spare] if opted_in else [])
    assert the_case(street.engine).state == ("recovered" if opted_in else "lost")


def test_a_card_that_was_refused_elsewhere_is_no_better(serve: Serve) -> None:
    """Another subscription of the customer failed on it this week."""
    second = payment(2, customer_id="cus_1", card=ENTERED, decline=LOST)
    street = serve(Scripted([payment(decline=LOST), second]), policy=Policy(other_cards=True))
    opened(street.engine, payment(decline=LOST))
    opened(street.engine, second)
    street.run()
    assert (the_attempts(street.engine), the_case(street.engine).state) == ([], "lost")


def test_the_notice_says_that_another_card_was_tried(serve: Serve, tmp_path: Path) -> None:
    """Only then."""
    street = serve(Scripted([payment(decline=LOST)], declines=[LOST]), policy=Policy(other_cards=True))
    opened(street.engine, payment(decline=LOST))
    street.hear(START)
    store(street, ENTERED, default=False)
    while one(street.engine, "SELECT count(*) FROM outbox") == 0:
        street.go_on()
    carry_out(street, the_case(street.engine).due_at, tmp_path)
    [mail] = tmp_path.glob("*.eml")
    assert "another card" in text_of(mail_in(mail))


def test_an_unknown_outcome_is_asked_for_again_with_the_same_card(serve: Serve) -> None:
    """The key stands for one request: the method is part of it."""
    street = serve(Scripted([payment(decline=LOST)]), policy=Policy(other_cards=True), read_seconds=1)
    opened(street.engine, payment(decline=LOST))
    street.hear(START)
    spare = store(street, ENTERED, default=False)
    street.work(START)
    street.fault("error_before", times=3)
    street.run()
    assert {attempt.pay_with for attempt in the_attempts(street.engine)} == {spare}
    assert street.summary["double_charges"] == 0
    assert the_case(street.engine).state == "recovered"


def test_a_card_with_an_action_pending_is_not_waited_for_once_another_is_stored(serve: Serve) -> None:
    """The intent waits for the customer on the old card; the customer has stored a new one."""
    street = serve(Scripted([payment(decline=FUNDS)]))
    opened(street.engine)
    street.hear(START)
    street.work(START)
    store(street, ENTERED, default=True)
    street.shown["payment_intent"] = {"status": "requires_action"}
    sql(street.engine, "UPDATE cases SET news = news + 1, due_at = :at", at=START + DAY)
    street.work(START + DAY)
    assert the_case(street.engine).state == "recovered"
