"""What do the practice bank's objects look like from outside? JSON in the shape Stripe gives them today.

Ids stand where Stripe shows ids; ``answers.expand`` replaces them on request.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from schedules.facts import Card, Decline
from worker.practice.records import JSON, Bill, Charged, Customer, Method, seconds

API_VERSION = "2026-10-28.endive"
DEBITS = ("us_bank_account", "sepa_debit", "bacs_debit")
OWN_ERROR_CODES = ("expired_card", "processing_error", "authentication_required", "incorrect_number")
NOWHERE = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}


def invoice(bill: Bill, customer: Customer) -> JSON:
    """Return the invoice object; its payments appear only when expanded."""
    paid = bill.payment.amount_minor if bill.status == "paid" else 0
    amount, created = bill.payment.amount_minor, seconds(bill.created)
    return {
        "id": bill.id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Practice Shop",
        "amount_due": amount,
        "amount_overpaid": 0,
        "amount_paid": paid,
        "amount_paid_off_stripe": 0,
        "amount_remaining": amount - paid,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 1,
        "attempted": True,
        "auto_advance": bill.status == "open" and bill.advancing,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None, "status": None},
        "billing_reason": "subscription_cycle" if bill.payment.subscription_id else "manual",
        "collection_method": "charge_automatically",
        "created": created,
        "currency": bill.payment.currency,
        "customer": customer.id,
        "customer_address": {**NOWHERE, "country": customer.country},
        "customer_email": customer.email,
        "customer_name": customer.name,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": created,
        "ending_balance": 0,
        "footer": None,
        "hosted_invoice_url": f"https://invoice.stripe.example/i/{bill.tail}",
        "invoice_pdf": f"https://invoice.stripe.example/i/{bill.tail}/pdf",
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "lines": {"object": "list", "data": [_line(bill)], "has_more": False, "url": f"/v1/invoices/{bill.id}/lines"},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": f"P-{bill.tail}",
        "on_behalf_of": None,
        "parent": _parent(bill),
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": created,
        "period_start": seconds(bill.created - timedelta(days=30)),
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": bill.status,
        "status_transitions": {
            "finalized_at": created,
            "marked_uncollectible_at": _closed(bill, "uncollectible"),
            "paid_at": _closed(bill, "paid"),
            "voided_at": _closed(bill, "void"),
        },
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "test_clock": None,
        "total": amount,
        "total_discount_amounts": [],
        "total_excluding_tax": amount,
        "total_taxes": [],
        "webhooks_delivered_at": created,
    }


def _closed(bill: Bill, status: str) -> int | None:
    return seconds(bill.closed_at) if bill.status == status else None


def _parent(bill: Bill) -> JSON | None:
    if bill.payment.subscription_id is None:
        return None
    details = {"metadata": {}, "subscription": bill.payment.subscription_id}
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def _line(bill: Bill) -> JSON:
    return {
        "id": f"il_{bill.tail}",
        "object": "line_item",
        "amount": bill.payment.amount_minor,
        "currency": bill.payment.currency,
        "description": "1 month of Practice Shop",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": bill.id,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"end": seconds(bill.created + timedelta(days=30)), "start": seconds(bill.created)},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 1,
        "subscription": bill.payment.subscription_id,
        "subtotal": bill.payment.amount_minor,
        "taxes": [],
    }


def invoice_payment(bill: Bill) -> JSON:
    """Return the one payment of an invoice: it ties the invoice to its payment intent."""
    paid = bill.status == "paid"
    status = "paid" if paid else "canceled" if bill.status == "void" else "open"
    return {
        "id": f"inpay_{bill.tail}",
        "object": "invoice_payment",
        "amount_paid": bill.payment.amount_minor if paid else None,
        "amount_requested": bill.payment.amount_minor,
        "created": seconds(bill.created),
        "currency": bill.payment.currency,
        "invoice": bill.id,
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": bill.intent_id, "type": "payment_intent"},
        "status": status,
        "status_transitions": {"canceled_at": _closed(bill, "void"), "paid_at": _closed(bill, "paid")},
    }


def payments_of(bill: Bill) -> JSON:
    """Return the list that ``expand=payments`` adds to an invoice."""
    url = f"/v1/invoices/{bill.id}/payments"
    return {"object": "list", "data": [invoice_payment(bill)], "has_more": False, "url": url}


def payment_intent(bill: Bill, method: Method) -> JSON:
    """Return the payment intent, with the error of the last refused charge."""
    last = bill.charges[-1]
    status = {"paid": "succeeded", "void": "canceled"}.get(bill.status, "requires_payment_method")
    return {
        "id": bill.intent_id,
        "object": "payment_intent",
        "amount": bill.payment.amount_minor,
        "amount_capturable": 0,
        "amount_received": bill.payment.amount_minor if bill.status == "paid" else 0,
        "application": None,
        "automatic_payment_methods": None,
        "canceled_at": _closed(bill, "void"),
        "cancellation_reason": "void_invoice" if bill.status == "void" and bill.invoiced else None,
        "capture_method": "automatic",
        "client_secret": f"{bill.intent_id}_secret_practice",
        "confirmation_method": "automatic",
        "created": seconds(bill.created),
        "currency": bill.payment.currency,
        "customer": bill.payment.customer_id,
        "description": "Subscription update" if bill.invoiced else "One-off payment",
        "last_payment_error": card_error(last, method) if last.decline else None,
        "latest_charge": last.id,
        "livemode": False,
        "metadata": {} if bill.invoiced else {"dunning": "recover"},
        "next_action": None,
        "payment_method": method.id if status == "succeeded" else None,
        "payment_method_options": {},
        "payment_method_types": [kind(last.card)],
        "processing": None,
        "setup_future_usage": "off_session",
        "status": status,
    }


def error_code(decline: Decline) -> str:
    """Return Stripe's error code: a few declines are codes of their own, all others are ``card_declined``."""
    return str(decline.code) if decline.code in OWN_ERROR_CODES else "card_declined"


