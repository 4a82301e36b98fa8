"""What does Stripe say? The one door to the provider and the only import of ``stripe``.

A decline is an answer, not an exception. What cannot be known is ``Unknown``, and what was certainly not executed
(rate limit, lock) is ``NotNow``: neither is ever taken for a decline.

    GatewayError
    ├── Unavailable      the provider could not be read; ask again in minutes
    └── Refused          the provider will not answer this request as it stands (key, rights)
        └── Gone         there is no such object, or no longer
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import stripe
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from schedules import Decline
from worker.readings import Reading, UnknownShape, decline_of, last_intent, read_objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.settings import Settings

EXPAND = [
    "customer.invoice_settings.default_payment_method",
    "default_payment_method",
    "parent.subscription_details.subscription.default_payment_method",
    "payments.data.payment.payment_intent",
]
PAY_TRIES = 3
API_VERSION = "2026-10-28.endive"  # that of the SDK we test with; a newer SDK brings another
PAUSED: Any = {"pause_collection": {"behavior": "keep_as_draft"}}
ENDED = ("canceled", "incomplete_expired")  # of a subscription
REFUSED = (400, 401, 402, 403)
# Before the idempotency layer, or refused by it: no charge was made.
NOT_EXECUTED = (400, 401, 403, 404, 409, 429)
# Said of a repetition they say nothing of the request before it, which may be under way (key in use, locked object).
SAYS_NOTHING = (401, 403, 409, 429)


class GatewayError(Exception):
    """The provider gave no usable answer."""


class Unavailable(GatewayError):
    """The provider could not be reached or is overloaded; nothing was changed by a read."""


class Refused(GatewayError):
    """The provider refuses the request; a person has to look at the key, its rights or the object."""


class Gone(Refused):
    """There is no such object, or no longer: a subscription that has ended is not found."""


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
            api_key,
            stripe_version=API_VERSION,
            http_client=http,
            base_addresses={"api": api_base},
            max_network_retries=0,
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
        intent = last_intent(invoice)
        if intent.get("latest_charge") and intent.get("id"):
            intents = self._stripe.v1.payment_intents
            expand: Any = {"expand": ["latest_charge"]}
            intent = _plain(self._ask(lambda: intents.retrieve(intent["id"], expand, _options(account))))
        try:
            return read_objects(invoice, intent)
        except UnknownShape as error:
            raise Refused(str(error)) from None

    def pay(self, payment_id: str, key: str, account: str | None = None, *, again: bool = False) -> Outcome:
        """Charge the invoice off-session under our idempotency key, and say what happened.

        A request that got no answer is repeated with the same key, which Stripe replays instead of repeating.
        ``again``: a request under this key left before, in another call.
        """
        retrying = Retrying(
            stop=stop_after_attempt(PAY_TRIES),
            wait=wait_exponential_jitter(multiplier=0.1, max=2),
            retry=retry_if_exception_type(stripe.APIConnectionError),
            reraise=True,
        )
        params: Any = {"off_session": True}
        try:
            paid = retrying(lambda: self._stripe.v1.invoices.pay(payment_id, params, _options(account, key)))
        except stripe.StripeError as error:
            again = again or retrying.statistics["attempt_number"] > 1
            return Unknown(_named(error)) if again and error.http_status in SAYS_NOTHING else _outcome(error)
        return Paid() if _plain(paid).get("status") == "paid" else Processing()

    def end(self, ending: str, payment_id: str, subscription_id: str | None, key: str, account: str | None) -> None:
        """Carry out the merchant's ending; doing it again changes nothing. Raises ``Unavailable`` or ``Refused``."""
        options = _options(account, key)
        if ending == "mark_uncollectible":
            self._ask(lambda: self._stripe.v1.invoices.mark_uncollectible(payment_id, {}, options))
        if ending == "cancel" and subscription_id is not None:
            with suppress(Gone):
                self._ask(lambda: self._stripe.v1.subscriptions.cancel(subscription_id, {}, options))
        if ending == "pause" and subscription_id is not None:
            with suppress(Gone):
                self._pause(subscription_id, options, account)

    def _pause(self, subscription_id: str, options: Any, account: str | None) -> None:
        """Have no more invoices collected. One that has ended is left as it is: Stripe would answer 400 to a change."""
        subscriptions = self._stripe.v1.subscriptions
        found = _plain(self._ask(lambda: subscriptions.retrieve(subscription_id, {}, _options(account))))
        if found["status"] not in ENDED:
            self._ask(lambda: subscriptions.update(subscription_id, PAUSED, options))

    def _ask(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except (stripe.APIConnectionError, stripe.RateLimitError) as error:
            raise Unavailable(_named(error)) from None
        except stripe.StripeError as error:
            if error.http_status == HTTPStatus.NOT_FOUND:
                raise Gone(_named(error)) from None
            # What is no error object, such as the page of a proxy, has a status that the SDK sorts under no class.
            raise (Refused if error.http_status in REFUSED else Unavailable)(_named(error)) from None


def _options(account: str | None, key: str | None = None) -> Any:
    return {k: v for k, v in (("stripe_account", account), ("idempotency_key", key)) if v is not None}


def _plain(found: Any) -> dict[str, Any]:
    plain: dict[str, Any] = found.to_dict()
    return plain


def _named(error: stripe.StripeError) -> str:
    """Name the error without its text, which may repeat what was sent."""
    code = error.code or (error.error.code if error.error else None)
    return f"{type(error).__name__} status={error.http_status} code={code} request={error.request_id}"


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


def verify_event(body: bytes, signature: str, secrets: tuple[str, ...], now: datetime) -> None:
    """Check the signature of a webhook against any of the secrets; raise ``ValueError`` when none fits.

    Stripe's check bounds the past only: a timestamp more than the tolerance ahead is refused here.
    """
    if not secrets:
        msg = "DUNNING_STRIPE_WEBHOOK_SECRET is not set: no event can be verified"
        raise ValueError(msg)
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
