"""Does a policy keep every promise, and does every case come to an end?

``broken_promises`` judges one decision from the facts alone, by other means than deciding; the property tests put it
to random stories, and ``counterexamples`` to the calendars of one policy: every decline code, on cards and debits of
many places, on the days on which clocks change, months end and banks are closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle

from schedules.ahead import declined_again
from schedules.decide import next_step
from schedules.declines import RETRY_CLASSES, TABLE, DeclineClass, Row, Verdict, classify
from schedules.facts import Card, Decline, Facts, FailedPayment, PastAttempt, hours
from schedules.hours import Window, is_open
from schedules.places import COUNTRY_OF_ZONE, place_of
from schedules.policy import Policy
from schedules.steps import Charge, Close, Contact, Step, utc_text

WEEK = timedelta(days=7)

MOST_STEPS = 1000
# Where and when: a clock change, a 29th of February, a Christmas, a month's end; one zone, eleven, none known.
PLACES = (("DE", None), ("US", None), ("US", "America/Denver"), ("RU", None), ("BR", None), ("AE", None), (None, None))
STARTS = tuple(
    datetime(*day, tzinfo=UTC)
    for day in ((2026, 10, 24, 23), (2027, 3, 13, 4), (2027, 12, 23, 12), (2028, 2, 27, 3), (2028, 4, 28, 18))
)
# On what a code is read: a brand or debit of its table.
BRANDS = {
    "visa": ("visa",),
    "mastercard_de39": ("mastercard",),
    "mastercard_mac": ("mastercard",),
    "amex": ("amex",),
    "ach": ("us_bank_account",),
    "stripe_ach": ("us_bank_account",),
    "sepa": ("sepa_debit",),
    "stripe_sepa": ("sepa_debit",),
    "stripe_bacs": ("bacs_debit",),
}
OTHER_BRANDS = ("visa", "mastercard", "amex", "discover", "upi", "pix", "au_becs_debit", None)
FIELDS = {
    "mastercard_mac": "network_advice_code",
    "stripe_advice_code": "advice_code",
    "stripe_outcome_reason": "outcome_reason",
    "stripe_outcome_type": "outcome_type",
    **dict.fromkeys(("visa", "mastercard_de39", "amex", "ach", "sepa"), "network_decline_code"),
}


def sample_payments() -> Iterator[FailedPayment]:
    """Yield a failed payment for each row of the table of declines; places, days and funding take turns."""
    places, starts, fundings = cycle(PLACES), cycle(STARTS), cycle(("debit", "credit", "prepaid"))
    for row in TABLE.values():
        for brand in BRANDS.get(row.source, OTHER_BRANDS):
            country, zone = next(places)
            card = Card(f"fp_{row.source}_{row.code}", brand, next(fundings), country, 12, 2031)
            name = f"{row.source}:{row.code} on {brand or 'a card of no known brand'}"
            yield FailedPayment(name, "cus_1", None, 1000, "eur", next(starts), declined_with(row), card, zone)


def declined_with(row: Row) -> Decline:
    """Return a decline that shows the code of one row where it belongs."""
    decline = replace(Decline(), **{FIELDS.get(row.source, "code"): row.code})
    return replace(decline, outcome_type="blocked") if row.source == "stripe_outcome_reason" else decline


def counterexamples(payment: FailedPayment, policy: Policy) -> Iterator[str]:
    """Yield every promise that the payment's calendar breaks, as ``payment, instant: promise``."""
    facts = Facts(payment=payment, card=payment.card, uses=(payment.failed_at,))
    now = payment.failed_at
    for _ in range(MOST_STEPS):
        step = next_step(facts, policy, now)
        yield from (
            f"{payment.payment_id}, {utc_text(now)}: {why}" for why in broken_promises(facts, policy, now, step)
        )
        if isinstance(step, Close):
            return
        facts, now = declined_again(facts, step), step.at
    yield f"{payment.payment_id}: no end after {MOST_STEPS} steps"


def broken_promises(facts: Facts, policy: Policy, now: datetime, step: Step) -> Iterator[str]:
    """Yield each promise that the step, decided at ``now`` (UTC), breaks."""
    deadline = facts.payment.failed_at + timedelta(days=policy.deadline_days)
    if step.at < now:
        yield "a step in the past"
    if step.at > max(deadline, now):
        yield "a step after the deadline"
    if step.at >= deadline and isinstance(step, (Charge, Contact)):
        yield "a charge or a notice at the deadline or after it"
    if not step.reasons:
        yield "a step without a reason"
    if isinstance(step, Charge):
        yield from _broken_by_charge(facts, policy, step)
    if isinstance(step, Contact):
        yield from _broken_by_contact(facts, policy, now, step)