def card_error(charged: Charged, method: Method) -> JSON:
    """Return the error that stands in a 402 and as ``last_payment_error``; absent codes are absent keys."""
    decline = charged.decline or Decline()
    own_code_only = decline.code in ("expired_card", "processing_error", "incorrect_number")
    told = {
        "advice_code": decline.advice_code,
        "decline_code": None if own_code_only else decline.code,
        "network_advice_code": decline.network_advice_code,
        "network_decline_code": decline.network_decline_code,
    }
    code = error_code(decline)
    return {
        "charge": charged.id,
        "code": code,
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
        "message": "Your card has expired." if code == "expired_card" else "Your card was declined.",
        "payment_method": payment_method(method),
        "type": "card_error",
        **{key: value for key, value in told.items() if value is not None},
    }


def charge(charged: Charged, bill: Bill) -> JSON:
    """Return one charge with its outcome."""
    decline, amount = charged.decline, bill.payment.amount_minor
    return {
        "id": charged.id,
        "object": "charge",
        "amount": amount,
        "amount_captured": 0 if decline else amount,
        "amount_refunded": 0,
        "application": None,
        "balance_transaction": None,
        "billing_details": {"address": NOWHERE, "email": None, "name": None, "phone": None, "tax_id": None},
        "captured": decline is None,
        "created": seconds(charged.at),
        "currency": bill.payment.currency,
        "customer": bill.payment.customer_id,
        "description": "Subscription update" if bill.invoiced else "One-off payment",
        "disputed": False,
        "failure_code": error_code(decline) if decline else None,
        "failure_message": "Your card was declined." if decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "outcome": _outcome(decline),
        "paid": decline is None,
        "payment_intent": bill.intent_id,
        "payment_method": charged.method_id,
        "payment_method_details": _charged_details(charged.card),
        "refunded": False,
        "status": "failed" if decline else "succeeded",
    }


def _outcome(decline: Decline | None) -> JSON:
    if decline is None:
        return _told(Decline(outcome_type="authorized"), "approved_by_network", "Payment complete.")
    blocked = decline.outcome_type == "blocked"
    status = "not_sent_to_network" if blocked else "declined_by_network"
    return _told(decline, status, "The bank did not return any further details with this decline.")


def _told(decline: Decline, network_status: str, message: str) -> JSON:
    return {
        "advice_code": decline.advice_code,
        "network_advice_code": decline.network_advice_code,
        "network_decline_code": decline.network_decline_code,
        "network_status": network_status,
        "reason": decline.outcome_reason or (decline.code if network_status == "declined_by_network" else None),
        "risk_level": "normal",
        "seller_message": message,
        "type": decline.outcome_type or "issuer_declined",
    }


def kind(card: Card) -> str:
    """Return the type of a payment method: a card, or the rail of a bank debit."""
    return card.brand if card.brand in DEBITS else "card"


def _last4(card: Card) -> str:
    if card.last4 is not None:
        return card.last4
    return f"{sum(ord(c) * 31**i for i, c in enumerate(card.fingerprint or '')) % 10000:04d}"


def _charged_details(card: Card) -> JSON:
    rail = kind(card)
    if rail != "card":
        return {rail: {"fingerprint": card.fingerprint, "last4": _last4(card)}, "type": rail}
    token = {"network_token": {"used": False}, "network": card.brand, "mandate": None, "wallet": None}
    return {"card": {**_card(card), **token, "three_d_secure": None}, "type": "card"}


def _card(card: Card) -> JSON:
    shown = {**asdict(card), "funding": card.funding or "unknown", "last4": _last4(card)}
    checks = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}
    return {**shown, "brand": card.brand or "unknown", "checks": checks}


def payment_method(method: Method) -> JSON:
    """Return a stored payment method."""
    rail = kind(method.card)
    if rail == "card":
        more = {"display_brand": method.card.brand, "generated_from": None, "networks": None, "wallet": None}
        details = {**_card(method.card), **more, "three_d_secure_usage": {"supported": True}}
    else:
        details = {"fingerprint": method.card.fingerprint, "last4": _last4(method.card)}
    return {
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {"address": NOWHERE, "email": None, "name": None, "phone": None, "tax_id": None},
        rail: details,
        "created": seconds(method.created),
        "customer": method.customer_id,
        "livemode": False,
        "metadata": {},
        "type": rail,
    }


