"""Is a one-off payment without an invoice recovered as a renewal is, and only when the merchant says so?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from schedules import Decline, FailedPayment, Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    ENTERED,
    FUNDS,
    HOUR,
    JSON,
    LOST,
    START,
    add_notice,
    event,
    everything,
    mail_in,
    one,
    opened,
    payment,
    sql,
    text_of,
    the_attempts,
    the_case,
)
from worker import catchup, inbox
from worker.ingest import Counts
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.notices import deliver
from worker.practice.records import Method
from worker.wording import Bill, Letterhead, compose

FAILED, PAID, CANCELED = (f"payment_intent.{what}" for what in ("payment_failed", "succeeded", "canceled"))


def a_one_off(**changes: Any) -> FailedPayment:
    """The one-off payment that failed."""
    return payment(payment_id="pi_1", subscription_id=None, **changes)


def intent(**changes: Any) -> JSON:
    """A payment intent without an invoice as an event carries it after its charge was refused."""
    shown = {name: getattr(CARD, name) for name in ("brand", "country", "exp_month", "exp_year", "fingerprint")}
    method = {"id": "pm_1", "customer": "cus_1", "type": "card", "card": {**shown, "funding": "debit", "last4": "4444"}}
    error = {"code": "card_declined", "decline_code": "insufficient_funds", "payment_method": method}
    marked = {"id": "pi_1", "object": "payment_intent", "metadata": {"dunning": "recover"}}
    return {
        **marked,
        "amount": 1999,
        "amount_received": 0,
        "client_secret": "pi_1_secret_canary",
        "currency": "usd",
        "customer": "cus_1",
        "last_payment_error": error,
        "latest_charge": "ch_1",
        "receipt_email": "canary@customer.example",
        "status": "requires_payment_method",
        **changes,
    }


def hear(engine: Engine, *values: JSON, now: Any = START) -> None:
    """Keep the events that are ours, and handle what waits."""
    with engine.begin() as db:
        inbox.keep(db, [told_of for told_of in map(inbox.parse_event, values) if told_of.ours])
    inbox.drain(engine, Policy.default(), now)


def ready(serve: Serve, *declines: Decline, **settings: Any) -> Bench:
    """Return a bank with a one-off payment that failed; its case has been opened by its event, and read."""
    street = serve(Scripted([a_one_off()], list(declines)), **settings)
    street.hear(START)
    street.work(START)
    return street


def store_default(street: Bench) -> None:
    """Store another card of the customer as their default."""
    method = Method("pm_new", "cus_1", "pi_1", ENTERED, START, entered=True)
    street.books.methods[method.id] = method
    customer = street.books.customers["cus_1"]
    customer.methods.append(method.id)
    customer.default = method.id


def carry_out(street: Bench, now: Any, folder: Path) -> list[str]:
    """Deliver what is due of the outbox; return the texts of what was sent."""
    with street.engine.begin() as db:
        due = claim_due(db, outbox, now, 100, 180)
    for number, token in due:
        deliver(street.desk(now), Mailbox("billing@shop.example", folder), number, UUID(token))
    mails = [mail_in(file) for file in sorted(folder.glob("*.eml"))]
    return [f"{mail['Subject']}\n{text_of(mail)}" for mail in mails]


# Events


def test_a_marked_intent_that_failed_opens_a_case_with_its_evidence(engine: Engine) -> None:
    """The event itself shows card and code; there is no subscription."""
    hear(engine, event(kind=FAILED, subject=intent()))
    row = the_case(engine)
    assert (row.payment_id, row.customer_id, row.subscription_id) == ("pi_1", "cus_1", None)
    assert (row.amount_minor, row.currency, row.failed_at) == (1999, "usd", START)
    assert (row.decline, row.failed_card) == (asdict(Decline("insufficient_funds")), asdict(CARD))


@pytest.mark.parametrize("kind", [FAILED, PAID, CANCELED])
@pytest.mark.parametrize("change", [{"metadata": {}}, {"metadata": None}, {"metadata": []}, {"invoice": "in_1"}])
def test_an_intent_that_is_not_marked_or_has_an_invoice_is_none_of_ours(
    engine: Engine, kind: str, change: JSON
) -> None:
    """A checkout that failed before the customer's eyes is never dunned, nor kept as work."""
    hear(engine, event(kind=kind, subject=intent(**change)))
    assert sql(engine, "SELECT id FROM events UNION ALL SELECT payment_id FROM cases") == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amount": "1999"}, "payment intent with a wrong 'amount'"),
        ({"amount": None}, "payment intent with a wrong 'amount'"),
        ({"currency": "xxq"}, "payment intent with an unknown 'currency'"),
        ({"customer": None}, "payment intent without a valid 'customer'"),
        ({"id": 5}, "payment intent without a valid 'id'"),
        ({"amount_received": "none"}, "a payment intent of an unknown shape"),
        ({"last_payment_error": {"payment_method": {"id": "pm_1", "card": 5}}}, "a payment intent of an unknown shape"),
    ],
)
def test_a_marked_intent_that_cannot_be_recovered_is_refused_with_its_reason(change: JSON, problem: str) -> None:
    """Without a customer nothing can be charged off-session."""
    with pytest.raises(inbox.BadEvent) as refused:
        inbox.parse_event(event(kind=FAILED, subject=intent(**change)))
    assert str(refused.value).startswith(problem)


