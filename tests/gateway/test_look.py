"""Does the gateway see how an account is set up, and say which access it lacks?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.gateway.conftest import JSON, BankOf, CannedOf
from worker.clock import machine_now
from worker.practice.objects import webhook_endpoint
from worker.stripe_gateway import READ, Endpoint, NoAccess, NotNow, Refused, Unavailable, Unknown

EVERYTHING = ["invoice", "payment_intent", "charge", "customer", "payment_method", "subscription", "event", "webhook"]
OPEN: JSON = {"object": "invoice", "status": "open", "attempted": True, "next_payment_attempt": None}


def page(*data: JSON) -> tuple[int, JSON]:
    """A list as Stripe answers it."""
    return 200, {"object": "list", "data": list(data), "has_more": False, "url": "/v1/things"}


def test_a_good_key_may_read_everything_and_shows_the_clock(bank_of: BankOf) -> None:
    """Eight lists, nothing written; Stripe's clock is that of its answers, whatever day is practised."""
    bank = bank_of()
    seen = bank.gateway.look()
    assert abs(seen.at - machine_now()) < timedelta(seconds=10)
    assert (seen.refused, seen.retried, seen.endpoints) == ({}, 0, ())
    assert [each.path for each in bank.record.of_api()] == [f"/v1/{name}" for name in READ]
    assert bank.record.writes() == []


def test_the_endpoints_are_seen(bank_of: BankOf) -> None:
    """One that takes every event; where it leads, and that it is on."""
    bank = bank_of()
    bank.control("webhook", {"url": "http://127.0.0.1:9/webhooks/stripe", "secret": "whsec_1"})
    assert bank.gateway.look().endpoints == (
        Endpoint("http://127.0.0.1:9/webhooks/stripe", enabled=True, types=frozenset("*")),
    )


def test_an_endpoint_that_is_off_and_pinned_is_seen_as_such(canned_of: CannedOf) -> None:
    """Off, with two types, in the shape of its own version."""
    shown = webhook_endpoint("https://shop.example/hook", frozenset({"invoice.paid", "invoice.voided"}))
    pinned = {**shown, "status": "disabled", "api_version": "2024-06-20"}
    answers = [page()] * (len(READ) - 1)
    [seen] = canned_of(*answers, page(pinned)).gateway.look().endpoints
    types = frozenset({"invoice.paid", "invoice.voided"})
    assert seen == Endpoint("https://shop.example/hook", enabled=False, types=types, api_version="2024-06-20")


def test_invoices_that_stripe_retries_are_counted(canned_of: CannedOf) -> None:
    """One that was never charged waits for its first attempt: that is no retry."""
    retried, new = {**OPEN, "next_payment_attempt": 1}, {**OPEN, "attempted": False, "next_payment_attempt": 1}
    assert canned_of(page(OPEN, retried, new, retried), page()).gateway.look().retried == 2


def test_each_missing_right_is_named_and_the_rest_is_seen(bank_of: BankOf) -> None:
    """A restricted key without two rights: both are told as Stripe calls them."""
    bank = bank_of(key="rk_test_1")
    bank.control("access", {"missing": ["rak_charge_read", "rak_webhook_read"]})
    seen = bank.gateway.look()
    assert sorted(seen.refused) == ["charges", "webhook_endpoints"]
    assert seen.refused["charges"].startswith("the key lacks rak_charge_read (403): ")


def test_a_secret_key_has_every_right(bank_of: BankOf) -> None:
    """Only a restricted key can lack one."""
    bank = bank_of()
    bank.control("access", {"missing": ["rak_charge_read"]})
    assert bank.gateway.look().refused == {}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"revoked": True}, "the key is refused (401): AuthenticationError status=401 code=api_key_expired "),
        ({"missing": [f"rak_{name}_read" for name in EVERYTHING]}, "the key lacks rak_invoice_read (403): "),
        ({"newest": "2024-06-20"}, "the API version 2026-10-28.endive is refused (400): "),
    ],
)
def test_an_account_that_shows_nothing_says_why(bank_of: BankOf, wish: JSON, told: str) -> None:
    """A reading says the same, and so does everything else that asks; the key itself is not told."""
    bank = bank_of(key="rk_test_secretsecret")
    bank.control("access", wish)
    for ask in (bank.gateway.look, lambda: bank.gateway.read("in_1")):
        with pytest.raises(NoAccess) as refused:
            ask()
        assert str(refused.value).startswith(told)
        assert "secret" not in str(refused.value)
    bank.control("access", {})
    assert bank.gateway.look().refused == {}


@pytest.mark.parametrize("wish", [{"revoked": True}, {"missing": ["rak_invoice_write"]}, {"newest": "2024-06-20"}])
def test_a_charge_without_access_was_not_made(bank_of: BankOf, wish: JSON) -> None:
    """It says why; said of a repetition it says nothing of the request before it."""
    bank = bank_of(key="rk_test_1")
    bank.control("access", wish)
    outcome = bank.gateway.pay("in_1", "k1")
    assert isinstance(outcome, NotNow)
    assert outcome.why.startswith("the ")
    assert isinstance(bank.gateway.pay("in_1", "k1", again=True), Unknown)
    assert bank.charges == []


def test_a_403_without_a_right_is_no_access_too(canned_of: CannedOf) -> None:
    """An account that was disconnected: there is no right to name."""
    error: Any = {"type": "invalid_request_error", "code": "account_invalid", "message": "no access to acct_9"}
    with pytest.raises(NoAccess, match=r"the key has no right to this \(403\): .* code=account_invalid") as refused:
        canned_of((403, {"error": error})).gateway.read("in_1", "acct_9")
    assert "acct_9" not in str(refused.value)


def test_other_refusals_are_not_taken_for_missing_access(canned_of: CannedOf) -> None:
    """A 400 about the object concerns this object alone."""
    error: Any = {"type": "invalid_request_error", "message": "This invoice is a draft."}
    with pytest.raises(Refused) as refused:
        canned_of((400, {"error": error})).gateway.read("in_1")
    assert not isinstance(refused.value, NoAccess)


def test_a_provider_in_trouble_shows_nothing(canned_of: CannedOf) -> None:
    """Not a matter of the key."""
    with pytest.raises(Unavailable):
        canned_of((500, "<html>trouble</html>")).gateway.look()
