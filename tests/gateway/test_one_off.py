"""Is a payment intent without an invoice read and charged as an invoice is, on the method that we name, and once?"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests

from schedules import Card, Decline
from tests.gateway.conftest import JSON, Bank, BankOf, CannedOf
from tests.gateway.test_contract import FULL, SENT, as_read
from tests.gateway.test_shapes import CHARGE, CUSTOMER, DECLINE, METHOD, REFUSED, STORED, each_path, having, without
from tests.stories.scripted import FAILED_AT, NEWER, VISA, Scripted, a_payment
from worker.readings import Reading, UnknownShape, instant, is_marked, read_intent
from worker.stripe_gateway import Declined, NotNow, Paid, Processing, Refused, Unknown

ONE_OFF: JSON = {"payment_id": "pi_9", "subscription_id": None}
OWN: JSON = {**METHOD, "id": "pm_own", "card": {**CHARGE["payment_method_details"]["card"]}}  # type: ignore[index]
INTENT: JSON = {
    "id": "pi_1PgafyB7WZ01zgkWSjxsAJo3",
    "object": "payment_intent",
    "amount": 2000,
    "amount_received": 500,
    "created": 1785990000,
    "currency": "usd",
    "customer": CUSTOMER,
    "last_payment_error": {
        "charge": CHARGE["id"],
        "code": "card_declined",
        "decline_code": "insufficient_funds",
        "payment_method": OWN,
        "type": "card_error",
    },
    "latest_charge": CHARGE,
    "metadata": {"dunning": "recover"},
    "payment_method": None,
    "receipt_email": None,
    "status": "requires_payment_method",
}
WITHOUT_DEFAULT = having(INTENT, {"default_payment_method": None}, "customer", "invoice_settings")


def one_off(*answers: Decline | None, **more: Any) -> Scripted:
    """Return a world with one failed one-off payment, and what its next charges are answered."""
    return Scripted((a_payment(**ONE_OFF),), {"pi_9": [*answers, None]}, **more)


# Reading


def test_a_reading_shows_the_intent_its_method_and_the_whole_evidence(bank_of: BankOf) -> None:
    """What an invoice shows, but for a page on which it could be paid."""
    bank = bank_of(Scripted((a_payment(decline=FULL, **ONE_OFF),)))
    reading = bank.gateway.read("pi_9")
    assert reading == Reading(
        payment_id="pi_9",
        customer_id="cus_1",
        ended=None,
        amount_minor=1999,
        currency="usd",
        card=VISA,
        charged=VISA,
        method_id="pm_9_0",
        decline=as_read(FULL),
        charge_id="ch_9_0",
        in_flight=False,
        waits_for_customer=False,
        retried_by_provider=False,
        email=reading.email,
        link=None,
        time_zone="America/New_York",
        locale="en-US",
        charged_at=FAILED_AT,
        intent_id="pi_9",
        product="One-off payment",
    )


def test_a_card_stored_later_is_charged_before_the_one_that_was_refused(bank_of: BankOf) -> None:
    """The customer's default comes first, the method of the intent stays among the others."""
    later = FAILED_AT + timedelta(hours=1)
    bank = bank_of(one_off(acts={"pi_9": [("card", later)]}))
    bank.at(later)
    reading = bank.gateway.read("pi_9", backups=True)
    assert (reading.card, reading.charged, reading.method_id) == (NEWER, VISA, "pm_9_1")
    assert [(other.method_id, other.backup) for other in reading.others] == [("pm_9_0", False)]


def test_the_method_that_failed_is_read_anew(canned_of: CannedOf) -> None:
    """An intent that was refused shows the method as it was then; its card may have been updated since."""
    renewed = having(OWN, 2031, "card", "exp_year")
    reading = canned_of((200, WITHOUT_DEFAULT), (200, renewed)).gateway.read(INTENT["id"])
    assert (reading.method_id, reading.card) == ("pm_own", replace(REFUSED, exp_year=2031))
    assert reading.charged == REFUSED


def test_a_method_that_the_customer_took_away_is_not_charged(canned_of: CannedOf) -> None:
    """It belongs to nobody any more: nothing is left to charge, and the evidence stays."""
    gone = {**OWN, "customer": None}
    reading = canned_of((200, WITHOUT_DEFAULT), (200, gone)).gateway.read(INTENT["id"])
    assert (reading.method_id, reading.card, reading.charged) == (None, Card(), REFUSED)
    assert reading.decline == DECLINE


def test_a_method_that_cannot_be_found_does_not_hide_the_rest(canned_of: CannedOf) -> None:
    """The intent itself still tells which one it was."""
    missing = (404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "no"}})
    assert canned_of((200, WITHOUT_DEFAULT), missing).gateway.read(INTENT["id"]).card == REFUSED


def test_what_is_no_intent_is_refused(canned_of: CannedOf) -> None:
    """A person has to look."""
    with pytest.raises(Refused, match="a payment intent of an unknown shape"):
        canned_of((200, without(INTENT, "amount"))).gateway.read(INTENT["id"])