def test_a_payment_ends_the_case_and_a_cancelation_has_it_read(engine: Engine) -> None:
    """As with an invoice that is paid, or voided."""
    hear(engine, event(kind=FAILED, subject=intent()))
    hear(engine, event("evt_2", CANCELED, intent()), now=START + HOUR)
    row = the_case(engine)
    assert (row.state, row.step["step"], row.due_at) == ("silent", "refresh", START)
    hear(engine, event("evt_3", PAID, intent()), now=START + 2 * HOUR)
    assert (the_case(engine).state, the_case(engine).closed_at) == ("recovered", START + 2 * HOUR)


def test_an_event_of_an_intent_is_kept_without_what_lets_one_pay(engine: Engine) -> None:
    """Its client secret confirms the payment; the address finds a person."""
    hear(engine, event(kind=FAILED, subject=intent()))
    assert "canary" not in everything(engine)


def test_a_missed_failure_is_found_by_catching_up(serve: Serve) -> None:
    """The provider lists it; what is not marked is passed over, and the sweep of invoices leaves the case alone."""
    street = serve(Scripted([a_one_off(), payment(2, payment_id="pi_2", subscription_id=None)]))
    street.books.advance(START)
    street.books.log.events[-1].data["object"]["metadata"] = {}
    counts = Counts()
    list(catchup.missed_events(street.desk(START + HOUR), counts, since=START))
    inbox.drain(street.engine, street.policy, START + HOUR)
    assert (counts.new, counts.ignored, counts.rejected) == (3, 1, [])
    assert sql(street.engine, "SELECT payment_id FROM cases") == [("pi_1",)]
    assert catchup.sweep_invoices(street.desk(START + HOUR)) == (0, 0)


# Charges


def test_a_one_off_payment_is_declined_once_and_then_paid(serve: Serve) -> None:
    """Two attempts, each on the method that failed, which is named: an intent keeps none."""
    street = ready(serve, FUNDS)
    street.run()
    row, attempts = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.recovered_by, row.intent_id) == ("recovered", "silent_retry", "pi_1")
    assert [(each.state, each.pay_with) for each in attempts] == [("declined", "pm_1_0"), ("succeeded", "pm_1_0")]
    assert attempts[0].decline == asdict(FUNDS)
    assert one(street.engine, "SELECT count(*) FROM outbox") == 0
    street.agrees()


def test_our_own_charge_is_no_news_and_its_payment_ends_nothing_twice(serve: Serve) -> None:
    """The bank tells of both charges; the case has ended by the answer to the second."""
    street = ready(serve, FUNDS)
    at = street.go_on()
    news = the_case(street.engine).news
    street.hear(at)
    assert the_case(street.engine).news == news
    street.run()
    before = the_case(street.engine)
    street.hear(before.closed_at)
    assert the_case(street.engine) == before


@pytest.mark.parametrize("fault", ["500_before", "500_after", "reset_before", "reset_after", "timeout_after", "429"])
@pytest.mark.parametrize("answers", [(), (FUNDS,)], ids=["approved", "declined"])
def test_a_fault_never_charges_a_one_off_payment_twice(serve: Serve, fault: str, answers: tuple[Decline, ...]) -> None:
    """Whatever goes wrong with the first request, every charge at the bank is one of our attempts."""
    street = ready(serve, *answers, read_seconds=0.4)
    street.fault(fault, seconds=2)
    street.run()
    assert the_case(street.engine).state == "recovered"
    assert len(street.ledger) == 1 + len(answers)
    street.agrees()


