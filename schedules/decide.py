"""What happens next to an unpaid invoice, and why then? The one decision, as a pure function.

``next_step`` asks from the most final question to the least: has it ended, is the reading fresh, is the time up,
what does the decline mean, when may a charge go, has silence stopped helping. Every instant is moved forward only,
and asking again at the planned instant with the same facts gives the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256

from schedules.budgets import free_from
from schedules.declines import DeclineClass, Verdict, classify
from schedules.facts import Facts, hours, utc
from schedules.hours import Window, next_open
from schedules.paydays import nearest_payday
from schedules.places import COUNTRY_OF_ZONE, Place, place_of
from schedules.policy import Policy
from schedules.steps import Charge, Close, Contact, Refresh, Step, Wait, utc_text

OUTCOMES = {"paid": "recovered", "canceled": "canceled", "voided": "released", "disputed": "released", "lapsed": "lost"}
PAID_INTO = ("debit", "prepaid")  # what salary arrives on; a credit card has no payday
RETRIED = (DeclineClass.RETRY_LATER, DeclineClass.RETRY_SOON)


@dataclass(frozen=True, slots=True)
class _Case:
    """The arguments of one decision and what follows from them at once."""

    facts: Facts
    policy: Policy
    now: datetime
    verdict: Verdict

    @property
    def deadline(self) -> datetime:
        return self.facts.payment.failed_at + timedelta(days=self.policy.deadline_days)

    @property
    def read(self) -> datetime:
        """The last reading: what it showed counts from then on, so that asking again later moves nothing."""
        return self.facts.refreshed_at or self.now

    @property
    def why(self) -> tuple[str, ...]:
        """The reasons that every step of this case shares."""
        unknown = tuple(f"unknown: {code}" for code in self.verdict.unknown)
        return (f"class: {self.verdict.decline_class}", *(f"evidence: {e}" for e in self.verdict.evidence), *unknown)

    def ever(self, cause: str) -> bool:
        """Whether any refusal of the case had this cause: some bind every card of the customer."""
        verdicts = (classify(r.decline, r.card.brand, self.policy.overrides) for r in self.facts.refusals)
        return any(verdict.cause == cause for verdict in verdicts)


def next_step(facts: Facts, policy: Policy, now: datetime) -> Step:
    """Return what to do next about the case, at which instant (never before ``now``, UTC) and for which reasons.

    Raises ``ValueError`` when ``now`` has no time zone.
    """
    refused = facts.refusal
    case = _Case(facts, policy, utc(now), classify(refused.decline, refused.card.brand, policy.overrides))
    return _ended(case) or _refresh(case) or _over(case) or _earliest(case)


def _ended(case: _Case) -> Step | None:
    """Does the provider say that nothing is left to recover?"""
    ended = case.facts.ended
    return None if ended is None else Close(case.now, OUTCOMES[ended], (f"ended: {ended}",))


def _over(case: _Case) -> Step | None:
    """Is the time up, or the case in the hands of a person? Never said on an old reading."""
    if case.now >= case.deadline:
        return Close(case.now, _ending(case), (*case.why, f"deadline: {case.policy.deadline_days} days are over"))
    if case.facts.paused:
        return Wait(case.deadline, ("paused: by an operator",))
    return None


def _ending(case: _Case) -> str:
    return "released" if case.policy.ending == "release" else "lost"


def _refresh(case: _Case) -> Step | None:
    """Has the card been read since a bank last said no? Nothing else is decided on an old reading."""
    read, failed = case.facts.refreshed_at, case.facts.last_failure
    if read is None or read < failed:
        return Refresh(max(case.now, failed), (*case.why, "refresh: the card is read again after every failure"))
    return None


def _earliest(case: _Case) -> Step:
    """Return the first of the steps that are still possible before the deadline."""
    if case.verdict.decline_class is DeclineClass.MERCHANT_FIX:
        return Close(case.now, "released", (*case.why, "merchant_fix: a person of the merchant has to look"))
    if case.ever("deceased"):
        return Close(case.now, "released", (*case.why, "deceased: no charge and no contact"))
    charge, ruled_out = _charge(case)
    steps = [charge, _look_again(case, charge), _contact(case, charge, ruled_out)]
    possible = [step for step in steps if step is not None and step.at < case.deadline]
    why = (*case.why, *ruled_out, "deadline: nothing is left before it")
    return min(possible, key=lambda step: step.at, default=Close(case.deadline, _ending(case), why))


def _charge(case: _Case) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the next charge that every rule admits; or none before the deadline, and which rules have ruled it out."""
    country = place_of(case.facts.card.country, None).country
    if case.ever("consent"):
        return None, ("ruled_out: consent was withdrawn, no card is charged",)
    if country in case.policy.excluded_countries:
        return None, (f"ruled_out: cards of {country} are not charged again",)
    if case.facts.fresh_card or _entered(case):
        return _admit(case, case.read, "new_credential", "new_credential: one charge on a changed card")
    if case.verdict.decline_class not in RETRIED:
        return None, (f"ruled_out: {case.verdict.decline_class} is not charged again on this card",)
    limit = min(case.verdict.retry_limit, case.policy.max_attempts)
    if case.facts.retries >= limit:
        return None, (f"ruled_out: {case.facts.retries} of {limit} retries on this card are used",)
    at, why = _pulled_to_payday(case, _backoff(case), _backoff_reason(case))
    return _admit(case, at, _window_name(case), why)


