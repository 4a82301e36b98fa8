"""Does the gateway say what happened? Against the practice bank over HTTP, and against written-down answers.

Nothing is replaced: the SDK sends real requests, the bank makes real charges, and its ledger is the judge.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests

from schedules import Card, Decline
from schedules.declines import DeclineClass, classify
from tests.gateway.conftest import Bank
from tests.gateway.wire import Record
from tests.practice.openapi import Description, Mismatch
from tests.stories.scripted import FAILED_AT, NEWER, VISA, Scripted, a_payment
from worker.practice.events import signature
from worker.readings import Reading, instant
from worker.stripe_gateway import (
    Declined,
    Gone,
    NotNow,
    Paid,
    Processing,
    Refused,
    StripeGateway,
    Unavailable,
    Unknown,
    verify_event,
)

JSON = dict[str, Any]
BankOf = Callable[..., Any]
MASTERCARD = replace(VISA, brand="mastercard")
FULL = Decline("insufficient_funds", "try_again_later", "51", "26", "issuer_declined", "insufficient_funds")
BLOCKED = Decline("fraudulent", "do_not_try_again", None, None, "blocked", "highest_risk_level")
CONNECTED = {"in_1": "acct_9"}
SENT = {"outcome_type": None, "outcome_reason": None}  # a 402 does not carry the charge's outcome


def as_read(decline: Decline) -> Decline:
    """Return the evidence as a reading tells it: the reason of an outcome counts only where Stripe blocked it."""
    return decline if decline.outcome_type == "blocked" else replace(decline, outcome_reason=None)


def refusing(decline: Decline, card: Card = VISA, **given: Any) -> Scripted:
    """Return a world in which every charge is refused in one way."""
    return Scripted((a_payment(decline=decline, card=card, **given),))


def approving(*before: Decline, **more: Any) -> Scripted:
    """Return a world that approves, after some refusals."""
    return Scripted((a_payment(),), {"in_1": [*before, None]}, **more)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextmanager
def under_way(bank: Bank, key: str) -> Iterator[Any]:
    """Keep a charge of the invoice under way for a while: the bank has begun and has not answered."""
    bank.fail("slow", seconds=1)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(bank.gateway.pay, "in_1", key)
        until(lambda: len(bank.record.pays()) == 1)
        yield first


# Reading


def test_a_reading_shows_the_open_invoice_its_card_and_the_whole_evidence(bank_of: BankOf) -> None:
    """Amount, card, method, every code of the last refusal, the customer's address and the payment page."""
    reading = bank_of(refusing(FULL, MASTERCARD)).gateway.read("in_1")
    assert reading == Reading(
        payment_id="in_1",
        customer_id="cus_1",
        ended=None,
        amount_minor=1999,
        currency="usd",
        card=MASTERCARD,
        charged=MASTERCARD,
        method_id="pm_1_0",
        decline=as_read(FULL),
        charge_id="ch_1_0",
        in_flight=False,
        waits_for_customer=False,
        retried_by_provider=False,
        email=reading.email,
        link="https://invoice.stripe.example/i/1",
        time_zone="America/New_York",
        locale="en-US",
        charged_at=FAILED_AT,
        intent_id="pi_1",
        product="1 month of Practice Shop",
    )
    assert str(reading.email).endswith(".1@customer.example")


@pytest.mark.parametrize("rail", ["us_bank_account", "sepa_debit", "bacs_debit"])
def test_a_bank_debit_is_a_card_whose_brand_is_its_rail(bank_of: BankOf, rail: str) -> None:
    """A debit has an account instead of a number, and no expiry."""
    account = Card("ACCTacctACCTacct", rail, None, None, None, None, "6789")
    reading = bank_of(refusing(Decline("insufficient_funds"), account)).gateway.read("in_1")
    assert (reading.card, reading.charged) == (account, account)


