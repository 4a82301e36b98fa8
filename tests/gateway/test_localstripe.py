"""Does the gateway understand a Stripe that nobody here wrote? The part of the contract that localstripe supports.

It has no codes beyond ``card_declined``, no idempotency, and answers 200 to a charge that failed: judged by state.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schedules import Decline
from tests.gateway.peer import FAILS_WHEN_CHARGED, GOOD, WANTS_THE_CUSTOMER, Peer, localstripe
from tests.practice.openapi import Description
from worker.stripe_gateway import Declined, NotNow, Paid, Processing, Refused


@pytest.fixture(scope="module")
def peer(description: Description) -> Iterator[Peer]:
    """Run one localstripe for this module; all that was sent to it is what Stripe describes."""
    with localstripe() as found:
        yield found
    found.record.check(description, answers=False)


def test_a_failed_first_charge_is_read_in_the_old_shape(peer: Peer) -> None:
    """Intent and charge stand on the invoice itself."""
    customer = peer.customer(FAILS_WHEN_CHARGED)
    invoice = peer.subscribe(customer)
    reading = peer.gateway.read(invoice["id"])
    assert (reading.customer_id, reading.amount_minor, reading.currency) == (customer, 1999, "usd")
    assert (reading.ended, reading.decline) == (None, Decline("card_declined"))
    assert (reading.charge_id, reading.in_flight) == (invoice["charge"]["id"], False)
    assert (reading.card.brand, reading.card.exp_year, reading.email) == ("visa", 2030, "someone@customer.example")


def test_a_new_card_is_charged_and_the_invoice_is_paid_once(peer: Peer) -> None:
    """The card is another one; the charge is approved, and a second one is refused as not open."""
    customer = peer.customer(FAILS_WHEN_CHARGED)
    invoice = peer.subscribe(customer)["id"]
    before = peer.gateway.read(invoice)
    peer.store_card(customer, GOOD)
    after = peer.gateway.read(invoice)
    assert (after.card != before.card, after.method_id != before.method_id) == (True, True)
    assert peer.gateway.pay(invoice, "k1") == Paid()
    assert peer.gateway.read(invoice).ended == "paid"
    assert isinstance(peer.gateway.pay(invoice, "k2"), NotNow)
    assert peer.charges(customer) == ["failed", "succeeded"]


def test_a_charge_answered_with_an_open_invoice_is_told_by_the_next_reading(peer: Peer) -> None:
    """200 and still open is not paid; the reading shows a charge that was not there before, and why it failed."""
    invoice = peer.subscribe(peer.customer(FAILS_WHEN_CHARGED))["id"]
    before = peer.gateway.read(invoice).charge_id
    assert peer.gateway.pay(invoice, "k1") == Processing()
    reading = peer.gateway.read(invoice)
    assert (reading.charge_id != before, reading.decline, reading.in_flight) == (True, Decline("card_declined"), False)


def test_a_charge_that_waits_for_the_customer_is_under_way(peer: Peer) -> None:
    """The intent requires an action: nothing is charged beside it."""
    invoice = peer.subscribe(peer.customer(WANTS_THE_CUSTOMER))["id"]
    reading = peer.gateway.read(invoice)
    assert (reading.in_flight, reading.decline, reading.ended) == (True, None, None)


def test_an_unknown_invoice_is_refused(peer: Peer) -> None:
    """404 is not a provider in trouble."""
    with pytest.raises(Refused, match="404"):
        peer.gateway.read("in_unknown")


def an_intent(peer: Peer, number: str) -> tuple[str, str]:
    """Return a marked one-off payment that nobody has charged yet, and the method it is to be charged on."""
    customer = peer.customer(number)
    method = peer.ask("GET", f"customers/{customer}")["invoice_settings"]["default_payment_method"]
    form = {"amount": 1999, "currency": "usd", "customer": customer, "payment_method": method}
    return str(peer.ask("POST", "payment_intents", **form, **{"metadata[dunning]": "recover"})["id"]), str(method)


def test_a_one_off_payment_is_charged_and_paid_once(peer: Peer) -> None:
    """Open before, paid after; a second charge is refused, and an ending leaves it as it is."""
    intent, method = an_intent(peer, GOOD)
    before = peer.gateway.read(intent)
    assert (before.ended, before.amount_minor, before.method_id, before.link) == (None, 1999, method, None)
    assert peer.gateway.pay(intent, "k1", None, method) == Paid()
    assert isinstance(peer.gateway.pay(intent, "k2", None, method), NotNow)
    peer.gateway.end("cancel", intent, None, "k3", None)
    assert peer.gateway.read(intent).ended == "paid"
    assert peer.charges(before.customer_id) == ["succeeded"]


def test_a_one_off_payment_that_is_refused_is_declined_and_can_be_canceled(peer: Peer) -> None:
    """402, as Stripe answers; the reading shows the same charge, and after the ending nothing is left to recover."""
    intent, method = an_intent(peer, FAILS_WHEN_CHARGED)
    outcome = peer.gateway.pay(intent, "k1", None, method)
    reading = peer.gateway.read(intent)
    assert outcome == Declined(Decline("card_declined"), reading.charge_id)
    assert (reading.ended, reading.decline, reading.in_flight) == (None, Decline("card_declined"), False)
    for key in ("k2", "k3"):
        peer.gateway.end("cancel", intent, None, key, None)
    assert peer.gateway.read(intent).ended == "voided"


def test_a_one_off_payment_that_needs_the_customer_is_declined_as_such(peer: Peer) -> None:
    """200 with an action required: nobody is there for it."""
    intent, method = an_intent(peer, WANTS_THE_CUSTOMER)
    assert peer.gateway.pay(intent, "k1", None, method) == Declined(Decline("authentication_required"), None)
    reading = peer.gateway.read(intent)
    assert (reading.in_flight, reading.waits_for_customer, reading.ended) == (True, True, None)
