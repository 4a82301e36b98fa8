"""What do the provider's objects say? Plain dictionaries in, one ``Reading`` out; no network, no SDK.

Both shapes of an invoice are read (before and after API 2025-03-31), expanded or not; any field may be absent but the
few without which there is no invoice. A payment intent that no invoice asked for is read as if it were its own bill.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schedules import Card, Decline
from schedules.places import COUNTRY_OF_ZONE
from schedules.regions import zone_of_address
from worker.cards import Stored

PRICED = re.compile("^1 \N{MULTIPLICATION SIGN} | [(]at [^()]*[)]$")
IN_FLIGHT = ("processing", "requires_action", "requires_capture")


class UnknownShape(ValueError):
    """An object that is not what it should be."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the provider shows of one invoice or one-off payment intent, and of its cards, at this instant.

    ``card`` and ``method_id`` are what the provider would charge by itself, ``others`` what else the customer stored.
    ``product`` is what the payment is for, in the words of its lines.
    """

    payment_id: str
    customer_id: str
    ended: str | None
    amount_minor: int
    currency: str
    card: Card
    charged: Card
    method_id: str | None
    decline: Decline | None
    charge_id: str | None
    in_flight: bool
    waits_for_customer: bool
    retried_by_provider: bool
    email: str | None = field(repr=False)
    link: str | None = field(repr=False)
    time_zone: str | None = None
    locale: str | None = None
    charged_at: datetime | None = None
    intent_id: str | None = None
    others: tuple[Stored, ...] = ()
    product: str | None = None


@dataclass(frozen=True, slots=True)
class FailedCharge:
    """One refused charge as the provider shows it, whoever made it."""

    id: str
    at: datetime
    payment_id: str
    amount_minor: int
    currency: str
    card: Card
    decline: Decline


def decline_of(error: dict[str, Any], outcome: dict[str, Any]) -> Decline:
    """Return the evidence of a refusal from an error object and a charge's outcome; any field may be absent."""
    return Decline(
        code=error.get("decline_code") or error.get("code") or error.get("failure_code"),
        advice_code=outcome.get("advice_code") or error.get("advice_code"),
        network_decline_code=outcome.get("network_decline_code") or error.get("network_decline_code"),
        network_advice_code=outcome.get("network_advice_code") or error.get("network_advice_code"),
        outcome_type=outcome.get("type"),
        outcome_reason=outcome.get("reason") if outcome.get("type") == "blocked" else None,
    )


def card_of(method: dict[str, Any] | None) -> Card:
    """Return the card of a payment method; of a bank debit its rail as the brand; empty when there is none."""
    method = method or {}
    kind = method.get("type") or "card"
    details = method.get(kind) or {}
    return Card(
        fingerprint=details.get("fingerprint"),
        brand=details.get("brand") or (kind if kind != "card" else None),
        funding=details.get("funding"),
        country=details.get("country"),
        exp_month=details.get("exp_month"),
        exp_year=details.get("exp_year"),
        last4=details.get("last4"),
    )


def last_intent(invoice: dict[str, Any]) -> dict[str, Any]:
    """Return the newest payment intent of an invoice: under ``payments`` since 2025-03-31, before on the invoice."""
    paid = (invoice.get("payments") or {}).get("data") or []
    intents = [expanded(p.get("payment")).get("payment_intent") for p in paid] or [invoice.get("payment_intent")]
    found = [{"id": i, "latest_charge": True} if isinstance(i, str) else i for i in intents if i]
    return max(found, key=lambda intent: intent.get("created", 0), default={})


def reading_of(invoice: dict[str, Any]) -> Reading:
    """Return what an invoice object shows by itself, as an event carries it; what is not expanded stays unknown."""
    return read_objects(invoice, None)


def read_objects(
    invoice: dict[str, Any], intent: dict[str, Any] | None, methods: Sequence[dict[str, Any]] = ()
) -> Reading:
    """Return what an invoice and its last payment intent show; raise ``UnknownShape`` when they are none.

    Without an intent the invoice's own is taken, or the charge that old shapes carry beside it. ``methods`` are all
    that the customer stored, where somebody asked for them.
    """
    with shape("an invoice"):
        own = last_intent(invoice) or {"latest_charge": invoice.get("charge")}
        intent = own if intent is None else intent
        return _reading(invoice, intent, _methods(invoice, intent), methods)