def test_a_card_stored_later_is_shown_beside_the_one_that_was_refused(bank_of: BankOf) -> None:
    """The method to be charged next is new; what was charged stays what it was."""
    bank = bank_of(Scripted((a_payment(),), acts={"in_1": [("card", FAILED_AT + timedelta(hours=1))]}))
    bank.at(FAILED_AT + timedelta(hours=1))
    reading = bank.gateway.read("in_1")
    assert (reading.card, reading.charged, reading.method_id) == (NEWER, VISA, "pm_1_1")


@pytest.mark.parametrize(("act", "ended"), [("paid", "paid"), ("cancel", "canceled")])
def test_a_reading_says_how_an_invoice_ended(bank_of: BankOf, act: str, ended: str) -> None:
    """Paid by the customer, or left with the subscription."""
    bank = bank_of(Scripted((a_payment(),), acts={"in_1": [(act, FAILED_AT + timedelta(hours=1))]}))
    bank.at(FAILED_AT + timedelta(hours=1))
    assert bank.gateway.read("in_1").ended == ended


def test_an_unknown_invoice_and_a_wrong_key_are_refused_without_repeating_the_key(bank_of: BankOf) -> None:
    """A person has to look; the message names status and request and nothing that was sent."""
    with pytest.raises(Refused, match="404"):
        bank_of().gateway.read("in_2")
    with pytest.raises(Refused, match="401") as refused:
        bank_of(key="sk_live_secretsecret").gateway.read("in_1")
    assert "secretsecret" not in str(refused.value)


@pytest.mark.parametrize("status", [200, 409, 429, 500, 502, 503])
def test_a_provider_in_trouble_is_unavailable(canned_of: BankOf, status: int) -> None:
    """Limits, locks and faults, with a page of a proxy instead of an error object."""
    with pytest.raises(Unavailable):
        canned_of((status, "<html>trouble</html>")).gateway.read("in_1")