# Shapes


def test_an_expanded_intent_gives_the_same_reading_as_an_invoice_would() -> None:
    """The customer's default is charged, the method of the intent comes second."""
    reading = read_intent(INTENT)
    assert (reading.amount_minor, reading.currency, reading.ended) == (1500, "usd", None)
    assert (reading.card, reading.method_id, reading.charged) == (STORED, METHOD["id"], REFUSED)
    assert (reading.decline, reading.charge_id, reading.charged_at) == (DECLINE, CHARGE["id"], instant(1786000000))
    assert [(other.method_id, other.card) for other in reading.others] == [("pm_own", REFUSED)]
    assert (reading.email, reading.link, reading.intent_id) == ("someone@customer.example", None, INTENT["id"])


def test_any_field_but_the_intents_own_three_may_be_missing_or_null() -> None:
    """An intent without id, currency or amount is none; every other field may be absent, or null."""
    needed = {("id",), ("currency",), ("amount",)}
    for path in each_path(INTENT):
        if path not in needed:
            read_intent(without(INTENT, *path))
            read_intent(having(INTENT, None, *path))
    for path in needed:
        with pytest.raises(UnknownShape):
            read_intent(without(INTENT, *path))


def test_an_unexpanded_intent_shows_the_method_of_its_error() -> None:
    """As an event carries it: customer and charge are ids."""
    shown = {**copy.deepcopy(INTENT), "customer": CUSTOMER["id"], "latest_charge": CHARGE["id"]}
    reading = read_intent(shown)
    assert (reading.customer_id, reading.method_id, reading.charged) == (CUSTOMER["id"], "pm_own", REFUSED)
    assert reading.decline == Decline("insufficient_funds")


def test_a_refusal_without_a_charge_is_that_of_the_method_that_its_error_names() -> None:
    """Not of the customer's default, which was never tried."""
    reading = read_intent({**INTENT, "latest_charge": None})
    assert (reading.charged, reading.card, reading.decline) == (REFUSED, STORED, Decline("insufficient_funds"))


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({"status": "succeeded"}, "paid"),
        ({"status": "succeeded", "metadata": {}}, "paid"),
        ({"status": "canceled"}, "voided"),
        ({"latest_charge": {**CHARGE, "disputed": True}}, "disputed"),
        ({"metadata": {}}, "voided"),
    ],
)
def test_what_ended_an_intent_is_read_from_it(change: JSON, ended: str) -> None:
    """Paid, canceled, disputed, or handed back: the merchant took the mark away."""
    assert read_intent({**INTENT, **change}).ended == ended


@pytest.mark.parametrize(
    ("status", "in_flight", "waits"),
    [
        ("processing", True, False),
        ("requires_capture", True, False),
        ("requires_action", True, True),
        ("requires_confirmation", False, False),
        ("requires_payment_method", False, False),
    ],
)
def test_an_intent_under_way_is_seen(status: str, in_flight: bool, waits: bool) -> None:
    """Nothing is charged beside it; what waits for the customer says so."""
    reading = read_intent({**INTENT, "status": status})
    assert (reading.ended, reading.in_flight, reading.waits_for_customer) == (None, in_flight, waits)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {}},
        {"metadata": None},
        {"metadata": ["dunning"]},
        {"metadata": {"dunning": "yes"}},
        {"invoice": "in_1"},
        {"invoice": {"id": "in_1"}},
    ],
)
def test_only_a_mark_of_the_merchant_makes_an_intent_ours(change: JSON) -> None:
    """A checkout that fails before the customer's eyes has none, and an intent of an invoice is the invoice's."""
    assert is_marked(INTENT)
    assert not is_marked({**INTENT, **change})


# Charging


def test_an_approved_confirmation_is_paid_and_a_second_one_is_not_now(bank_of: BankOf) -> None:
    """Off-session, under our key, on the method that was named."""
    bank = bank_of(one_off())
    assert bank.gateway.pay("pi_9", "k1", None, "pm_9_0") == Paid()
    (sent,) = bank.record.pays()
    assert (sent.path, sent.key) == ("/v1/payment_intents/pi_9/confirm", "k1")
    assert sorted(sent.body.lower().split(b"&")) == [b"off_session=true", b"payment_method=pm_9_0"]
    assert bank.gateway.read("pi_9").ended == "paid"
    again = bank.gateway.pay("pi_9", "k2", None, "pm_9_0")
    assert isinstance(again, NotNow)
    assert "payment_intent_unexpected_state" in again.why
    assert bank.charges == [True]


def test_a_refused_confirmation_is_declined_with_its_evidence_and_replayed_under_its_key(bank_of: BankOf) -> None:
    """A new key is a new charge."""
    bank = bank_of(one_off(FULL))
    expected = Declined(replace(FULL, **SENT), "ch_9_1")
    assert [bank.gateway.pay("pi_9", "k1", None, "pm_9_0") for _ in range(2)] == [expected, expected]
    assert bank.gateway.read("pi_9").decline == as_read(FULL)
    assert bank.gateway.pay("pi_9", "k2", None, "pm_9_0") == Paid()
    assert bank.charges == [False, True]


