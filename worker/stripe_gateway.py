"""What does Stripe say? The one door to the provider and the only import of ``stripe``.

A decline is an answer, not an exception. What cannot be known is ``Unknown``, and what was certainly not executed
(rate limit, lock) is ``NotNow``: neither is ever taken for a decline.

    GatewayError
    ├── Unavailable      the provider could not be read; ask again in minutes
    └── Refused          the provider will not answer this request as it stands (key, rights, no such object)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import stripe
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from schedules import Card, Decline

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.settings import Settings

EXPAND = [
    "customer.invoice_settings.default_payment_method",
    "default_payment_method",
    "parent.subscription_details.subscription.default_payment_method",
    "payments.data.payment.payment_intent",
]
IN_FLIGHT = ("processing", "requires_action", "requires_capture")
PAY_TRIES = 3
FAULT = HTTPStatus.INTERNAL_SERVER_ERROR
# Before the idempotency layer, or refused by it: no charge was made.
NOT_EXECUTED = (400, 401, 403, 404, 409, 429)


class GatewayError(Exception):
    """The provider gave no usable answer."""


class Unavailable(GatewayError):
    """The provider could not be reached or is overloaded; nothing was changed by a read."""


class Refused(GatewayError):
    """The provider refuses the request; a person has to look at the key, its rights or the object."""


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
    retried_by_provider: bool
    email: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Paid:
    """The invoice is paid by this request."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The bank, or the provider for it, said no."""

    decline: Decline
    charge_id: str | None = None


@dataclass(frozen=True, slots=True)
class Processing:
    """Accepted, not yet decided (bank debits take days)."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody here knows whether the request was executed."""

    why: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """Certainly not executed: rate limit, locked object, or the object is in another state."""

    why: str


Outcome = Paid | Declined | Processing | Unknown | NotNow