def test_nobody_listening_is_unavailable_to_a_reading_and_unknown_to_a_charge() -> None:
    """A port that is taken and does not listen refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gateway = StripeGateway("sk_test_1", f"http://127.0.0.1:{taken.getsockname()[1]}", 1, 1)
        with pytest.raises(Unavailable):
            gateway.read("in_1")
        assert isinstance(gateway.pay("in_1", "k1"), Unknown)


# Charging


def test_an_approved_charge_is_paid(bank_of: BankOf) -> None:
    """One charge, off-session, under the given key; the next reading says paid."""
    bank = bank_of(approving())
    assert bank.gateway.pay("in_1", "k1") == Paid()
    assert bank.charges == [True]
    assert bank.gateway.read("in_1").ended == "paid"
    (sent,) = bank.record.pays()
    assert (sent.key, sent.body.lower()) == ("k1", b"off_session=true")


@pytest.mark.parametrize(
    ("decline", "card"),
    [
        (FULL, MASTERCARD),
        (Decline("lost_card", "do_not_try_again", "41", None, "issuer_declined", "lost_card"), VISA),
        (Decline("expired_card", None, "54", None, "issuer_declined", "expired_card"), VISA),
        (BLOCKED, VISA),
        (Decline("insufficient_funds", outcome_type="issuer_declined"), Card("ACCT", "us_bank_account")),
    ],
    ids=["funds", "lost", "expired", "blocked", "debit"],
)
def test_a_refused_charge_is_declined_with_its_evidence(bank_of: BankOf, decline: Decline, card: Card) -> None:
    """The answer carries the codes; the reading after it adds how the charge was judged."""
    bank = bank_of(refusing(decline, card))
    assert bank.gateway.pay("in_1", "k1") == Declined(replace(decline, **SENT), "ch_1_1")
    reading = bank.gateway.read("in_1")
    assert reading.charge_id == "ch_1_1"
    assert reading.decline == as_read(decline)
    assert bank.charges == [False]


def test_a_charge_that_needs_the_customer_is_a_decline_of_that_class(bank_of: BankOf) -> None:
    """Stripe answers 402; only the customer can help."""
    bank = bank_of(refusing(Decline("authentication_required", outcome_type="issuer_declined")))
    outcome = bank.gateway.pay("in_1", "k1")
    assert isinstance(outcome, Declined)
    assert classify(outcome.decline, "visa").decline_class is DeclineClass.CUSTOMER_ACTION


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "invoice_payment_intent_requires_action"}, Decline("invoice_payment_intent_requires_action")),
        ({"code": "card_declined", "decline_code": "do_not_honor"}, Decline("do_not_honor")),
        ({"code": "card_declined"}, Decline("card_declined")),
        ({}, Decline()),
    ],
)
def test_a_402_is_a_decline_however_little_it_says(canned_of: BankOf, error: JSON, expected: Decline) -> None:
    """Any field of the error may be absent."""
    outcome = canned_of((402, {"error": {"type": "card_error", "message": "no", **error}})).gateway.pay("in_1", "k1")
    assert outcome == Declined(expected, None)


@pytest.mark.parametrize("charge", ["ch_9", {"id": "ch_9"}])
@pytest.mark.parametrize("place", ["charge", "payment_intent"])
def test_the_refused_charge_is_found_wherever_the_error_names_it(canned_of: BankOf, place: str, charge: Any) -> None:
    """On the error itself, or as the latest charge of its intent; as an id or as an object."""
    where = {"charge": charge} if place == "charge" else {"payment_intent": {"latest_charge": charge}}
    body = {"error": {"type": "card_error", "code": "card_declined", "message": "no", **where}}
    assert canned_of((402, body)).gateway.pay("in_1", "k1") == Declined(Decline("card_declined"), "ch_9")


def test_an_invoice_still_open_after_a_200_is_processing(canned_of: BankOf) -> None:
    """Bank debits take days: accepted is not paid."""
    canned = canned_of((200, {"id": "in_1", "object": "invoice", "status": "open"}))
    assert canned.gateway.pay("in_1", "k1") == Processing()


def test_one_key_makes_one_charge_and_replays_its_answer(bank_of: BankOf) -> None:
    """Declines too are replayed; a new key is a new charge."""
    bank = bank_of(approving(FULL))
    first = bank.gateway.pay("in_1", "k1")
    assert isinstance(first, Declined)
    assert bank.gateway.pay("in_1", "k1") == first
    assert bank.charges == [False]
    assert bank.gateway.pay("in_1", "k2") == Paid()
    assert bank.charges == [False, True]


# What is not an answer of the bank


@pytest.mark.parametrize("kind", ["429", "409"])
def test_a_rate_limit_and_a_key_in_use_are_not_now(bank_of: BankOf, kind: str) -> None:
    """Nothing was charged, one request was sent, and the same key may go again."""
    bank = bank_of(approving())
    bank.fail(kind)
    assert isinstance(bank.gateway.pay("in_1", "k1"), NotNow)
    assert (bank.charges, len(bank.record.pays())) == ([], 1)
    assert bank.gateway.pay("in_1", "k1") == Paid()


def test_a_locked_invoice_is_not_now(bank_of: BankOf) -> None:
    """While another charge of the invoice is under way Stripe answers 429 ``lock_timeout``."""
    bank = bank_of(approving())
    with under_way(bank, "k1") as first:
        locked = bank.gateway.pay("in_1", "k2")
        assert isinstance(locked, NotNow)
        assert "lock_timeout" in locked.why
        assert first.result() == Paid()
    assert bank.charges == [True]


@pytest.mark.parametrize("status", ["paid", "void"])
def test_an_invoice_that_is_not_open_is_not_now(bank_of: BankOf, status: str) -> None:
    """A 400 is no decline: the next reading tells what happened."""
    act = {"paid": "paid", "void": "cancel"}[status]
    bank = bank_of(Scripted((a_payment(),), acts={"in_1": [(act, FAILED_AT + timedelta(hours=1))]}))
    bank.at(FAILED_AT + timedelta(hours=1))
    assert isinstance(bank.gateway.pay("in_1", "k1"), NotNow)
    assert len(bank.record.pays()) == 1


@pytest.mark.parametrize(("kind", "charges"), [("500_before", []), ("500_after", [True])])
def test_a_fault_is_unknown_whether_or_not_the_charge_was_made(bank_of: BankOf, kind: str, charges: list[bool]) -> None:
    """Only a reading can tell; the gateway does not send a 500 again."""
    bank = bank_of(approving())
    bank.fail(kind)
    assert isinstance(bank.gateway.pay("in_1", "k1"), Unknown)
    assert (bank.charges, len(bank.record.pays())) == (charges, 1)
    assert bank.gateway.read("in_1").ended == ("paid" if charges else None)


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
def test_a_broken_connection_is_tried_again_under_the_same_key(bank_of: BankOf, kind: str) -> None:
    """Whether it broke before or after the charge, the repetition brings the answer and no second charge."""
    bank = bank_of(approving())
    bank.fail(kind)
    assert bank.gateway.pay("in_1", "k1") == Paid()
    assert bank.charges == [True]
    assert {each.key for each in bank.record.pays()} == {"k1"}


def test_a_connection_that_breaks_every_time_is_unknown(bank_of: BankOf) -> None:
    """Three tries of one request, then nobody here knows."""
    bank = bank_of(approving())
    bank.fail("reset_before", times=3)
    assert isinstance(bank.gateway.pay("in_1", "k1"), Unknown)
    assert len(bank.record.pays()) == 3


def test_a_charge_that_outlasts_our_patience_is_unknown_and_never_made_twice(bank_of: BankOf) -> None:
    """The repetition meets its own key in use: that says nothing of the first request, which is under way."""
    bank = bank_of(approving(), read_seconds=0.3)
    bank.fail("timeout_after", seconds=2)
    assert isinstance(bank.gateway.pay("in_1", "k1"), Unknown)
    until(lambda: all(each.status for each in bank.record.pays()[:1]))
    assert bank.gateway.pay("in_1", "k1", again=True) == Paid()
    assert bank.charges == [True]


def test_a_limit_met_on_the_way_to_an_unknown_outcome_does_not_make_it_known(bank_of: BankOf) -> None:
    """The first request was charged and its answer lost; a rate limit then is not "nothing happened"."""
    bank = bank_of(approving())
    bank.fail("reset_after")
    bank.fail("429")
    assert isinstance(bank.gateway.pay("in_1", "k1"), Unknown)
    assert bank.charges == [True]


# Endings


@pytest.mark.parametrize(
    ("ending", "asked", "shown"),
    [
        ("leave", [], ("open", "past_due", None)),
        ("release", [], ("open", "past_due", None)),
        ("cancel", ["DELETE /v1/subscriptions/sub_1 "], ("open", "canceled", None)),
        ("mark_uncollectible", ["POST /v1/invoices/in_1/mark_uncollectible "], ("uncollectible", "past_due", None)),
        (
            "pause",
            ["POST /v1/subscriptions/sub_1 pause_collection[behavior]=keep_as_draft"],
            ("open", "past_due", "keep_as_draft"),
        ),
    ],
)
def test_each_ending_asks_for_one_thing_and_doing_it_again_changes_nothing(
    bank_of: BankOf, ending: str, asked: list[str], shown: tuple[str | None, ...]
) -> None:
    """The second call, after a crash between the call and its record, must neither fail nor happen."""
    bank = bank_of()
    told = []
    for _ in range(2):
        bank.gateway.end(ending, "in_1", "sub_1", "dunning-end-1", None)
        kinds = [event["type"] for event in objects(bank, "events")["data"]]
        told.append([kind for kind in kinds if kind != "invoice.updated"])  # comes with any other of an invoice
    assert [f"{each.method} {each.path} {each.body.decode()}" for each in bank.record.writes()] == 2 * asked
    assert {each.key for each in bank.record.writes()} <= {"dunning-end-1"}
    assert told[0] == told[1]
    assert len(told[0]) == len(("charge.failed", "invoice.payment_failed")) + len(asked)
    invoice, subscription = objects(bank, "invoices/in_1"), objects(bank, "subscriptions/sub_1")
    paused = subscription["pause_collection"]
    assert (invoice["status"], subscription["status"], paused and paused["behavior"]) == shown


def objects(bank: Bank, path: str) -> JSON:
    """Read something from the bank as the merchant's own backend would."""
    answer = requests.get(f"{bank.url}/v1/{path}", headers={"Authorization": "Bearer sk_test_1"}, timeout=20)
    found: JSON = answer.json()
    return found