def _entered(case: _Case) -> bool:
    """The customer stored a card by hand after the last failure, and is waiting: no window applies."""
    entered = case.facts.card_entered_at
    renewed = case.facts.fresh_card or case.verdict.decline_class is not DeclineClass.NEVER
    return entered is not None and entered > case.facts.last_failure and renewed


def _gap(case: _Case) -> timedelta:
    gaps = case.policy.gaps_hours[case.verdict.decline_class]
    return max(case.verdict.wait, hours(gaps[min(case.facts.retries, len(gaps) - 1)]))


def _backoff(case: _Case) -> datetime:
    spread = timedelta(minutes=case.policy.spread_minutes) * _fraction(case, "backoff")
    return case.facts.last_failure + _gap(case) + spread


def _backoff_reason(case: _Case) -> str:
    return f"backoff: {_gap(case) / hours(1):g} h after the last refusal ({case.verdict.wait / hours(1):g} h at least)"


def _pulled_to_payday(case: _Case, at: datetime, why: str) -> tuple[datetime, str]:
    """Lack of funds on a debit or prepaid card: go on the nearest payday, never before the wait of the code."""
    card = case.facts.card
    if case.verdict.cause != "funds" or card.funding not in PAID_INTO or not case.policy.payday_reach_days:
        return at, why
    zone = place_of(card.country, case.facts.payment.time_zone).zones[0]
    allowed, local = case.facts.last_failure + case.verdict.wait, at.astimezone(zone)
    reach = timedelta(days=case.policy.payday_reach_days)
    payday = nearest_payday(card.country, local.date(), reach, allowed.astimezone(zone).date())
    if payday is None or payday == local.date():
        return at, why
    begins = max(datetime.combine(payday, time.min, zone).astimezone(UTC), allowed)
    if at < _silent_until(case) <= begins:  # no waiting for a payday at the price of a notice before it
        return at, why
    return begins, f"payday: {payday.isoformat()} is the nearest one, instead of {utc_text(at)}"


def _window_name(case: _Case) -> str:
    if case.verdict.decline_class is DeclineClass.RETRY_SOON:
        return "retry_soon"
    return case.verdict.cause if case.verdict.cause in ("funds", "limit") else "unexplained"