def test_an_unknown_outcome_is_asked_for_again_under_the_same_key_and_method(serve: Serve) -> None:
    """Even when the customer stored another card meanwhile: the key stands for one request."""
    street = ready(serve)
    street.fault("500_before")
    street.go_on()
    store_default(street)
    street.go_on()
    [attempt], [charge] = the_attempts(street.engine), street.ledger
    assert (attempt.state, attempt.pay_with, attempt.number) == ("succeeded", "pm_1_0", 1)
    assert (charge["idempotency_key"], charge["fingerprint"]) == (attempt.idempotency_key, CARD.fingerprint)


def test_a_card_that_the_customer_stores_is_charged_at_once(serve: Serve) -> None:
    """It is the customer's default, which comes first."""
    street = serve(
        Scripted([a_one_off(decline=LOST)], acts=[("card", START + HOUR)], updates=[(START + HOUR, ENTERED)])
    )
    street.hear(START)
    street.work(START)
    street.hear(START + HOUR)
    street.work(START + HOUR)
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.closed_at, attempt.card) == ("recovered", START + HOUR, asdict(ENTERED))
    assert attempt.pay_with == row.method_id


def test_a_mark_that_is_taken_away_hands_the_payment_back(serve: Serve) -> None:
    """The next reading sees it: nothing is charged, nobody is written to."""
    street = ready(serve)
    street.shown["payment_intent"] = {"metadata": {}}
    street.run()
    assert (the_case(street.engine).state, the_attempts(street.engine)) == ("released", [])
    assert (street.summary["writes"], one(street.engine, "SELECT count(*) FROM outbox")) == (0, 0)


def test_observe_mode_writes_nothing(serve: Serve) -> None:
    """It plans on as if the bank had refused."""
    street = ready(serve, live=False)
    street.run()
    assert street.summary["writes"] == 0
    assert {each.state for each in the_attempts(street.engine)} == {"observed"}


# Notices and endings


@pytest.mark.parametrize("ending", ["mark_uncollectible", "cancel"])
def test_a_lost_one_off_payment_is_canceled_when_the_ending_says_so(serve: Serve, ending: str, tmp_path: Path) -> None:
    """Nobody charges it any more; the event of our own request changes nothing."""
    street = serve(Scripted([a_one_off(decline=LOST)]), policy=Policy(ending=ending))
    street.hear(START)
    street.run()
    row = the_case(street.engine)
    assert row.state == "lost"
    carry_out(street, row.closed_at, tmp_path)
    assert (street.books.bills[0].status, street.books.log.events[-1].type) == ("void", CANCELED)
    assert one(street.engine, "SELECT delivered_at IS NOT NULL FROM outbox WHERE kind = 'ending'")
    street.hear(row.closed_at)
    assert the_case(street.engine).state == "lost"


@pytest.mark.parametrize("name", ["first", "reminder", "second_reminder", "last_chance"])
def test_a_notice_about_a_one_off_payment_speaks_of_no_subscription(serve: Serve, name: str, tmp_path: Path) -> None:
    """Nor of another card, although its method was named; without links of our own it leads nowhere."""
    street = ready(serve, FUNDS)
    now = street.go_on()
    add_notice(street.engine, 1, name=name, at=now, due_at=now)
    [text] = carry_out(street, now, tmp_path)
    assert "$19.99" in text
    assert "Please answer this message" in text
    assert not [words for words in ("subscription", "another card") if words in text]


def test_a_renewal_is_still_called_a_subscription_payment(serve: Serve, tmp_path: Path) -> None:
    """Unless a one-off payment of the same customer stands beside it in the same message."""
    street = serve(Scripted([payment(decline=LOST), payment(2, payment_id="pi_2", subscription_id=None)]))
    opened(street.engine, payment(decline=LOST))
    street.work(START)
    assert "For: 1 month of Practice Shop" in carry_out(street, START, tmp_path)[0]
    bills = [Bill(street.desk(START).gateway.read(name)) for name in ("in_1", "pi_2")]
    told = [compose("reminder", some, Policy(ending="cancel"), Letterhead()) for some in (bills[:1], bills)]
    assert ["your subscription will end" in each.text for each in told] == [True, False]
    assert "your payments of $19.99 and $19.99 are still open" in told[1].subject