@pytest.mark.parametrize("ending", ["leave", "release", "cancel", "pause"])
def test_an_ending_of_an_invoice_without_a_subscription_sends_nothing(bank_of: BankOf, ending: str) -> None:
    """There is nothing to end."""
    bank = bank_of()
    bank.gateway.end(ending, "in_1", None, "dunning-end-1", None)
    assert bank.record.of_api() == []


@pytest.mark.parametrize("subscription", ["sub_1", "sub_unknown"])
@pytest.mark.parametrize("ending", ["cancel", "pause"])
def test_ending_a_subscription_that_is_gone_is_fine(bank_of: BankOf, ending: str, subscription: str) -> None:
    """Somebody canceled it before, or deleted it altogether: nothing is left to end, and nothing is changed."""
    bank = bank_of()
    bank.gateway.end("cancel", "in_1", "sub_1", "dunning-end-1", None)
    before = objects(bank, "events")
    bank.gateway.end(ending, "in_1", subscription, "dunning-end-2", None)
    assert objects(bank, "events") == before


def test_an_ending_that_stripe_refuses_is_an_error(canned_of: BankOf) -> None:
    """A key without the right to it: a person has to look, nothing counts as done."""
    shown = (200, {"id": "sub_1", "object": "subscription", "status": "past_due"})
    refused = (403, {"error": {"type": "invalid_request_error", "message": "no"}})
    with pytest.raises(Refused, match="403"):
        canned_of(shown, refused).gateway.end("pause", "in_1", "sub_1", "dunning-end-1", None)