def customer_object(customer: Customer) -> JSON:
    """Return a customer; the time zone stands in ``metadata`` when the merchant knows it."""
    settings = {"custom_fields": None, "default_payment_method": customer.default, "footer": None}
    return {
        "id": customer.id,
        "object": "customer",
        "address": {**NOWHERE, "country": customer.country},
        "balance": 0,
        "created": seconds(customer.created),
        "currency": customer.currency,
        "default_source": None,
        "delinquent": True,
        "description": None,
        "email": customer.email,
        "invoice_prefix": "PRACTICE",
        "invoice_settings": {**settings, "rendering_options": None},
        "livemode": False,
        "metadata": {"time_zone": customer.time_zone} if customer.time_zone else {},
        "name": customer.name,
        "next_invoice_sequence": 2,
        "phone": None,
        "preferred_locales": [customer.locale] if customer.locale else [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def subscription(bill: Bill, customer: Customer) -> JSON:
    """Return the subscription whose renewal failed."""
    status = "canceled" if bill.canceled_at else "active" if bill.status == "paid" else "past_due"
    start, renewed = seconds(customer.created), seconds(bill.created)
    return {
        "id": bill.payment.subscription_id,
        "object": "subscription",
        "application": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": start,
        "billing_mode": {"type": "flexible"},
        "billing_schedules": [],
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": seconds(bill.canceled_at),
        "cancellation_details": bill.cancellation,
        "collection_method": "charge_automatically",
        "created": start,
        "currency": bill.payment.currency,
        "customer": customer.id,
        "default_payment_method": bill.own_method,
        "default_source": None,
        "discounts": [],
        "ended_at": seconds(bill.canceled_at),
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [_item(bill, start, renewed)],
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={bill.payment.subscription_id}",
        },
        "latest_invoice": bill.id,
        "livemode": False,
        "metadata": {},
        "on_behalf_of": None,
        "pause_collection": pause(bill.paused),
        "schedule": None,
        "start_date": start,
        "status": status,
        "test_clock": None,
        "trial_end": None,
        "trial_start": None,
    }


def pause(behavior: str | None) -> JSON | None:
    """Return how the collection of a subscription is paused, or None while it is not."""
    return {"behavior": behavior, "resumes_at": None} if behavior else None


def _item(bill: Bill, start: int | None, renewed: int | None) -> JSON:
    return {
        "id": f"si_{bill.tail}",
        "object": "subscription_item",
        "created": start,
        "current_period_end": seconds(bill.created + timedelta(days=30)),
        "current_period_start": renewed,
        "discounts": [],
        "metadata": {},
        "price": _price(bill, start),
        "quantity": 1,
        "subscription": bill.payment.subscription_id,
        "tax_rates": [],
    }


def _price(bill: Bill, start: int | None) -> JSON:
    amount = bill.payment.amount_minor
    every_month = {"interval": "month", "interval_count": 1, "meter": None, "usage_type": "licensed"}
    return {
        "id": f"price_{bill.payment.currency}_{amount}",
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": start,
        "currency": bill.payment.currency,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": "prod_practice",
        "recurring": {**every_month, "trial_period_days": None},
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    }


def webhook_endpoint(url: str, types: frozenset[str] | None) -> JSON:
    """Return the endpoint that events are sent to, those of these types or all."""
    return {
        "id": "we_practice",
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": 0,
        "description": None,
        "enabled_events": sorted(types) if types else ["*"],
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": url,
    }


def account() -> JSON:
    """Return the merchant's own account."""
    return {
        "id": "acct_practice",
        "object": "account",
        "business_profile": {"name": "Practice Shop"},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "owner@shop.example",
        "payouts_enabled": True,
        "settings": {
            "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
            "card_payments": {"statement_descriptor_prefix": None},
            "dashboard": {"display_name": "Practice Shop", "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        "type": "standard",
    }


def portal_session(request_id: str, customer_id: str, asked: dict[str, str], at: datetime) -> JSON:
    """Return a session of the customer portal that leads straight to changing the card."""
    back = asked.get("flow_data[after_completion][redirect][return_url]")
    after = {"hosted_confirmation": None, "redirect": {"return_url": back} if back else None}
    others = dict.fromkeys(("subscription_cancel", "subscription_update", "subscription_update_confirm"))
    kind = asked.get("flow_data[after_completion][type]", "portal_homepage")
    tail = request_id.removeprefix("req_")
    return {
        "id": f"bps_{tail}",
        "object": "billing_portal.session",
        "configuration": "bpc_practice",
        "created": seconds(at),
        "customer": customer_id,
        "customer_account": None,
        "flow": {**others, "after_completion": {**after, "type": kind}, "type": asked["flow_data[type]"]},
        "livemode": False,
        "locale": None,
        "on_behalf_of": None,
        "return_url": asked.get("return_url"),
        "url": f"https://billing.stripe.example/p/session/{tail}",
    }