def read_intent(intent: dict[str, Any], methods: Sequence[dict[str, Any]] = ()) -> Reading:
    """Return what a payment intent without an invoice shows, as an event carries it or expanded.

    Charged is the customer's default method, else the one of the intent. Raises ``UnknownShape`` when it is none.
    """
    with shape("a payment intent"):
        default = _settings(intent).get("default_payment_method")
        bill = {
            **intent,
            "status": _billed(intent),
            "amount_remaining": intent["amount"] - (intent.get("amount_received") or 0),
            "customer_email": intent.get("receipt_email"),
            "lines": {"data": [{"description": intent.get("description")}]},
        }
        return _reading(bill, intent, _distinct(default, _own_method(intent)), methods)


def is_intent(payment_id: str) -> bool:
    """Whether this is the id of a payment intent, and not of an invoice."""
    return payment_id.startswith("pi_")


def is_marked(intent: Mapping[str, Any]) -> bool:
    """Whether the merchant wants this payment intent recovered; never one that an invoice asked for."""
    return expanded(intent.get("metadata")).get("dunning") == "recover" and not intent.get("invoice")


def ends_with(charge_id: str, invoice: dict[str, Any], intent: dict[str, Any]) -> bool:
    """Whether an intent waits for another method since this charge, its last, was refused: that can change no more.

    A refused charge is never disputed. Only where no method is stored has the charge itself to show which it was.
    """
    error = expanded(intent.get("last_payment_error"))
    last = intent.get("status"), intent.get("latest_charge"), error.get("charge")
    return last == ("requires_payment_method", charge_id, charge_id) and bool(_methods(invoice, {}))


def failed_method(intent: dict[str, Any]) -> Any:
    """Return the method that failed, by its id or expanded: an intent that was refused shows no other."""
    return expanded(intent.get("last_payment_error")).get("payment_method")


def charge_evidence(charge: dict[str, Any]) -> tuple[Card, Decline]:
    """Return the card of a failed charge object and why it was refused; raise ``UnknownShape`` when it is none."""
    with shape("a charge"):
        outcome = charge.get("outcome") or {}
        reason = outcome.get("reason") if outcome.get("type") == "issuer_declined" else None
        codes = {"decline_code": reason, "code": charge.get("failure_code")}
        return card_of(_charged(charge)), decline_of(codes, outcome)


@contextmanager
def shape(what: str) -> Iterator[None]:
    """Turn whatever goes wrong in reading an object into ``UnknownShape``."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        msg = f"{what} of an unknown shape: {type(error).__name__} {error}"[:200]
        raise UnknownShape(msg) from None


def expanded(value: Any) -> dict[str, Any]:
    """Return an object that is shown whole; an empty one for a mere id, or nothing."""
    return value if isinstance(value, dict) else {}


def _subscription(invoice: dict[str, Any]) -> dict[str, Any]:
    parent = (invoice.get("parent") or {}).get("subscription_details") or {}
    return expanded(parent.get("subscription") or invoice.get("subscription"))


def _settings(holder: dict[str, Any]) -> dict[str, Any]:
    return expanded(holder.get("customer")).get("invoice_settings") or {}


def _methods(invoice: dict[str, Any], intent: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the methods on the levels where Stripe looks, in its order; what the charge shows when there are none."""
    levels = (invoice, _subscription(invoice), _settings(invoice))
    found = _distinct(*(level.get("default_payment_method") for level in levels))
    return found or _distinct(_charged(expanded(intent.get("latest_charge"))))


def _distinct(*methods: Any) -> list[dict[str, Any]]:
    """Return the methods that are shown, in order, each once."""
    found = [method for method in map(expanded, methods) if method]
    different = {method["id"]: method for method in found if method.get("id")}
    return [*different.values()] or found[:1]


def _own_method(intent: dict[str, Any]) -> dict[str, Any]:
    """Return the method of an intent, after a refusal the one that was refused; none that its customer took away."""
    method = expanded(intent.get("payment_method") or failed_method(intent))
    return {} if "customer" in method and method["customer"] is None else method


def _billed(intent: dict[str, Any]) -> str:
    """Return the status of an intent as that of an invoice; one that is no longer marked is handed back."""
    status = {"succeeded": "paid", "canceled": "void"}.get(str(intent.get("status")))
    return status or ("open" if is_marked(intent) else "void")


def _charged(charge: dict[str, Any]) -> dict[str, Any]:
    """Return the method of a charge in the shape of a payment method; empty when the charge does not show it."""
    details = charge.get("payment_method_details")
    return {**details, "id": charge.get("payment_method")} if details else {}