# The portal


def test_each_portal_session_is_fresh_and_leads_straight_to_changing_the_card(bank_of: BankOf) -> None:
    """One request of the connected account each; when done, the customer comes back to us."""
    bank = bank_of(approving(accounts=CONNECTED))
    urls = {bank.gateway.portal("cus_1", "https://shop.example/pay/thanks", "acct_9") for _ in range(2)}
    assert len(urls) == 2
    flows = [json.loads(each.answer)["flow"] for each in bank.record.writes()]
    assert [flow["type"] for flow in flows] == ["payment_method_update"] * 2
    assert flows[0]["after_completion"]["redirect"] == {"return_url": "https://shop.example/pay/thanks"}
    assert {each.headers["stripe-account"] for each in bank.record.writes()} == {"acct_9"}
    assert bank.charges == []


def test_a_portal_that_is_not_set_up_or_not_permitted_is_refused(canned_of: BankOf) -> None:
    """Stripe says so with a 400 or a 403; the address of the customer's page is another one then."""
    text = "No configuration provided and your test mode default configuration has not been created."
    for status in (400, 403):
        error = {"error": {"type": "invalid_request_error", "message": text}}
        with pytest.raises(Refused, match=str(status)):
            canned_of((status, error)).gateway.portal("cus_1", "https://shop.example/pay/thanks")


def test_a_portal_of_an_unknown_customer_is_refused(bank_of: BankOf) -> None:
    """Deleted meanwhile, or of another account."""
    with pytest.raises(Refused, match="400"):
        bank_of().gateway.portal("cus_2", "https://shop.example/pay/thanks")


