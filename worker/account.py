"""Is the Stripe account set up as recovery needs it? Checks of its key and of what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from worker.checks import Check
from worker.inbox import OURS

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.stripe_gateway import Endpoint, Look

KEY = re.compile(r"(?P<kind>sk|rk)_(?P<mode>live|test)_")
KINDS = {"sk": "secret", "rk": "restricted"}
PATH = "/webhooks/stripe"
ALL = "*"
# Without these no case is opened, read or charged; without the others something comes late or stays unseen.
NEEDED = frozenset({"invoices", "payment_intents", "charges", "customers", "payment_methods", "subscriptions"})
OPENS = "invoice.payment_failed"
WANTED = OURS - {"invoice.payment_succeeded"}  # which never comes without invoice.paid
NEW_CARD = "a new card is not charged at once"
SELDOM = "a changed invoice is seen only before its next step"
ONE_OFF = "one-off payments that are marked open no case by webhook, or their end is seen late"
DEAD = {
    OPENS: "no case opens by webhook",
    "charge.failed": "charges by others do not count in a card's budget",
    "charge.dispute.created": "a dispute is not told",
    "charge.refunded": "a refund is not told",
    "customer.source.updated": NEW_CARD,
    "customer.subscription.deleted": "a customer who leaves is seen late",
    "customer.subscription.updated": "a pause or a coming end is seen late",
    "customer.updated": NEW_CARD,
    "invoice.finalized": SELDOM,
    "invoice.marked_uncollectible": SELDOM,
    "invoice.paid": "a payment by other means is seen late",
    "invoice.payment_action_required": "who must confirm with the bank is asked late",
    "invoice.updated": SELDOM,
    "invoice.voided": SELDOM,
    "mandate.updated": "a revoked debit mandate is seen late",
    "payment_intent.canceled": ONE_OFF,
    "payment_intent.payment_failed": ONE_OFF,
    "payment_intent.succeeded": ONE_OFF,
    "payment_method.attached": NEW_CARD,
    "payment_method.automatically_updated": "a card renewed by its network is not charged at once",
    "payment_method.detached": "a removed card is seen late",
    "payment_method.updated": NEW_CARD,
}


def key(settings: Settings) -> Check:
    """Tell what kind of key there is, and what it should be allowed to do beyond reading."""
    if settings.stripe_api_key is None:
        advice = "set DUNNING_STRIPE_API_KEY to a restricted key of the account; nothing runs without one"
        return Check("key", ok=False, detail="none", advice=advice)
    found = KEY.match(settings.stripe_api_key.get_secret_value())
    if found is None:
        advice = "DUNNING_STRIPE_API_KEY begins with rk_test_, rk_live_, sk_test_ or sk_live_"
        return Check("key", ok=False, detail="of no kind that can be used", advice=advice)
    detail = f"a {KINDS[found['kind']]} key, {found['mode']} mode"
    if found["kind"] == "sk":
        return Check("key", ok=True, detail=detail, advice="a restricted key can do less harm; README tells its rights")
    portal = ", Customer portal" if settings.public_url else ""
    rights = f"Invoices, Subscriptions{portal}; for one-off payments Payment Intents"
    advice = f"what it may write cannot be tried; live it needs Write: {rights}"
    return Check("key", ok=True, detail=detail, advice=advice)


def told_by(look: Look) -> Iterator[Check]:
    """Yield everything that a look at the account tells."""
    yield from _rights(look)
    if "invoices" not in look.refused:
        yield _retries(look)
    if "webhook_endpoints" not in look.refused:
        yield from _endpoints(look.endpoints)


def _rights(look: Look) -> Iterator[Check]:
    for name, why in look.refused.items():
        label = name.replace("_", " ").capitalize()
        advice = f"give the key Read on {label} in Stripe's dashboard, Developers, API keys"
        yield Check(f"right to read {name}", ok=name not in NEEDED, detail=why, advice=advice)
    if not look.refused:
        yield Check("rights", ok=True, detail="the key may read all that is needed")


def _retries(look: Look) -> Check:
    if not look.retried:
        return Check("Stripe's retries", ok=True, detail="none is planned for the open invoices")
    detail = f"{look.retried} of the newest open invoices will be charged by Stripe: they are observed, not charged"
    advice = (
        "turn retries off in Billing, Revenue recovery, and let the subscription be left past due, or set take_over "
        "in the policy to retry them here"
    )
    return Check("Stripe's retries", ok=True, detail=detail, advice=advice)


def _endpoints(endpoints: tuple[Endpoint, ...]) -> Iterator[Check]:
    """Tell of the endpoints that lead to our web role, and of what none of them sends."""
    ours = [each for each in endpoints if urlsplit(each.url).path.endswith(PATH)]
    if not ours:
        advice = f"add one that leads to https://…{PATH}; until then only `dunning sync` brings events"
        detail = f"none of {len(endpoints)} leads to {PATH}"
        yield Check("webhook endpoint", ok=True, detail=detail, advice=advice)
        return
    yield from map(_endpoint, ours)
    sent = frozenset[str]().union(*(each.types for each in ours if each.enabled))
    yield from _events(frozenset() if ALL in sent else WANTED - sent)


def _endpoint(each: Endpoint) -> Check:
    name = f"webhook endpoint {urlsplit(each.url).hostname}"  # its path or query may hold a secret
    if not each.enabled:
        advice = "enable it in Stripe's dashboard; `dunning sync` fetches what was missed"
        return Check(name, ok=False, detail="disabled: nothing is sent to it", advice=advice)
    version = each.api_version or "the account's"
    return Check(name, ok=True, detail=f"enabled; API version {version}")


def _events(unsent: frozenset[str]) -> Iterator[Check]:
    """Tell for each feature that is dead the events that would bring it to life."""
    for dead in dict.fromkeys(DEAD[name] for name in sorted(unsent, key=lambda name: (name != OPENS, name))):
        names = ", ".join(sorted(name for name in unsent if DEAD[name] == dead))
        advice = "let the endpoint listen to it" if "," not in names else "let the endpoint listen to them"
        yield Check("webhook events", ok=dead != DEAD[OPENS], detail=f"{dead}: {names} not sent", advice=advice)
    if not unsent:
        yield Check("webhook events", ok=True, detail="all that are listened to are sent")
