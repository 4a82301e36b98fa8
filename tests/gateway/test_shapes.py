"""Are both shapes of an invoice read, and is every field allowed to be missing?

Before API 2025-03-31 an invoice carried its charge, intent and subscription; since then they hang on ``payments``
and ``parent``. Events come in the shape of the account's own version, whatever the SDK asks for.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worker
from schedules import Card, Decline
from worker.inbox import failed_payment, parse_event
from worker.readings import Reading, card_of, instant, reading_of

JSON = dict[str, Any]
Paths = tuple[Any, ...]
CARD = {
    "brand": "mastercard",
    "checks": {"cvc_check": "pass"},
    "country": "GB",
    "exp_month": 8,
    "exp_year": 2027,
    "fingerprint": "AOB934RVNwzk6xtn",
    "funding": "debit",
    "last4": "4444",
}
METHOD = {
    "id": "pm_1PgafmB7WZ01zgkW6dKueIc5",
    "object": "payment_method",
    "card": {**CARD, "fingerprint": "ZZZ934RVNwzk6xtn", "brand": "visa", "funding": "credit"},
    "customer": "cus_QXg1o8vcGmoR32",
    "type": "card",
}
CHARGE = {
    "id": "ch_1PgafuB7WZ01zgkWXYmPNZs8",
    "object": "charge",
    "created": 1786000000,
    "disputed": False,
    "failure_code": "card_declined",
    "outcome": {
        "advice_code": "try_again_later",
        "network_advice_code": "26",
        "network_decline_code": "51",
        "network_status": "declined_by_network",
        "reason": "insufficient_funds",
        "type": "issuer_declined",
    },
    "paid": False,
    "payment_intent": "pi_1PgafyB7WZ01zgkWSjxsAJo3",
    "payment_method": "pm_1PgafeB7WZ01zgkWold00001",
    "payment_method_details": {"card": CARD, "type": "card"},
    "status": "failed",
}
INTENT = {
    "id": "pi_1PgafyB7WZ01zgkWSjxsAJo3",
    "object": "payment_intent",
    "created": 1785990000,
    "last_payment_error": {
        "charge": "ch_1PgafuB7WZ01zgkWXYmPNZs8",
        "code": "card_declined",
        "decline_code": "insufficient_funds",
        "type": "card_error",
    },
    "latest_charge": CHARGE,
    "status": "requires_payment_method",
}
CUSTOMER = {
    "id": "cus_QXg1o8vcGmoR32",
    "object": "customer",
    "email": "someone@customer.example",
    "invoice_settings": {"default_payment_method": METHOD},
}
SUBSCRIPTION = {
    "id": "sub_1PgafdB7WZ01zgkWlAwcLvpi",
    "object": "subscription",
    "cancellation_details": {"comment": None, "feedback": None, "reason": None},
    "default_payment_method": None,
    "status": "past_due",
}
BOTH: JSON = {
    "id": "in_1Pgc6tB7WZ01zgkWu9fdqL6I",
    "object": "invoice",
    "amount_due": 2000,
    "amount_paid": 500,
    "amount_remaining": 1500,
    "attempt_count": 1,
    "collection_method": "charge_automatically",
    "currency": "usd",
    "customer": CUSTOMER,
    "customer_email": "someone@customer.example",
    "default_payment_method": None,
    "hosted_invoice_url": "https://invoice.stripe.example/i/1",
    "next_payment_attempt": None,
    "status": "open",
}
OLD: JSON = {
    **BOTH,
    "charge": CHARGE,
    "paid": False,
    "payment_intent": INTENT,
    "subscription": SUBSCRIPTION,
}
NEW: JSON = {
    **BOTH,
    "parent": {"subscription_details": {"subscription": SUBSCRIPTION}, "type": "subscription_details"},
    "payments": {
        "object": "list",
        "data": [
            {
                "id": "inpay_1PgafyB7WZ01zgkW",
                "object": "invoice_payment",
                "payment": {"payment_intent": INTENT, "type": "payment_intent"},
                "status": "open",
            }
        ],
        "has_more": False,
    },
}
SHAPES = {"old": OLD, "new": NEW}
STORED = Card("ZZZ934RVNwzk6xtn", "visa", "credit", "GB", 8, 2027, "4444")
REFUSED = Card("AOB934RVNwzk6xtn", "mastercard", "debit", "GB", 8, 2027, "4444")
DECLINE = Decline("insufficient_funds", "try_again_later", "51", "26", "issuer_declined", None)
EXPECTED = Reading(
    payment_id="in_1Pgc6tB7WZ01zgkWu9fdqL6I",
    customer_id="cus_QXg1o8vcGmoR32",
    ended=None,
    amount_minor=1500,
    currency="usd",
    card=STORED,
    charged=REFUSED,
    method_id="pm_1PgafmB7WZ01zgkW6dKueIc5",
    decline=DECLINE,
    charge_id="ch_1PgafuB7WZ01zgkWXYmPNZs8",
    in_flight=False,
    waits_for_customer=False,
    retried_by_provider=False,
    email="someone@customer.example",
    link="https://invoice.stripe.example/i/1",
    charged_at=instant(1786000000),
    intent_id="pi_1PgafyB7WZ01zgkWSjxsAJo3",
)


def each_path(node: Any, above: Paths = ()) -> Iterator[Paths]:
    """Yield the way to every field, at any depth."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*above, key)
        yield from each_path(value, (*above, key))