def test_a_portal_of_a_provider_in_trouble_is_unavailable(canned_of: BankOf) -> None:
    """Nothing is known of the account's portal then."""
    with pytest.raises(Unavailable):
        canned_of((500, "broken")).gateway.portal("cus_1", "https://shop.example/pay/thanks")


# Lists


def many(number: int, **more: Any) -> Scripted:
    """Return a world in which so many renewals fail, a minute apart, each of a customer of its own."""
    failed = [FAILED_AT + each * timedelta(minutes=1) for each in range(number)]
    names = [
        {"payment_id": f"in_{each}", "customer_id": f"cus_{each}", "subscription_id": None} for each in range(number)
    ]
    return Scripted(tuple(a_payment(failed_at=at, **name) for at, name in zip(failed, names, strict=True)), **more)


def test_events_come_the_oldest_first_over_all_pages(bank_of: BankOf) -> None:
    """Of the types asked for, from the first instant to before the second; more types than one request takes."""
    bank = bank_of(many(130))
    bank.at(FAILED_AT + timedelta(hours=3))
    since, until = FAILED_AT + timedelta(minutes=1), FAILED_AT + timedelta(minutes=129)
    types = {"charge.failed", "invoice.payment_failed", *(f"invoice.other_{number}" for number in range(30))}
    found = bank.gateway.events(types, since, until)
    assert [event["created"] for event in found] == sorted(event["created"] for event in found)
    assert {event["data"]["object"]["id"] for event in found if event["type"] == "invoice.payment_failed"} == {
        f"in_{number}" for number in range(1, 129)
    }
    assert len({event["id"] for event in found}) == len(found) == 256
    pairs = [event["data"]["object"]["id"] for event in found if event["type"] == "charge.failed"]
    assert pairs == [f"ch_{number}_0" for number in range(1, 129)]
    assert bank.gateway.events({"invoice.paid"}, since, until) == []


def test_events_are_given_as_they_were_sent(bank_of: BankOf) -> None:
    """A price inside is a text of decimals, which the SDK would make a number that JSON cannot store."""
    bank = bank_of()
    bank.gateway.end("pause", "in_1", "sub_1", "dunning-end-1", None)
    span = FAILED_AT - timedelta(days=1), FAILED_AT + timedelta(days=1)
    [told] = bank.gateway.events({"customer.subscription.updated"}, *span)
    assert told == objects(bank, f"events/{told['id']}")
    assert told["data"]["object"]["items"]["data"][0]["price"]["unit_amount_decimal"] == "1999"


def test_events_of_one_second_keep_the_order_of_the_list(bank_of: BankOf) -> None:
    """The charge failed before its invoice did, though both have the same second."""
    told = bank_of().gateway.events({"charge.failed", "invoice.payment_failed"}, FAILED_AT, FAILED_AT + timedelta(1))
    assert [event["type"] for event in told] == ["charge.failed", "invoice.payment_failed"]


def test_open_invoices_are_those_that_nobody_paid_or_closed(bank_of: BankOf) -> None:
    """Over all pages; those made before the given instant are left out."""
    paid, left = ("paid", FAILED_AT + timedelta(hours=3)), ("cancel", FAILED_AT + timedelta(hours=3))
    bank = bank_of(many(130, acts={"in_5": [paid], "in_6": [left]}))
    bank.at(FAILED_AT + timedelta(hours=3))
    open_ones = {f"in_{number}" for number in range(130)} - {"in_5", "in_6"}
    listed = [invoice["id"] for invoice in bank.gateway.open_invoices(FAILED_AT - timedelta(days=1))]
    assert (set(listed), len(listed)) == (open_ones, 128)
    later = bank.gateway.open_invoices(FAILED_AT + timedelta(minutes=60))  # made an hour before it failed
    assert len(later) == 10


