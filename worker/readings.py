"""What do the provider's objects say? Plain dictionaries in, one ``Reading`` out; no network, no SDK.

Both shapes of an invoice are read (before and after API 2025-03-31), expanded or not; any field may be absent but the
few without which there is no invoice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schedules import Card, Decline
from schedules.regions import zone_of_address

IN_FLIGHT = ("processing", "requires_action", "requires_capture")


class UnknownShape(ValueError):
    """An object that is no invoice."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the provider shows of one invoice, its subscription and its card at this instant."""

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
    email: str | None
    link: str | None
    time_zone: str | None = None
    locale: str | None = None
    charged_at: datetime | None = None


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
    )


def last_intent(invoice: dict[str, Any]) -> dict[str, Any]:
    """Return the newest payment intent of an invoice: under ``payments`` since 2025-03-31, before on the invoice."""
    paid = (invoice.get("payments") or {}).get("data") or []
    intents = [_expanded(p.get("payment")).get("payment_intent") for p in paid] or [invoice.get("payment_intent")]
    found = [{"id": i, "latest_charge": True} if isinstance(i, str) else i for i in intents if i]
    return max(found, key=lambda intent: intent.get("created", 0), default={})


def reading_of(invoice: dict[str, Any]) -> Reading:
    """Return what an invoice object shows by itself, as an event carries it; what is not expanded stays unknown."""
    return read_objects(invoice, None)


def read_objects(invoice: dict[str, Any], intent: dict[str, Any] | None) -> Reading:
    """Return what an invoice and its last payment intent show; raise ``UnknownShape`` when they are none.

    Without an intent the invoice's own is taken, or the charge that old shapes carry beside it.
    """
    try:
        own = last_intent(invoice) or {"latest_charge": invoice.get("charge")}
        return _reading(invoice, own if intent is None else intent)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        msg = f"an invoice of an unknown shape: {type(error).__name__} {error}"[:200]
        raise UnknownShape(msg) from None


def charge_evidence(charge: dict[str, Any]) -> tuple[Card, Decline]:
    """Return the card of a failed charge object and why it was refused; raise ``UnknownShape`` when it is none."""
    try:
        outcome = charge.get("outcome") or {}
        reason = outcome.get("reason") if outcome.get("type") == "issuer_declined" else None
        codes = {"decline_code": reason, "code": charge.get("failure_code")}
        return card_of(_charged(charge)), decline_of(codes, outcome)
    except (AttributeError, TypeError) as error:
        msg = f"a charge of an unknown shape: {type(error).__name__} {error}"[:200]
        raise UnknownShape(msg) from None


def _expanded(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _subscription(invoice: dict[str, Any]) -> dict[str, Any]:
    parent = (invoice.get("parent") or {}).get("subscription_details") or {}
    return _expanded(parent.get("subscription") or invoice.get("subscription"))


def _method(invoice: dict[str, Any], charged: dict[str, Any]) -> dict[str, Any]:
    """Return the method that Stripe would charge for this invoice: the first present, not a cascade."""
    customer = _expanded(invoice.get("customer"))
    settings = customer.get("invoice_settings") or {}
    on_invoice, on_subscription = invoice.get("default_payment_method"), _subscription(invoice)
    found = on_invoice or on_subscription.get("default_payment_method") or settings.get("default_payment_method")
    return _expanded(found) or charged


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


def _reading(invoice: dict[str, Any], intent: dict[str, Any]) -> Reading:
    charge, customer = _expanded(intent.get("latest_charge")), _expanded(invoice.get("customer"))
    charged = _charged(charge)
    method = _method(invoice, charged)
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
    )


def _time_zone(customer: dict[str, Any], method: dict[str, Any]) -> str | None:
    """Return the customer's own zone, else that of the customer's address, else that of the method's."""
    own = (customer.get("metadata") or {}).get("time_zone")
    addresses = (customer.get("address"), _expanded(method.get("billing_details")).get("address"))
    zones = (_zone_at(_expanded(address), card_of(method).country) for address in addresses)
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
