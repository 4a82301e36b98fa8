"""What does Stripe say? The one door to the provider and the only import of ``stripe``.

A decline is an answer, not an exception. What cannot be known is ``Unknown``, and what was certainly not executed
(rate limit, lock) is ``NotNow``: neither is ever taken for a decline.

    GatewayError
    ├── Unavailable      the provider could not be read; ask again in minutes
    └── Refused          the provider will not answer this request as it stands
        ├── Gone         there is no such object, or no longer
        └── NoAccess     the key, its rights or our API version are refused, whatever is asked
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import requests
import stripe
from msgspec import json
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from schedules import Decline
from worker.readings import (
    Reading,
    UnknownShape,
    decline_of,
    ends_with,
    failed_method,
    is_intent,
    last_intent,
    read_intent,
    read_objects,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.settings import Settings

EXPAND = [
    "customer.invoice_settings.default_payment_method",
    "default_payment_method",
    "parent.subscription_details.subscription.default_payment_method",
    "payments.data.payment.payment_intent",
]
EXPAND_INTENT = ["customer.invoice_settings.default_payment_method", "latest_charge", "payment_method"]
EXPAND_SUBSCRIPTION = ["customer.invoice_settings.default_payment_method", "default_payment_method", "latest_invoice"]
PAY_TRIES = 3
MOST_CONNECTIONS = 64  # that are kept; more threads than that ask in vain for faster answers
MOST_CARDS = 10
MOST_LISTED, MOST_TYPES = 100, 20  # on one page of a list; of events in one request
API_VERSION = "2026-10-28.endive"  # that of the SDK we test with; a newer SDK brings another
PAUSED: Any = {"pause_collection": {"behavior": "keep_as_draft"}}
ENDED = ("canceled", "incomplete_expired")  # of a subscription
OVER = ("canceled", "succeeded")  # of a payment intent
REFUSED = (400, 401, 402, 403)
# Before the idempotency layer, or refused by it: no charge was made.
NOT_EXECUTED = (400, 401, 403, 404, 409, 429)
# Said of a repetition they say nothing of the request before it, which may be under way (key in use, locked object).
SAYS_NOTHING = (401, 403, 409, 429)
PERMISSION = re.compile(r"\brak_[a-z_]+")  # as Stripe names the right that a restricted key lacks
ONE: Any = {"limit": 1}
READ: dict[str, Any] = {  # what the worker and its doctor read, with the least that shows whether they may
    "invoices": {"status": "open", "limit": 100},
    "payment_intents": ONE,
    "charges": ONE,
    "customers": ONE,
    "payment_methods": ONE,
    "subscriptions": ONE,
    "events": ONE,
    "webhook_endpoints": {"limit": 100},
}


class GatewayError(Exception):
    """The provider gave no usable answer."""


class Unavailable(GatewayError):
    """The provider could not be reached or is overloaded; nothing was changed by a read."""


class Refused(GatewayError):
    """The provider refuses the request; a person has to look at the key, its rights or the object."""


class Gone(Refused):
    """There is no such object, or no longer: a subscription that has ended is not found."""


class NoAccess(Refused):
    """The key, one of its rights or our API version is refused; once that is mended everything goes on."""


@dataclass(frozen=True, slots=True)
class Paid:
    """The payment is made by this request."""


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint of the account; ``*`` among its types is all of them, no version is that of the account."""

    url: str
    enabled: bool
    types: frozenset[str]
    api_version: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What an account shows of its set-up: Stripe's clock, what the key may not read with the reason, the endpoints.

    ``retried`` counts the invoices that Stripe will charge again by itself, among the newest hundred that are open.
    """

    at: datetime
    refused: Mapping[str, str]
    retried: int
    endpoints: tuple[Endpoint, ...]


class Limiter(Protocol):
    """Says when a request may leave, and hears what came of it."""

    def wait(self, endpoint: str) -> int:
        """Return when one may leave, with how many failed in a row before it; raise ``Unavailable`` to hold it back."""

    def heard(self, endpoint: str, status: int | None, failures: int) -> None:
        """Take note of the status of an answer, or of none, with what ``wait`` had returned."""


def _session(api_base: str) -> requests.Session:
    """Return what keeps connections for all threads. Proxies are looked up once; the environment names no other key."""
    session = requests.Session()
    session.trust_env = False
    session.proxies.update(get_environ_proxies(api_base))
    session.mount(api_base, HTTPAdapter(pool_maxsize=MOST_CONNECTIONS))
    return session


class _Paced(stripe.RequestsClient):
    """Sends every request, each page and repetition too, when the limiter says so."""

    def __init__(self, limiter: Limiter, **transport: Any) -> None:
        super().__init__(**transport)
        self._limiter = limiter

    def request(self, method: str, url: str, *rest: Any, **more: Any) -> Any:
        """Send one request in its turn."""
        route = _route(method, url)
        failures = self._limiter.wait(route)
        try:
            answer = super().request(method, url, *rest, **more)
        except stripe.APIConnectionError:
            self._limiter.heard(route, None, failures)
            raise
        self._limiter.heard(route, answer[1], failures)
        return answer


def _route(method: str, url: str) -> str:
    """Name an endpoint: the method and the path without its ids, which are its every second part."""
    path = url.partition("/v1/")[2].partition("?")[0]
    return f"{method} {'/'.join(path.split('/')[::2])}"


class StripeGateway:
    """Reads and charges invoices and one-off payment intents through Stripe's SDK.

    With our keys, our time limits and no hidden retries.
    """

    def __init__(
        self,
        api_key: str,
        api_base: str,
        connect_seconds: float,
        read_seconds: float,
        limiter: Limiter | None = None,
    ) -> None:
        transport: Any = {"timeout": (connect_seconds, read_seconds), "session": _session(api_base)}
        http = _Paced(limiter, **transport) if limiter else stripe.RequestsClient(**transport)
        self._stripe = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            http_client=http,
            base_addresses={"api": api_base},
            max_network_retries=0,
        )

    @classmethod
    def from_settings(cls, settings: Settings, limiter: Limiter | None = None) -> StripeGateway:
        """Return the gateway of an installation; raise ``Refused`` when no key is configured."""
        if settings.stripe_api_key is None:
            msg = "DUNNING_STRIPE_API_KEY is not set: the worker cannot read invoices"
            raise Refused(msg)
        key = settings.stripe_api_key.get_secret_value()
        return cls(key, settings.stripe_api_base, settings.connect_seconds, settings.read_seconds, limiter)

    def read(
        self, payment_id: str, account: str | None = None, *, backups: bool = False, known: str | None = None
    ) -> Reading:
        """Return the invoice, or the payment intent without one, as it stands now.

        ``backups``: also the customer's cards that are nobody's default. ``known``: a refused charge whose evidence the
        caller has, and of which no more than the id has to be shown. Raises ``Unavailable`` or ``Refused``.
        """
        try:
            if is_intent(payment_id):
                one_off = self._one_off(payment_id, account)
                return read_intent(one_off, self._cards(one_off, account) if backups else ())
            invoice, intent = self._invoice(payment_id, account, known)
            return read_objects(invoice, intent, self._cards(invoice, account) if backups else ())
        except UnknownShape as error:
            raise Refused(str(error)) from None

    def _invoice(
        self, payment_id: str, account: str | None, known: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return an invoice with its last payment intent."""
        invoice = self._get("invoices", payment_id, expand=EXPAND, **_options(account))
        intent = last_intent(invoice)
        if known is not None and ends_with(known, invoice, intent):
            return invoice, {**intent, "latest_charge": {"id": known}}
        if intent.get("latest_charge") and intent.get("id"):
            intent = self._intent(intent["id"], ["latest_charge"], account)
        return invoice, intent

    def _one_off(self, intent_id: str, account: str | None) -> dict[str, Any]:
        """Return a payment intent with its method; the one that failed is read anew, its card may have changed."""
        intent = self._intent(intent_id, EXPAND_INTENT, account)
        failed = failed_method(intent)
        if failed and not intent.get("payment_method"):
            name = failed["id"] if isinstance(failed, dict) else failed
            with suppress(Gone):
                intent["payment_method"] = self._get("payment_methods", name, **_options(account))
        return intent

    def _intent(self, intent_id: str, expand: list[str], account: str | None) -> dict[str, Any]:
        return self._get("payment_intents", intent_id, expand=expand, **_options(account))

    def _cards(self, bill: dict[str, Any], account: str | None) -> list[dict[str, Any]]:
        """Return the cards that the customer of an invoice or intent stored, the newest first."""
        customer = bill.get("customer")
        name = customer.get("id") if isinstance(customer, dict) else customer
        path = ("customers", str(name), "payment_methods")
        return list(self._get(*path, type="card", limit=MOST_CARDS, **_options(account))["data"])

    def pay(
        self,
        payment_id: str,
        key: str,
        account: str | None = None,
        method_id: str | None = None,
        *,
        again: bool = False,
    ) -> Outcome:
        """Charge the invoice or payment intent off-session under our idempotency key, and say what happened.

        A request that got no answer is repeated with the same key, which Stripe replays instead of repeating.
        ``method_id``: another method than the one Stripe would take; an intent has none, so it is always named.
        ``again``: a request under this key left before.
        """
        retrying = Retrying(
            stop=stop_after_attempt(PAY_TRIES),
            wait=wait_exponential_jitter(multiplier=0.1, max=2),
            retry=retry_if_exception_type(stripe.APIConnectionError),
            reraise=True,
        )
        path = ("payment_intents", payment_id, "confirm") if is_intent(payment_id) else ("invoices", payment_id, "pay")
        method = {"payment_method": method_id} if method_id else {}
        try:
            paid = retrying(lambda: self._send("post", *path, off_session=True, **method, **_options(account, key)))
        except Unavailable as error:  # held back: that says nothing of a request that had left before
            again = again or retrying.statistics["attempt_number"] > 1
            return Unknown(str(error)) if again else NotNow(str(error))
        except stripe.StripeError as error:
            again = again or retrying.statistics["attempt_number"] > 1
            silent = error.http_status in SAYS_NOTHING or _no_access(error)
            return Unknown(_named(error)) if again and silent else _outcome(error)
        return _accepted(paid.data)

    def stop_retries(self, payment_id: str, account: str | None) -> None:
        """End the provider's own retries of an invoice; doing it again changes nothing."""
        self._ask("post", "invoices", payment_id, auto_advance=False, **_options(account))

    def prefer(self, method_id: str, subscription_id: str | None, account: str | None) -> None:
        """Charge a subscription's invoices on this method from now on; raise ``Unavailable`` or ``Refused``."""
        if subscription_id is not None:
            with suppress(Gone):
                change = {"default_payment_method": method_id}
                self._ask("post", "subscriptions", subscription_id, **change, **_options(account))

    def end(self, ending: str, payment_id: str, subscription_id: str | None, key: str, account: str | None) -> None:
        """Carry out the merchant's ending; doing it again changes nothing. Raises ``Unavailable`` or ``Refused``."""
        options = _options(account, key)
        if is_intent(payment_id):
            if ending in ("mark_uncollectible", "cancel"):
                self._cancel_intent(payment_id, options, account)
        elif ending == "mark_uncollectible":
            self._ask("post", "invoices", payment_id, "mark_uncollectible", **options)
        if ending == "cancel" and subscription_id is not None:
            with suppress(Gone):
                self._ask("delete", "subscriptions", subscription_id, **options)
        if ending == "pause" and subscription_id is not None:
            with suppress(Gone):
                self._pause(subscription_id, options, account)

    def _cancel_intent(self, intent_id: str, options: Any, account: str | None) -> None:
        """Have an intent charged by nobody any more. Stripe would answer 400 for one that is over."""
        with suppress(Gone):
            if self._intent(intent_id, [], account)["status"] not in OVER:
                self._ask("post", "payment_intents", intent_id, "cancel", **options)

    def _pause(self, subscription_id: str, options: Any, account: str | None) -> None:
        """Have no more invoices collected. One that has ended is left as it is: Stripe would answer 400 to a change."""
        found = self._get("subscriptions", subscription_id, **_options(account))
        if found["status"] not in ENDED:
            self._ask("post", "subscriptions", subscription_id, **PAUSED, **options)

    def look(self) -> Look:
        """Return how the account is set up; raise ``Unavailable``, or ``NoAccess`` when the key may read nothing."""
        found: dict[str, Any] = {}
        refused: dict[str, str] = {}
        for name, wanted in READ.items():
            try:
                found[name] = self._ask("get", name, **wanted)
            except NoAccess as error:
                refused[name] = str(error)
        if not found:
            raise NoAccess(next(iter(refused.values())))
        at = parsedate_to_datetime([*found.values()][-1].headers["date"])
        shown = {name: page.data["data"] for name, page in found.items()}
        retried = sum(_retried(each) for each in shown.get("invoices", ()))
        return Look(at, refused, retried, tuple(map(_endpoint, shown.get("webhook_endpoints", ()))))

    def portal(self, customer_id: str, return_url: str, account: str | None = None) -> str:
        """Return the address of a fresh portal session in which the customer changes the card.

        Raises ``Unavailable``, or ``Refused`` when the account's portal is not configured for it.
        """
        after = {"type": "redirect", "redirect": {"return_url": return_url}}
        flow = {"type": "payment_method_update", "after_completion": after}
        params = {"customer": customer_id, "return_url": return_url, "flow_data": flow}
        return str(self._ask("post", "billing_portal", "sessions", **params, **_options(account)).data["url"])

    def events(
        self, types: Iterable[str], since: datetime, until: datetime, account: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the events of these types made from ``since`` to before ``until``, whole seconds, the oldest first.

        Raises ``Unavailable`` or ``Refused``; Stripe lists the newest first, and knows the last thirty days.
        """
        wanted = sorted(types)
        made = {"gte": int(since.timestamp()), "lt": int(until.timestamp())}
        some = (wanted[begin : begin + MOST_TYPES] for begin in range(0, len(wanted), MOST_TYPES))
        found = [each for few in some for each in self._every("events", {"types": few, "created": made}, account)]
        found.reverse()  # of one second too
        return sorted(found, key=lambda event: int(event["created"]))

    def open_invoices(self, since: datetime, account: str | None = None) -> list[dict[str, Any]]:
        """Return the open invoices made since, of those that are charged automatically, the newest first.

        Raises ``Unavailable`` or ``Refused``.
        """
        params = {"status": "open", "collection_method": "charge_automatically"}
        made = {"created": {"gte": int(since.timestamp())}}
        return list(self._every("invoices", {**params, **made}, account))

    def subscriptions(self, account: str | None = None, *, ended: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the subscriptions of an account, the newest first, with method, customer and latest invoice.

        ``ended``: also those that are over. Raises ``Unavailable`` or ``Refused``.
        """
        every = {"status": "all"} if ended else {}
        return self._every(
            "subscriptions", {"expand": [f"data.{path}" for path in EXPAND_SUBSCRIPTION], **every}, account
        )

    def subscription(self, subscription_id: str, account: str | None = None) -> dict[str, Any]:
        """Return one subscription like those; raise ``Gone`` when the provider shows none."""
        return self._get("subscriptions", subscription_id, expand=EXPAND_SUBSCRIPTION, **_options(account))

    def _every(self, name: str, params: dict[str, Any], account: str | None) -> Iterator[dict[str, Any]]:
        """Yield everything that a list holds, page by page; what is added meanwhile stands before the first page."""
        after: dict[str, Any] = {"limit": MOST_LISTED}
        while True:
            page = self._get(name, **params, **after, **_options(account))
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            after["starting_after"] = page["data"][-1]["id"]

    def _get(self, *path: str, **params: Any) -> dict[str, Any]:
        """Return what there is, in plain dictionaries; the SDK's are ordered. Raises ``Unavailable`` or ``Refused``."""
        found: dict[str, Any] = json.decode(self._ask("get", *path, **params).body)
        return found

    def _ask(self, method: str, *path: str, **params: Any) -> Any:
        """Return the answer to a request that is no charge; raise ``Unavailable`` or ``Refused``."""
        try:
            return self._send(method, *path, **params)
        except (stripe.APIConnectionError, stripe.RateLimitError) as error:
            raise Unavailable(_named(error)) from None
        except stripe.StripeError as error:
            if error.http_status == HTTPStatus.NOT_FOUND:
                raise Gone(_named(error)) from None
            if _no_access(error):
                raise NoAccess(_named(error)) from None
            # What is no error object, such as the page of a proxy, has a status that the SDK sorts under no class.
            raise (Refused if error.http_status in REFUSED else Unavailable)(_named(error)) from None

    def _send(self, method: str, *path: str, **params: Any) -> Any:
        """Return an answer, parsed as JSON and no more: an object of the SDK for each part of it costs twice the call.

        Names and ids are the parts of the path; parameters and the SDK's options have names that do not meet.
        """
        return self._stripe.raw_request(method, "/".join(("/v1", *(quote(part, safe="") for part in path))), **params)


def _options(account: str | None, key: str | None = None) -> Any:
    return {k: v for k, v in (("stripe_account", account), ("idempotency_key", key)) if v is not None}


def _named(error: stripe.StripeError) -> str:
    """Name the error without its text, which may repeat what was sent."""
    code = error.code or (error.error.code if error.error else None)
    named = f"{type(error).__name__} status={error.http_status} code={code} request={error.request_id}"
    return ": ".join(filter(None, (_no_access(error), named)))


def _no_access(error: stripe.StripeError) -> str | None:
    """Say what of ours is refused: the key, a right or the version. The last two have no code, only a message."""
    text = error.user_message or ""
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        return "the key is refused (401)"
    if error.http_status == HTTPStatus.FORBIDDEN:
        right = PERMISSION.search(text)
        return f"the key lacks {right.group()} (403)" if right else "the key has no right to this (403)"
    if error.http_status == HTTPStatus.BAD_REQUEST and "api version" in text.lower():
        return f"the API version {API_VERSION} is refused (400)"
    return None


def _retried(invoice: dict[str, Any]) -> bool:
    """Whether the provider will charge again: before its first attempt every invoice waits for one."""
    return bool(invoice.get("attempted") and invoice.get("next_payment_attempt"))


def _endpoint(shown: dict[str, Any]) -> Endpoint:
    types = frozenset(shown["enabled_events"])
    return Endpoint(shown["url"], shown["status"] == "enabled", types, shown.get("api_version"))


def _accepted(paid: dict[str, Any]) -> Outcome:
    """Sort an answer to ``pay`` that is no error: an invoice, or a payment intent, as the request left it."""
    if paid.get("status") in ("paid", "succeeded"):
        return Paid()
    if paid.get("status") == "requires_action":
        return Declined(Decline(code="authentication_required"), _charge_id({"payment_intent": paid}))
    return Processing()


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