def test_a_list_shows_only_what_is_of_the_account(bank_of: BankOf) -> None:
    """Events and invoices of a connected account are not among one's own, and an event names its account."""
    bank = bank_of(many(2, accounts={"in_1": "acct_9"}))
    bank.at(FAILED_AT + timedelta(hours=1))
    span = FAILED_AT - timedelta(days=1), FAILED_AT + timedelta(days=1)
    for account, payment_id in ((None, "in_0"), ("acct_9", "in_1")):
        assert [each["id"] for each in bank.gateway.open_invoices(span[0], account)] == [payment_id]
        [told] = bank.gateway.events({"invoice.payment_failed"}, *span, account)
        assert (told["data"]["object"]["id"], told.get("account")) == (payment_id, account)
    with pytest.raises(Refused, match="account_invalid"):
        bank.gateway.open_invoices(span[0], "acct_1")


def test_a_list_that_breaks_off_is_no_shorter_list(canned_of: BankOf) -> None:
    """A page that cannot be had is an error, not the end."""
    page = (200, {"object": "list", "data": [{"id": "in_1"}], "has_more": True, "url": "/v1/invoices"})
    with pytest.raises(Unavailable):
        canned_of(page, (500, "broken")).gateway.open_invoices(FAILED_AT)


# On the wire


def test_every_request_names_version_and_account_and_only_charges_carry_our_key(bank_of: BankOf) -> None:
    """The version is pinned by the SDK; a connected account is a header."""
    bank = bank_of(approving(accounts=CONNECTED))
    bank.gateway.read("in_1", "acct_9")
    bank.gateway.pay("in_1", "k1", "acct_9")
    assert {each.headers["stripe-version"] for each in bank.record.of_api()} == {"2026-10-28.endive"}
    assert {each.headers["stripe-account"] for each in bank.record.of_api()} == {"acct_9"}
    assert [each.key for each in bank.record.of_api() if each.method == "GET"] == [None, None]
    assert [each.key for each in bank.record.pays()] == ["k1"]


def test_an_id_is_one_part_of_the_path_whatever_stands_in_it(bank_of: BankOf) -> None:
    """It comes from outside: it names an object that is not there, and adds no parameter."""
    bank = bank_of()
    with pytest.raises(Gone):
        bank.gateway.read("in_1?limit=1")
    (sent,) = bank.record.of_api()
    assert (sent.path, "limit" in sent.query) == ("/v1/invoices/in_1?limit=1", False)


def test_the_check_of_this_suite_finds_an_unknown_parameter(bank_of: BankOf, description: Description) -> None:
    """The record is held against Stripe's description: a parameter of our own invention would be refused."""
    bank = bank_of(approving())
    bank.gateway.pay("in_1", "k1")
    (sent,) = bank.record.pays()
    with pytest.raises(Mismatch, match="unknown parameter force"):
        Record([replace(sent, body=b"off_session=true&force=true")]).check(description)
    answer = json.loads(sent.answer)
    with pytest.raises(Mismatch):
        Record([replace(sent, answer=json.dumps({**answer, "status": 3}).encode())]).check(description)


def test_an_event_is_verified_by_any_of_the_secrets_and_by_its_time() -> None:
    """During a roll two secrets are valid; a wrong one, another body, or a time 300 s away are not."""
    body = b'{"id": "evt_1"}'
    at = instant(int(time.time()))
    header = signature("whsec_new", body, int(at.timestamp()))
    verify_event(body, header, ("whsec_old", "whsec_new"), at)
    wrong = [
        (body, header, ("whsec_old",), at),
        (body + b" ", header, ("whsec_new",), at),
        (body, header, (), at),
        (body, "", ("whsec_new",), at),
        (body, header, ("whsec_new",), at - timedelta(seconds=301)),
        (body, signature("whsec_new", body, int(at.timestamp()) - 400), ("whsec_new",), at),
        (b"\xff", header, ("whsec_new",), at),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"signature|SECRET is not set"):
            verify_event(*arguments)