def changed(shape: JSON, path: Paths, change: Callable[[Any, Any], None]) -> JSON:
    """Return a copy with one field changed."""
    found = copy.deepcopy(shape)
    holder: Any = found
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return found


def without(shape: JSON, *path: Any) -> JSON:
    """Return a copy without one field."""
    return changed(shape, path, lambda holder, key: holder.pop(key))


def having(shape: JSON, value: Any, *path: Any) -> JSON:
    """Return a copy with one field set."""
    return changed(shape, path, lambda holder, key: holder.__setitem__(key, value))


@pytest.mark.parametrize("shape", SHAPES)
def test_both_shapes_give_the_same_reading(shape: str) -> None:
    """Fully expanded, as the API answers us."""
    assert reading_of(SHAPES[shape]) == EXPECTED


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reading_over_http_asks_for_the_charge_where_only_its_id_is_shown(
    canned_of: Callable[..., Any], shape: str
) -> None:
    """The fifth level cannot be expanded: the intent is asked for once more, with its charge."""
    canned = canned_of((200, showing(shape)), (200, INTENT))
    assert canned.gateway.read("in_1Pgc6tB7WZ01zgkWu9fdqL6I") == EXPECTED
    assert [each.path for each in canned.record.of_api()] == [
        "/v1/invoices/in_1Pgc6tB7WZ01zgkWu9fdqL6I",
        "/v1/payment_intents/pi_1PgafyB7WZ01zgkWSjxsAJo3",
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refused_charge_that_is_known_is_shown_by_its_id(canned_of: Callable[..., Any], shape: str) -> None:
    """One request less; all that may differ from one reading to the next is shown all the same."""
    canned = canned_of((200, showing(shape)))
    known = canned.gateway.read(BOTH["id"], known=CHARGE["id"])
    evidence = ("charged", "charged_at", "decline")
    assert replace(known, **{name: getattr(EXPECTED, name) for name in evidence}) == EXPECTED
    assert len(canned.record.of_api()) == 1


@pytest.mark.parametrize(
    "doubt",
    [
        {"status": "processing"},
        {"status": "requires_action"},
        {"status": "succeeded"},
        {"latest_charge": "ch_another"},
        {"last_payment_error": None},
        {"last_payment_error": {"charge": "ch_another", "code": "card_declined", "type": "card_error"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_charge_that_may_have_changed_is_asked_for(
    canned_of: Callable[..., Any], shape: str, doubt: dict[str, Any]
) -> None:
    """Under way, taken, or not the one that was refused last."""
    canned = canned_of((200, showing(shape, **doubt)), (200, {**INTENT, **doubt, "latest_charge": CHARGE}))
    assert canned.gateway.read(BOTH["id"], known=CHARGE["id"]).charge_id == CHARGE["id"]
    assert len(canned.record.of_api()) == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_known_charge_is_asked_for_where_no_method_is_stored(canned_of: Callable[..., Any], shape: str) -> None:
    """Nothing else shows which card there is."""
    bare = having(showing(shape), None, "customer", "invoice_settings", "default_payment_method")
    canned = canned_of((200, bare), (200, INTENT))
    assert canned.gateway.read(BOTH["id"], known=CHARGE["id"]).card == REFUSED
    assert len(canned.record.of_api()) == 2


def showing(shape: str, **more: Any) -> JSON:
    """Return an invoice as Stripe shows it: of the charge of its intent only the id."""
    path = ("payment_intent",) if shape == "old" else ("payments", "data", 0, "payment", "payment_intent")
    return having(SHAPES[shape], {**INTENT, "latest_charge": CHARGE["id"], **more}, *path)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_field_but_the_invoices_own_three_may_be_missing_or_null(shape: str) -> None:
    """An invoice without id, currency or any amount is none; every other field may be absent, or null."""
    needed = {("id",), ("currency",), ("amount_remaining",)}
    for path in each_path(SHAPES[shape]):
        if path not in needed and not isinstance(path[-1], int):
            reading_of(without(SHAPES[shape], *path))
            reading_of(having(SHAPES[shape], None, *path))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_event_with_ids_instead_of_objects_opens_a_payment(shape: str) -> None:
    """Nothing is expanded in an event: subscription and customer are known, the evidence comes with the reading."""
    invoice = having(SHAPES[shape], CUSTOMER["id"], "customer")
    if shape == "old":
        invoice |= {"payment_intent": INTENT["id"], "charge": CHARGE["id"], "subscription": SUBSCRIPTION["id"]}
    else:
        del invoice["payments"]
        invoice["parent"]["subscription_details"]["subscription"] = SUBSCRIPTION["id"]
    value = {"id": "evt_1", "type": "invoice.payment_failed", "created": 1786000000, "data": {"object": invoice}}
    payment = failed_payment(parse_event(value))
    assert (payment.payment_id, payment.customer_id) == (BOTH["id"], CUSTOMER["id"])
    assert (payment.subscription_id, payment.amount_minor) == (SUBSCRIPTION["id"], 1500)
    assert (payment.decline, payment.card) == (Decline(), Card())


def test_an_old_event_with_its_charge_carries_the_evidence() -> None:
    """The charge of the old shape, expanded or not fetched again, tells card and codes."""
    told = reading_of({**without(OLD, "payment_intent"), "charge": CHARGE})
    assert (told.charged, told.charge_id) == (REFUSED, CHARGE["id"])
    assert told.decline == Decline("card_declined", "try_again_later", "51", "26", "issuer_declined", None)


def test_the_newest_of_several_payments_counts() -> None:
    """Partial payments: an invoice may have several intents."""
    later = {**INTENT, "id": "pi_later", "created": INTENT["created"] + 1, "latest_charge": None}  # type: ignore[operator]
    later["last_payment_error"] = {"code": "card_declined", "decline_code": "lost_card"}
    shape = copy.deepcopy(NEW)
    shape["payments"]["data"].insert(0, {"payment": {"type": "payment_intent", "payment_intent": later}})
    assert reading_of(shape).decline == Decline("lost_card")


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("invoice", ("default_payment_method",)),
        ("subscription", ("parent", "subscription_details", "subscription", "default_payment_method")),
    ],
)
def test_the_first_method_that_is_set_is_the_one_that_is_charged(place: str, path: Paths) -> None:
    """The invoice's own, then the subscription's, then the customer's."""
    own = {**METHOD, "id": f"pm_{place}"}
    assert reading_of(having(NEW, own, *path)).method_id == f"pm_{place}"


def test_a_customer_without_any_method_is_a_refusal_of_its_own() -> None:
    """Nothing was charged, since there was nothing to charge."""
    nothing = having(without(NEW, "payments"), None, "customer", "invoice_settings", "default_payment_method")
    assert reading_of(nothing).decline == Decline("no_payment_method")


@pytest.mark.parametrize(
    ("path", "value", "ended"),
    [
        (("status",), "paid", "paid"),
        (("status",), "void", "voided"),
        (("status",), "uncollectible", "voided"),
        (("parent", "subscription_details", "subscription", "status"), "canceled", "canceled"),
        (("payments", "data", 0, "payment", "payment_intent", "latest_charge", "disputed"), True, "disputed"),
    ],
)
def test_what_ended_an_invoice_is_read_from_its_objects(path: Paths, value: Any, ended: str) -> None:
    """Paid, written off, left or disputed."""
    assert reading_of(having(NEW, value, *path)).ended == ended


@pytest.mark.parametrize(("reason", "ended"), [("payment_failed", "lapsed"), ("cancellation_requested", "canceled")])
def test_a_subscription_that_ended_for_lack_of_payment_did_not_choose_to_leave(reason: str, ended: str) -> None:
    """The provider tells why a subscription was canceled."""
    gone = {**SUBSCRIPTION, "status": "canceled", "cancellation_details": {"reason": reason}}
    assert reading_of(having(NEW, gone, "parent", "subscription_details", "subscription")).ended == ended


@pytest.mark.parametrize(
    ("path", "value", "in_flight", "retried"),
    [
        (("payments", "data", 0, "payment", "payment_intent", "status"), "processing", True, False),
        (("next_payment_attempt",), 1786100000, False, True),
    ],
)
def test_a_charge_under_way_and_a_retry_of_the_providers_own_are_seen(
    path: Paths, value: Any, in_flight: bool, retried: bool
) -> None:
    """Both mean: not ours to charge now."""
    reading = reading_of(having(NEW, value, *path))
    assert (reading.in_flight, reading.retried_by_provider) == (in_flight, retried)


def zone_of(customer: JSON, billing: Any = None, country: str = "US") -> str | None:
    """Return the zone that is read of a customer whose card has this country and these billing details."""
    method = {**METHOD, "card": {**CARD, "country": country}, "billing_details": billing}
    settings = {"default_payment_method": method}
    return reading_of(having(NEW, {**CUSTOMER, "invoice_settings": settings, **customer}, "customer")).time_zone


def test_the_customers_own_zone_comes_before_any_address() -> None:
    """Then the customer's address, then that of the card."""
    own, home = {"metadata": {"time_zone": "America/Adak"}}, {"address": {"country": "US", "state": "CA"}}
    card = {"address": {"country": "US", "postal_code": "10001"}}
    assert zone_of({**own, **home}, card) == "America/Adak"
    assert zone_of({"metadata": {}, **home}, card) == "America/Los_Angeles"
    assert zone_of({"metadata": {}, "address": None}, card) == "America/New_York"
    assert zone_of({"address": {"country": "US", "state": None, "postal_code": None}}, card) == "America/New_York"


def test_an_address_without_a_country_lies_in_that_of_the_card() -> None:
    """Card forms that ask for a ZIP code only leave the country null."""
    told = {"address": {"country": None, "postal_code": "60601", "state": None}}
    assert zone_of({}, told) == "America/Chicago"
    assert zone_of({}, told, "DE") is None


@pytest.mark.parametrize("address", [None, {}, "1 Some Street", ["US"], {"country": 1, "state": {}, "postal_code": 5}])
def test_an_address_of_any_other_shape_tells_no_zone(address: Any) -> None:
    """Absent, null or of a wrong type: the rest is read all the same."""
    assert zone_of({"address": address}, {"address": address}) is None
    assert zone_of({"address": address}, address) is None


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (METHOD, STORED),
        ({"type": "card", "card": {}}, Card()),
        ({"type": "card"}, Card()),
        (
            {"type": "sepa_debit", "sepa_debit": {"country": "DE", "fingerprint": "F"}},
            Card("F", "sepa_debit", country="DE"),
        ),
        ({"type": "us_bank_account", "us_bank_account": {"fingerprint": "F"}}, Card("F", "us_bank_account")),
        ({"type": "bacs_debit", "bacs_debit": None}, Card(None, "bacs_debit")),
        ({"type": "link"}, Card(None, "link")),
        ({}, Card()),
        (None, Card()),
    ],
)
def test_the_card_of_a_method(method: JSON | None, expected: Card) -> None:
    """A card as it is, a debit with its rail as the brand, nothing where there is nothing."""
    assert card_of(method) == expected


def imports(path: Path) -> set[str]:
    """Return the first names of all modules that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_one_module_of_the_worker_imports_stripe() -> None:
    """The door: Stripe's words stop at it. The practice bank stands on the other side and has no SDK either."""
    home = Path(str(worker.__file__)).parent
    importing = [path.relative_to(home).as_posix() for path in home.rglob("*.py") if "stripe" in imports(path)]
    assert importing == ["stripe_gateway.py"]