def test_without_a_method_nothing_is_charged(bank_of: BankOf) -> None:
    """An intent that was refused has forgotten its own."""
    bank = bank_of(one_off())
    assert isinstance(bank.gateway.pay("pi_9", "k1"), NotNow)
    assert bank.charges == []


@pytest.mark.parametrize(
    ("kind", "outcome", "charges"),
    [
        ("429", NotNow, []),
        ("500_before", Unknown, []),
        ("500_after", Unknown, [True]),
        ("reset_before", Paid, [True]),
        ("reset_after", Paid, [True]),
    ],
)
def test_a_fault_of_a_confirmation_is_taken_for_no_answer(
    bank_of: BankOf, kind: str, outcome: type, charges: list[bool]
) -> None:
    """Not executed, unknown, or repeated under the same key: as with an invoice."""
    bank = bank_of(one_off())
    bank.fail(kind)
    assert isinstance(bank.gateway.pay("pi_9", "k1", None, "pm_9_0"), outcome)
    assert bank.charges == charges
    assert {each.key for each in bank.record.pays()} == {"k1"}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("succeeded", Paid()),
        ("requires_action", Declined(Decline("authentication_required"), "ch_9")),
        ("processing", Processing()),
        ("requires_capture", Processing()),
    ],
)
def test_a_confirmation_that_is_no_error_is_sorted_by_its_status(
    canned_of: CannedOf, status: str, outcome: object
) -> None:
    """One that needs the customer is refused as far as we are concerned: nobody is there to confirm it."""
    canned = canned_of((200, {**INTENT, "status": status, "latest_charge": "ch_9"}))
    assert canned.gateway.pay(INTENT["id"], "k1", None, "pm_own") == outcome


# Endings


def status_of(bank: Bank) -> str:
    """Return the status of the intent at the bank."""
    url, key = f"{bank.url}/v1/payment_intents/pi_9", {"Authorization": "Bearer sk_test_1"}
    return str(requests.get(url, headers=key, timeout=20).json()["status"])


@pytest.mark.parametrize("ending", ["mark_uncollectible", "cancel"])
def test_an_ending_cancels_the_intent_once(bank_of: BankOf, ending: str) -> None:
    """Nobody can charge it any more; doing it again asks for nothing."""
    bank = bank_of(one_off())
    for number in range(2):
        bank.gateway.end(ending, "pi_9", None, f"dunning-end-{number}", None)
    [sent] = bank.record.writes()
    assert (sent.path, sent.key) == ("/v1/payment_intents/pi_9/cancel", "dunning-end-0")
    assert status_of(bank) == "canceled"
    assert bank.gateway.read("pi_9").ended == "voided"
    assert isinstance(bank.gateway.pay("pi_9", "k1", None, "pm_9_0"), NotNow)
    assert bank.charges == []


@pytest.mark.parametrize("ending", ["leave", "release", "pause"])
def test_other_endings_leave_the_intent_as_it_is(bank_of: BankOf, ending: str) -> None:
    """There is no subscription to pause."""
    bank = bank_of(one_off())
    bank.gateway.end(ending, "pi_9", None, "dunning-end-1", None)
    assert bank.record.of_api() == []


def test_an_intent_that_is_paid_or_gone_is_not_canceled(bank_of: BankOf) -> None:
    """Paid meanwhile, or no longer there at all."""
    bank = bank_of(one_off())
    bank.gateway.pay("pi_9", "k1", None, "pm_9_0")
    for name in ("pi_9", "pi_unknown"):
        bank.gateway.end("cancel", name, None, "dunning-end-1", None)
    assert [each.path for each in bank.record.writes()] == ["/v1/payment_intents/pi_9/confirm"]
    assert status_of(bank) == "succeeded"


# What the bank tells


def test_the_bank_tells_of_an_intent_and_never_of_an_invoice(bank_of: BankOf) -> None:
    """Failed, refused again, paid: each event holds what Stripe describes; the lists of invoices are empty."""
    bank = bank_of(one_off(FULL))
    for name in ("k1", "k2"):
        bank.gateway.pay("pi_9", name, None, "pm_9_0")
    key = {"Authorization": "Bearer sk_test_1"}
    told = requests.get(f"{bank.url}/v1/events", headers=key, timeout=20).json()["data"]
    assert [event["type"] for event in reversed(told)] == [
        *["charge.failed", "payment_intent.payment_failed"] * 2,
        "payment_intent.succeeded",
    ]
    assert json.loads(bank.record.pays()[-1].answer)["metadata"] == {"dunning": "recover"}
    assert bank.gateway.open_invoices(FAILED_AT - timedelta(days=1)) == []
    paid = requests.post(f"{bank.url}/v1/invoices/pi_9/pay", headers=key, timeout=20)
    assert paid.status_code == 404