def _ended(invoice: dict[str, Any], charge: dict[str, Any]) -> str | None:
    """Return why nothing is left to recover, or None while the invoice is open."""
    if charge.get("disputed"):
        return "disputed"
    if invoice.get("status") == "paid":
        return "paid"
    subscription = _subscription(invoice)
    if subscription.get("status") == "canceled":
        reason = (subscription.get("cancellation_details") or {}).get("reason")
        return {"payment_failed": "lapsed", "payment_disputed": "disputed"}.get(str(reason), "canceled")
    return "voided" if invoice.get("status") in ("void", "uncollectible", "deleted") else None


def _reading(
    invoice: dict[str, Any],
    intent: dict[str, Any],
    stored: Sequence[dict[str, Any]],
    methods: Sequence[dict[str, Any]],
) -> Reading:
    charge, customer = expanded(intent.get("latest_charge")), expanded(invoice.get("customer"))
    charged = _charged(charge) or expanded(failed_method(intent))
    method, *defaults = stored or [{}]
    levels = {each.get("id") for each in (method, *defaults)}
    backups = (each for each in methods if each["id"] not in levels)
    return Reading(
        payment_id=invoice["id"],
        customer_id=customer.get("id") or str(invoice.get("customer")),
        ended=_ended(invoice, charge),
        amount_minor=invoice["amount_remaining"],
        currency=invoice["currency"],
        card=card_of(method),
        charged=card_of(charged or method),
        method_id=method.get("id"),
        decline=_refusal(invoice, intent, charge, method),
        charge_id=charge.get("id"),
        in_flight=intent.get("status") in IN_FLIGHT,
        waits_for_customer=intent.get("status") == "requires_action",
        retried_by_provider=invoice.get("next_payment_attempt") is not None,
        email=customer.get("email") or invoice.get("customer_email"),
        link=invoice.get("hosted_invoice_url"),
        time_zone=_time_zone(customer, method),
        locale=next(iter(customer.get("preferred_locales") or ()), None),
        charged_at=instant(charge["created"]) if charge.get("created") is not None else None,
        intent_id=intent.get("id"),
        others=(
            *(Stored(each["id"], card_of(each)) for each in defaults),
            *(Stored(each["id"], card_of(each), backup=True) for each in backups),
        ),
        product=_product(expanded(invoice.get("lines")).get("data")),
    )


def _product(lines: Any) -> str | None:
    """Return what the lines of an invoice are for, without the number and the price that Stripe writes around it."""
    shown = (line.get("description") for line in map(expanded, lines if isinstance(lines, list) else ()))
    names = (PRICED.sub("", each).strip() for each in shown if isinstance(each, str))
    return ", ".join(dict.fromkeys(filter(None, names))) or None


def _time_zone(customer: dict[str, Any], method: dict[str, Any]) -> str | None:
    """Return the customer's own zone, else that of the customer's address, else that of the method's."""
    written = (customer.get("metadata") or {}).get("time_zone")
    own = written if isinstance(written, str) and written in COUNTRY_OF_ZONE else None
    addresses = (customer.get("address"), expanded(method.get("billing_details")).get("address"))
    zones = (_zone_at(expanded(address), card_of(method).country) for address in addresses)
    return own or next(filter(None, zones), None)


def _zone_at(address: dict[str, Any], country: str | None) -> str | None:
    """Return the zone of an address, in the card's ``country`` when it names none: a card form may ask for a ZIP."""
    told = {key: value for key, value in address.items() if value and isinstance(value, str)}
    return zone_of_address(told.get("country", country), told.get("state"), told.get("postal_code"))


def _refusal(
    invoice: dict[str, Any], intent: dict[str, Any], charge: dict[str, Any], method: dict[str, Any]
) -> Decline | None:
    """Return why the last charge failed; a customer without any method is a refusal of its own."""
    failed = {"code": charge.get("failure_code")} if charge.get("status") == "failed" else {}
    error = intent.get("last_payment_error") or failed
    if error:
        return decline_of(error, charge.get("outcome") or {})
    missing = not method and isinstance(invoice.get("customer"), dict)
    return Decline(code="no_payment_method") if missing else None


def instant(seconds: int) -> datetime:
    """Return Stripe's Unix seconds as an aware UTC instant."""
    return datetime.fromtimestamp(seconds, UTC)