def _broken_by_charge(facts: Facts, policy: Policy, charge: Charge) -> Iterator[str]:
    card, refusals = facts.card, [(each, _verdict(each, policy)) for each in facts.refusals]
    same = [(each, meant) for each, meant in refusals if not each.card.differs(card)]
    place = place_of(card.country, facts.payment.time_zone, card.brand)
    if charge.attempt != len(facts.attempts) + 1:
        yield "a charge out of number"
    if any(meant.cause in ("consent", "deceased") for _, meant in refusals):
        yield "a charge without consent"
    if any(meant.decline_class is DeclineClass.NEVER for _, meant in same):
        yield "a charge of a card that is never to be charged again"
    if place.country in policy.excluded_countries:
        yield "a charge in an excluded country"
    if _over_budget(facts, policy, charge, [_at(each) for each, _ in same]):
        yield "a charge over a budget"
    if not _entered(facts):
        yield from _broken_by_retry(facts, policy, charge, same)
        if not any(is_open(charge.at, window, place) for window in _windows(policy, same, card)):
            yield "a charge in a closed window"


def _broken_by_retry(
    facts: Facts, policy: Policy, charge: Charge, same: list[tuple[FailedPayment | PastAttempt, Verdict]]
) -> Iterator[str]:
    """What a repetition on the same credential may break; one that an operator asked for keeps no ladder."""
    if not same:
        return
    meant = same[-1][1]
    if any(charge.at < _at(each) + told.wait for each, told in same):
        yield "a charge before the wait that was advised"
    if facts.asked_at is not None and facts.asked_at > facts.last_failure:
        return
    if meant.decline_class not in RETRY_CLASSES:
        yield f"a retry after {meant.decline_class}"
    if len(same) - 1 >= min(meant.retry_limit, policy.max_attempts):
        yield "one retry too many"


def _windows(policy: Policy, same: list[tuple[FailedPayment | PastAttempt, Verdict]], card: Card) -> list[Window]:
    """Return the windows of which one has to be open."""
    if not same:
        return [policy.windows["new_credential"]]
    meant = same[-1][1]
    if meant.decline_class is DeclineClass.RETRY_SOON and len(same) <= len(policy.gaps_hours["retry_soon"]):
        return [policy.windows["retry_soon"]]
    named = [policy.windows[meant.cause if meant.cause in ("funds", "limit") else "unexplained"]]
    payday = policy.payday_midnight and card.funding == "debit" and meant.cause == "funds"
    return [*named, policy.windows["payday"]] if payday else named


def _over_budget(facts: Facts, policy: Policy, charge: Charge, own: list[datetime]) -> bool:
    """Whether the charge would be one more than a limit in force allows."""
    for limit in policy.budgets.get((facts.card.brand or "").lower(), ()):
        uses = own if limit.per_case else facts.uses
        if limit.holds(charge.at) and sum(charge.at - use < hours(limit.hours) for use in uses) >= limit.attempts:
            return True
    return False


def _broken_by_contact(facts: Facts, policy: Policy, now: datetime, contact: Contact) -> Iterator[str]:
    zone = facts.payment.time_zone
    country = place_of(facts.card.country, None, facts.card.brand).country
    home = place_of(COUNTRY_OF_ZONE.get(zone or "", country), zone)
    if not is_open(contact.at, policy.windows["contact"], home):
        yield "a notice outside the customer's hours"
    if any(contact.at - at < hours(policy.cooldown_hours) for at in facts.customer_contacts):
        yield "a notice within the cool-down"
    if sum(contact.at - at < WEEK for at in set(facts.customer_contacts)) >= policy.contacts_per_week:
        yield "more notices in a week than the customer is to get"
    if any(_verdict(each, policy).cause == "deceased" for each in facts.refusals):
        yield "a notice after a death"
    early = not facts.contacted and contact.at < facts.payment.failed_at + timedelta(days=policy.silent_days)
    if early and isinstance(next_step(facts, replace(policy, ladder=()), now), Charge):
        yield "a notice while silence can help"


def _verdict(refused: FailedPayment | PastAttempt, policy: Policy) -> Verdict:
    return classify(refused.decline, refused.card.brand, policy.overrides)


def _at(refused: FailedPayment | PastAttempt) -> datetime:
    return refused.failed_at if isinstance(refused, FailedPayment) else refused.at


def _entered(facts: Facts) -> bool:
    """Whether the customer stored the card after the last refusal, and waits for the answer."""
    return facts.card_entered_at is not None and facts.card_entered_at > facts.last_failure
