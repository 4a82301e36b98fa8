"""Does what a Stripe account shows of itself lead to the right advice?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker.builders import START
from worker import account
from worker.checks import Check
from worker.inbox import OURS
from worker.settings import Settings
from worker.stripe_gateway import READ, Endpoint, Look

GOOD = Endpoint("https://dunning.example/base/webhooks/stripe", enabled=True, types=OURS)


def told(*endpoints: Endpoint, refused: dict[str, str] | None = None, retried: int = 0) -> list[Check]:
    """Return what is told of an account that shows this."""
    return list(account.told_by(Look(START, refused or {}, retried, endpoints)))


def events(*endpoints: Endpoint) -> list[Check]:
    """Return what is told of the events."""
    return [each for each in told(*endpoints) if each.name == "webhook events"]


def sending(types: Any, *, enabled: bool = True) -> Endpoint:
    """Our endpoint with these types."""
    return Endpoint(GOOD.url, enabled=enabled, types=frozenset(types))


@pytest.mark.parametrize(
    ("key", "ok", "detail", "advice"),
    [
        ("rk_live_canary", True, "a restricted key, live mode", "needs Write: Invoices, Subscriptions"),
        ("rk_test_canary", True, "a restricted key, test mode", "needs Write: Invoices, Subscriptions"),
        ("sk_test_canary", True, "a secret key, test mode", "restricted key can do less harm"),
        ("pk_test_canary", False, "of no kind that can be used", "begins with"),
        ("canary", False, "of no kind that can be used", "begins with"),
        (None, False, "none", "DUNNING_STRIPE_API_KEY"),
    ],
)
def test_the_key_is_told_by_its_kind_alone(key: str | None, ok: bool, detail: str, advice: str) -> None:
    """What it may write cannot be tried, so it is said."""
    values: Any = {"stripe_api_key": key}
    check = account.key(Settings(**values))
    assert (check.ok, check.detail) == (ok, detail)
    assert advice in str(check.advice)
    assert "canary" not in str(check)


def test_our_own_links_need_one_more_right() -> None:
    """They lead to the customer portal."""
    values: Any = {"stripe_api_key": "rk_test_1", "public_url": "https://dunning.example", "link_secret": "x" * 32}
    assert "Subscriptions, Customer portal;" in str(account.key(Settings(**values)).advice)


def test_every_event_that_is_listened_to_has_its_feature() -> None:
    """A new type without words for what dies without it is found here."""
    assert set(account.DEAD) == account.WANTED
    assert account.WANTED | {"invoice.payment_succeeded"} == OURS


def test_an_endpoint_that_sends_everything_leaves_nothing_to_do() -> None:
    """All that is listened to, or simply all."""
    for types in (OURS, {"*"}, OURS - {"invoice.payment_succeeded"}):
        assert all(check.ok and check.advice is None for check in told(sending(types)))


def test_a_missing_event_is_named_with_what_dies_without_it() -> None:
    """One line for each feature, all its events in it; it is no failure, the case goes on."""
    [check] = events(sending(OURS - {"customer.updated", "payment_method.attached"}))
    assert check.ok
    assert check.detail == "a new card is not charged at once: customer.updated, payment_method.attached not sent"
    assert check.advice == "let the endpoint listen to them"


def test_without_the_failed_payments_nothing_begins() -> None:
    """That one comes first, and is a failure."""
    first, *others = events(sending({"invoice.paid"}))
    assert (first.ok, first.detail) == (False, "no case opens by webhook: invoice.payment_failed not sent")
    assert others
    assert all(check.ok for check in others)


def test_two_endpoints_of_ours_send_together() -> None:
    """What one of them leaves out the other may send; one that is off sends nothing."""
    some = frozenset({"invoice.payment_failed", "invoice.paid"})
    assert events(sending(OURS - some), sending(some))[0].detail == "all that are listened to are sent"
    assert not events(sending(OURS - some), sending(some, enabled=False))[0].ok


def test_an_endpoint_that_is_off_is_a_failure_without_its_path() -> None:
    """A path or a query may hold a secret; the version of one that is on is told."""
    off = Endpoint("https://dunning.example/canary/webhooks/stripe?token=canary", enabled=False, types=OURS)
    check = told(off)[2]
    assert (check.name, check.ok) == ("webhook endpoint dunning.example", False)
    assert "canary" not in str(check)
    pinned = Endpoint(GOOD.url, enabled=True, types=OURS, api_version="2024-06-20")
    assert told(pinned)[2].detail == "enabled; API version 2024-06-20"


def test_other_peoples_endpoints_are_none_of_ours() -> None:
    """It is said how many there are, and that events come by catching up until then."""
    other = Endpoint("https://shop.example/hooks", enabled=False, types=frozenset())
    check = told(other)[-1]
    assert (check.name, check.ok, check.detail) == ("webhook endpoint", True, "none of 1 leads to /webhooks/stripe")
    assert "dunning sync" in str(check.advice)


@pytest.mark.parametrize("name", READ)
def test_a_missing_right_stops_what_needs_it(name: str) -> None:
    """Without the last two, events come by one way only; without any other nothing is recovered."""
    found = told(GOOD, refused={name: "the key lacks rak_thing_read (403)"})
    assert found[0].name == f"right to read {name}"
    assert found[0].ok == (name in {"events", "webhook_endpoints"})
    assert "rak_thing_read" in found[0].detail
    assert any(check.name == "Stripe's retries" for check in found) == (name != "invoices")
    assert any(check.name.startswith("webhook endpoint") for check in found) == (name != "webhook_endpoints")


def test_the_retries_of_stripe_are_told_with_what_to_do() -> None:
    """One engine only: what Stripe charges again is not charged by us."""
    check = told(GOOD, retried=3)[1]
    assert (check.name, check.ok) == ("Stripe's retries", True)
    assert check.detail.startswith("3 of the newest open invoices")
    assert "past due" in str(check.advice)