def _admit(case: _Case, at: datetime, name: str, why: str) -> tuple[Charge | None, tuple[str, ...]]:
    """Move ``at`` forward until budget and window admit it."""
    place = place_of(case.facts.card.country, case.facts.payment.time_zone)
    limits = case.policy.budgets.get((case.facts.card.brand or "").lower(), ())
    free = free_from(at, case.facts.uses, limits)
    told = (f"budget: spent until {utc_text(free)}",) if free > at else ()
    earliest = max(free, case.now)
    opened = earliest if _entered(case) else _slot(case, free, case.policy.windows[name], place, "window")
    if opened is None or opened >= case.deadline:
        return None, (*told, f"ruled_out: {name} admits no charge before the deadline")
    if free_from(opened, case.facts.uses, limits) > opened:  # only where a limit has come into force meanwhile
        return _admit(case, opened, name, why)
    if opened > earliest:
        told = (*told, f"window: {name} is closed until then in {_names(place)}")
    return Charge(opened, len(case.facts.attempts) + 1, (*case.why, why, *told)), ()


def _slot(case: _Case, at: datetime, window: Window, place: Place, purpose: str) -> datetime | None:
    """Return the open instant that was planned from ``at`` on; once it is missed, the next one from now on."""
    planned = next_open(at, window, place, _fraction(case, purpose))
    late = planned is not None and planned < case.now
    return next_open(case.now, window, place, _fraction(case, purpose)) if late else planned


def _contact(case: _Case, charge: Charge | None, ruled_out: tuple[str, ...]) -> Contact | None:
    """Return the next notice of the ladder, or None while silence can still help."""
    number = len(case.facts.contacted)
    trying = charge is not None and (case.facts.fresh_card or _entered(case))
    if trying or number >= len(case.policy.ladder):
        return None
    since, why = _silence_ends(case, charge)
    rung = case.policy.ladder[number]
    if number:
        since, why = case.facts.contacted[0] + timedelta(days=rung.day), f"ladder: day {rung.day} of the contacts"
    cooled = [at + hours(case.policy.cooldown_hours) for at in case.facts.customer_contacts]
    payment = case.facts.payment
    # The customer's own zone, wherever the card is from; without one, the hours of the card's whole country.
    place = place_of(None if payment.time_zone in COUNTRY_OF_ZONE else case.facts.card.country, payment.time_zone)
    at = _slot(case, max((since, *cooled)), case.policy.windows["contact"], place, "contact")
    return Contact(at, rung.notice, (*case.why, *ruled_out, why)) if at is not None else None


def _silence_ends(case: _Case, charge: Charge | None) -> tuple[datetime, str]:
    """Return from when on only the customer can help."""
    if case.verdict.decline_class is DeclineClass.STALE_CREDENTIAL:
        held = case.facts.last_failure + hours(max(case.policy.hold_hours, default=0))
        return held, "hold: the card updater did not answer in time"
    if case.verdict.decline_class not in RETRIED:
        return case.read, "contact: only the customer can mend this"
    if charge is None:
        return case.read, "contact: no silent charge is left"
    return _silent_until(case), f"contact: {case.policy.silent_days} silent days are over"


def _silent_until(case: _Case) -> datetime:
    return case.facts.payment.failed_at + timedelta(days=case.policy.silent_days)


def _look_again(case: _Case, charge: Charge | None) -> Refresh | None:
    """While only another card can help, read it again at the hours when an updater's answer may be in."""
    read, failed = case.facts.refreshed_at, case.facts.last_failure
    due = (failed + hours(number) for number in case.policy.hold_hours)
    later = next((at for at in due if read is None or at > read), None)
    if charge is not None or later is None or case.verdict.decline_class in RETRIED or case.ever("consent"):
        return None
    return Refresh(max(case.now, later), (*case.why, "hold: the card updater may have answered by then"))


def _fraction(case: _Case, purpose: str) -> float:
    """Spread cases evenly: a stable number in [0, 1) from the case, the attempt and the purpose; no dice."""
    number = len(case.facts.contacted if purpose == "contact" else case.facts.attempts)
    seed = f"{case.facts.payment.payment_id}:{number}:{purpose}"
    return int.from_bytes(sha256(seed.encode()).digest()[:6]) / 2**48


def _names(place: Place) -> str:
    if len(place.zones) > 1:
        return f"the {len(place.zones)} zones of {place.country}"
    return ", ".join(zone.key for zone in place.zones)