class StripeGateway:
    """Reads and charges invoices through Stripe's SDK, with our keys, our time limits and no hidden retries."""

    def __init__(self, api_key: str, api_base: str, connect_seconds: float, read_seconds: float) -> None:
        http = stripe.RequestsClient(timeout=(connect_seconds, read_seconds))
        self._stripe = stripe.StripeClient(
            api_key, http_client=http, base_addresses={"api": api_base}, max_network_retries=0
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> StripeGateway:
        """Return the gateway of an installation; raise ``Refused`` when no key is configured."""
        if settings.stripe_api_key is None:
            msg = "DUNNING_STRIPE_API_KEY is not set: the worker cannot read invoices"
            raise Refused(msg)
        key = settings.stripe_api_key.get_secret_value()
        return cls(key, settings.stripe_api_base, settings.connect_seconds, settings.read_seconds)

    def read(self, payment_id: str, account: str | None = None) -> Reading:
        """Return the invoice as it stands now; raise ``Unavailable`` or ``Refused``."""
        invoices = self._stripe.v1.invoices
        invoice = _plain(self._ask(lambda: invoices.retrieve(payment_id, {"expand": EXPAND}, _options(account))))
        intent = _last_intent(invoice)
        if intent.get("latest_charge") and intent.get("id"):
            intents = self._stripe.v1.payment_intents
            expand: Any = {"expand": ["latest_charge"]}
            intent = _plain(self._ask(lambda: intents.retrieve(intent["id"], expand, _options(account))))
        return _reading(invoice, intent)

    def pay(self, payment_id: str, key: str, account: str | None = None) -> Outcome:
        """Charge the invoice off-session under our idempotency key, and say what happened.

        A request that got no answer is repeated with the same key, which Stripe replays instead of repeating.
        """
        retrying = Retrying(
            stop=stop_after_attempt(PAY_TRIES),
            wait=wait_exponential_jitter(initial=0.1, max=2),
            retry=retry_if_exception_type(stripe.APIConnectionError),
            reraise=True,
        )
        params: Any = {"off_session": True}
        try:
            paid = retrying(lambda: self._stripe.v1.invoices.pay(payment_id, params, _options(account, key)))
        except stripe.StripeError as error:
            return _outcome(error)
        return Paid() if _plain(paid).get("status") == "paid" else Processing()

    def end(self, ending: str, payment_id: str, subscription_id: str | None, key: str, account: str | None) -> None:
        """Carry out the merchant's ending; doing it again changes nothing. Raises ``Unavailable`` or ``Refused``."""
        options = _options(account, key)
        if ending == "mark_uncollectible":
            self._ask(lambda: self._stripe.v1.invoices.mark_uncollectible(payment_id, {}, options))
        if ending == "cancel" and subscription_id is not None:
            self._ask(lambda: self._stripe.v1.subscriptions.cancel(subscription_id, {}, options))

    def _ask(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except (stripe.APIConnectionError, stripe.RateLimitError) as error:
            raise Unavailable(_named(error)) from None
        except stripe.StripeError as error:
            if (error.http_status or FAULT) >= FAULT or error.http_status == HTTPStatus.CONFLICT:
                raise Unavailable(_named(error)) from None
            raise Refused(_named(error)) from None


def _options(account: str | None, key: str | None = None) -> Any:
    return {k: v for k, v in (("stripe_account", account), ("idempotency_key", key)) if v is not None}


def _plain(found: Any) -> dict[str, Any]:
    plain: dict[str, Any] = found.to_dict()
    return plain


def _named(error: stripe.StripeError) -> str:
    """Name the error without its text, which may repeat what was sent."""
    return f"{type(error).__name__} status={error.http_status} code={error.code} request={error.request_id}"


def _outcome(error: stripe.StripeError) -> Outcome:
    """Sort an error of ``pay``: only a card error is an answer of the bank."""
    if isinstance(error, stripe.CardError):
        body = error.error.to_dict() if error.error else {}
        return Declined(decline_of(body, {}), _charge_id(body))
    if isinstance(error, stripe.RateLimitError) or error.http_status in NOT_EXECUTED:
        return NotNow(_named(error))
    return Unknown(_named(error))


def _charge_id(error: dict[str, Any]) -> str | None:
    charge = error.get("charge") or (error.get("payment_intent") or {}).get("latest_charge")
    return charge.get("id") if isinstance(charge, dict) else charge


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


def _last_intent(invoice: dict[str, Any]) -> dict[str, Any]:
    """Return the newest payment intent of an invoice: under ``payments`` since 2025-03-31, before on the invoice."""
    paid = (invoice.get("payments") or {}).get("data") or []
    intents = [_expanded(p.get("payment")).get("payment_intent") for p in paid] or [invoice.get("payment_intent")]
    found = [{"id": i, "latest_charge": True} if isinstance(i, str) else i for i in intents if i]
    return max(found, key=lambda intent: intent.get("created", 0), default={})


def reading_of(invoice: dict[str, Any]) -> Reading:
    """Return what an invoice object shows by itself, as an event carries it; what is not expanded stays unknown."""
    intent = _last_intent(invoice)
    if not intent and _expanded(invoice.get("charge")):
        intent = {"latest_charge": invoice["charge"]}
    return _reading(invoice, intent)


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
        retried_by_provider=invoice.get("next_payment_attempt") is not None,
        email=customer.get("email") or invoice.get("customer_email"),
        link=invoice.get("hosted_invoice_url"),
    )


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


def verify_event(body: bytes, signature: str, secrets: tuple[str, ...], now: datetime) -> None:
    """Check the signature of a webhook against any of the secrets; raise ``ValueError`` when none fits.

    Stripe's check bounds the past only: a timestamp more than the tolerance ahead is refused here.
    """
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(
                body.decode("utf-8"), signature, secret, stripe.Webhook.DEFAULT_TOLERANCE
            )
        except (stripe.SignatureVerificationError, TypeError, ValueError):
            continue
        if _timestamp(signature) <= now.timestamp() + stripe.Webhook.DEFAULT_TOLERANCE:
            return
    msg = "the signature does not fit, or its time is more than 300 s away"
    raise ValueError(msg)


def _timestamp(signature: str) -> int:
    return int(next(part[2:] for part in signature.split(",") if part.startswith("t=")))


def instant(seconds: int) -> datetime:
    """Return Stripe's Unix seconds as an aware UTC instant."""
    return datetime.fromtimestamp(seconds, UTC)
