"""What happens next to an unpaid invoice, and why then? The one decision, as a pure function.

``next_step`` asks from the most final question to the least: has it ended, is the reading fresh, is the time up,
what does the decline mean, when may a charge go, has silence stopped helping. Every instant is moved forward only,
and asking again at the planned instant with the same facts gives the same step.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from schedules.case import Case, case_of
from schedules.charges import next_charge
from schedules.declines import DeclineClass
from schedules.facts import Facts, hours
from schedules.hours import next_open
from schedules.places import COUNTRY_OF_ZONE, Place, place_of
from schedules.policy import CHANNELS, Policy
from schedules.steps import Charge, Close, Contact, Refresh, Step, Wait

LOOK_AGAIN = timedelta(days=1)
AUTHENTICATION = "authentication"  # says what the first notice says, where the bank asks for the payer
SETTLED, ANOTHER_DAY = timedelta(hours=1), timedelta(days=1)  # until then the ending has been carried out
WEEK = timedelta(days=7)
OUTCOMES = {"paid": "recovered", "canceled": "canceled", "voided": "released", "disputed": "released", "lapsed": "lost"}


def next_step(facts: Facts, policy: Policy, now: datetime) -> Step:
    """Return what to do next about the case, at which instant (never before ``now``, UTC) and for which reasons.

    Raises ``ValueError`` when ``now`` has no time zone.
    """
    case = case_of(facts, policy, now)
    return _ended(case) or _refresh(case) or _over(case) or _elsewhere(case) or _earliest(case)


def _ended(case: Case) -> Step | None:
    """Does the provider say that nothing is left to recover?"""
    ended = case.facts.ended
    return None if ended is None else Close(case.now, OUTCOMES[ended], (f"ended: {ended}",))


def _over(case: Case) -> Step | None:
    """Is the time up, or the case in the hands of a person? Never said on an old reading."""
    if case.now >= case.deadline:
        return Close(case.now, _ending(case), (*case.why, f"deadline: {case.policy.deadline_days} days are over"))
    if case.facts.paused:
        return Wait(case.deadline, ("paused: by an operator",))
    return None


def _elsewhere(case: Case) -> Step | None:
    """Is this invoice left alone, or retried by another engine? One alone may charge it; this one looks on."""
    if case.policy.hands_off:
        why = (*case.why, "hands_off: the case is left alone, nothing is charged or said")
    elif case.facts.retried_elsewhere and not case.policy.take_over:
        why = (*case.why, "one_engine: the provider retries this invoice itself, and take_over is off")
    else:
        return None
    again = max(case.read + LOOK_AGAIN, case.now)
    return Refresh(again, why) if again < case.deadline else Wait(case.deadline, why)


def _ending(case: Case) -> str:
    return "released" if case.policy.ending == "release" else "lost"


def _refresh(case: Case) -> Step | None:
    """Has the card been read since a bank last said no? Nothing else is decided on an old reading."""
    read, failed = case.facts.refreshed_at, case.facts.last_failure
    if read is None or read < failed:
        return Refresh(max(case.now, failed), (*case.why, "refresh: the card is read again after every failure"))
    return None


def _earliest(case: Case) -> Step:
    """Return the first of the steps that are still possible before the deadline."""
    if case.verdict.decline_class is DeclineClass.MERCHANT_FIX:
        return Close(case.now, "released", (*case.why, "merchant_fix: a person of the merchant has to look"))
    if "deceased" in case.causes:
        return Close(case.now, "released", (*case.why, "deceased: no charge and no contact"))
    charge, ruled_out = next_charge(case)
    steps = [charge, _look_again(case, charge, ruled_out), _contact(case, charge, ruled_out)]
    possible = [step for step in steps if step is not None and step.at < case.deadline]
    why = (*case.why, *ruled_out, "deadline: nothing is left before it")
    return min(possible, key=lambda step: step.at, default=Close(case.deadline, _ending(case), why))


def _contact(case: Case, charge: Charge | None, ruled_out: tuple[str, ...]) -> Contact | None:
    """Return the next notice of the ladder, or None while silence can still help."""
    number = len(case.facts.contacted)
    trying = charge is not None and (case.fresh or case.entered or case.asked)
    if trying or number >= len(case.policy.ladder):
        return None
    since, why = _silence_ends(case, charge)
    rung = case.policy.ladder[number]
    if number:
        since, why = case.facts.contacted[0] + timedelta(days=rung.day), f"ladder: day {rung.day} of the contacts"
    at = _in_daylight(case, since, hours(case.policy.cooldown_hours))
    notice = AUTHENTICATION if number == 0 and _asks_the_payer(case) else rung.notice
    return Contact(at, notice, (*case.why, *ruled_out, why)) if at is not None else None


def _asks_the_payer(case: Case) -> bool:
    """Does the bank want to see the customer confirm this payment?"""
    verdict = case.verdict
    return verdict.decline_class is DeclineClass.CUSTOMER_ACTION and verdict.cause == "authentication"


def _in_daylight(case: Case, since: datetime, apart: timedelta) -> datetime | None:
    """Return the first instant in the customer's hours that is so far apart from every notice to the customer.

    Of the last seven days no more than the policy's number of notices may be there yet.
    """
    told, most = sorted(set(case.facts.customer_contacts)), case.policy.contacts_per_week
    cooled = (at + apart for at in told)
    rare = [told[-most] + WEEK] if len(told) >= most else []
    return case.slot(max((since, *cooled, *rare)), case.policy.windows["contact"], _home(case), "contact")


def _home(case: Case) -> Place:
    """Return the customer's own zone, wherever the card is from; without one, the card's whole country."""
    zone = case.facts.payment.time_zone
    return place_of(COUNTRY_OF_ZONE.get(zone or "", case.place.country), zone)


def may_speak(facts: Facts, policy: Policy, now: datetime, channel: str) -> datetime | None:
    """Return ``now``, or the next instant (UTC) at which a notice may reach the customer by this channel.

    None when that has no hour within 40 days. Raises ``ValueError`` when ``now`` has no time zone.
    """
    case = case_of(facts, policy, now)
    return next_open(case.now, policy.windows[CHANNELS[channel]], _home(case), case.fraction(channel))


def last_word(facts: Facts, policy: Policy, now: datetime) -> datetime | None:
    """Return when the customer may be told that the case is over: in their hours, on no day of another notice."""
    case = case_of(facts, policy, now)
    return _in_daylight(case, now + SETTLED, max(hours(policy.cooldown_hours), ANOTHER_DAY))


def _silence_ends(case: Case, charge: Charge | None) -> tuple[datetime, str]:
    """Return from when on only the customer can help."""
    if case.verdict.decline_class is DeclineClass.STALE_CREDENTIAL:
        held = case.facts.last_failure + hours(max(case.policy.hold_hours, default=0))
        return held, "hold: the card updater did not answer in time"
    if not case.retried:
        return case.read, "contact: only the customer can mend this"
    if charge is None:
        return case.read, "contact: no silent charge is left"
    return case.silent_until, f"contact: {case.policy.silent_days} silent days are over"


def _look_again(case: Case, charge: Charge | None, ruled_out: tuple[str, ...]) -> Refresh | None:
    """While only another card can help, read it again at the hours when an updater's answer may be in."""
    if charge is not None or case.retried or "consent" in case.causes:
        return None
    read, failed = case.facts.refreshed_at, case.facts.last_failure
    due = (failed + hours(number) for number in case.policy.hold_hours)
    later = next((at for at in due if read is None or at > read), None)
    if later is None:
        return None
    return Refresh(max(case.now, later), (*case.why, *ruled_out, "hold: the card updater may have answered by then"))
