"""Why is the chance of a subscription high? What a group of its facts says, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from schedules.subscriber import LAST_PAYDAY, LONG, Subscriber, months, payday


def why_none(seen: Subscriber) -> str:
    """Return why no payment can lose this one."""
    if seen.next_charge is None or (seen.ends and seen.next_charge >= seen.ends):
        ends = f"renewal is switched off and ends on {seen.ends}" if seen.ends else "no next charge is planned"
        return f"nothing will be charged: {ends}"
    return f"no charge within {LONG} days: the next one is on {seen.next_charge}"


def words(seen: Subscriber, group: str) -> str | None:
    """Return what a group of facts says of this subscription in plain words; None for what is no reason."""
    return next((each for name, each in _phrases(seen) if name == group), None)


def _phrases(seen: Subscriber) -> Iterator[tuple[str, str]]:
    """Yield what can be said, each with the group of facts that it tells."""
    yield "method", f"charged by {seen.method}" if seen.method else "no payment method is stored"
    yield "paid", f"last paid on {seen.paid}" if seen.paid else "the latest invoice is not paid"
    yield "due", f"{seen.due(LONG)} charges within {LONG} days"
    yield "tenure", f"a customer for {months(seen)} months"
    yield "currency", f"charged in {seen.currency}"
    yield "signal", "told by the merchant: " + ", ".join(sorted(seen.signals))
    if seen.unpaid:
        yield "unpaid", f"a charge is unpaid since {seen.unpaid}"
        yield "cause", f"the bank's reason: {seen.cause}"
    if seen.declines:
        yield "declines", f"{seen.declines} failed renewals within a year"
        yield "recovered", f"{seen.recovered} of {seen.declines} failed renewals were paid later"
    if seen.next_charge:
        yield "payday", f"the next charge, on {seen.next_charge}, comes {_after_payday(seen)} payday"
    if expiry := _expiry(seen):
        yield "expires", expiry
    yield from _more(seen)


def _more(seen: Subscriber) -> Iterator[tuple[str, str]]:
    if seen.funding:
        yield "funding", f"a {seen.funding} card"
    if seen.relative is not None:
        yield "amount", f"{seen.relative:.1f} times the usual price"
    if seen.country:
        yield "country", f"in {seen.country}"
    if seen.ends:
        yield "renewal", f"renewal ends on {seen.ends}"
    if seen.mandate:
        yield "mandate", f"the mandate is {seen.mandate}"
    if not seen.other:
        yield "other", "no other method is stored"


def _expiry(seen: Subscriber) -> str | None:
    last = seen.valid_until - timedelta(days=1) if seen.valid_until else None
    match seen.expires(LONG):
        case "passed":
            return f"the card expired on {last}"
        case "before":
            return f"the card expires on {last}, before the next charge on {seen.next_charge}"
        case "soon":
            return f"the card expires on {last}, before a charge within {LONG} days"
    return None


def _after_payday(seen: Subscriber) -> str:
    days = payday(seen)
    return "on" if days == "0" else f"{days} days after" if days != str(LAST_PAYDAY) else "a week or more after"
