"""When may the stored card be charged next? Every rule in turn moves the instant forward, or rules the charge out.

Backoff, then the waits that the bank advised, then payday, budget and window; what has moved is checked again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from schedules.budgets import free_from
from schedules.case import Case
from schedules.choice import DAY, HOUR, PAID_INTO, best, earliest, explore, propensity, slots
from schedules.declines import DeclineClass
from schedules.facts import hours
from schedules.hours import is_open
from schedules.paydays import habits_of, nearest_payday
from schedules.places import Place
from schedules.steps import Charge, utc_text


def next_charge(case: Case) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the next charge that every rule admits; or none, and which rules have ruled it out."""
    forbidden = _forbidden(case)
    if forbidden is not None:
        return None, (f"ruled_out: {forbidden}",)
    if case.fresh or case.entered:
        return _admit(case, case.read, "new_credential", "new_credential: one charge on a changed card")
    if case.asked:
        at = max(case.facts.asked_at or case.read, case.allowed)
        return _admit(case, at, window_name(case), "asked: an operator wants a charge, whatever the ladder says")
    if not case.hop and (case.policy.model or case.policy.explore_percent):
        return _choose(case)
    return _by_rules(case)


def _by_rules(case: Case) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the charge at the instant of the gaps, or on the payday near it."""
    at, why = _backoff(case)
    payday = _payday(case, at)
    if payday is None:
        return _admit(case, at, window_name(case), why)
    return _at_midnight(case, payday) or _on_payday(case, payday, at, why)


def _choose(case: Case) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the charge at the instant that a model expects most of, or at one that is drawn to learn from.

    Without a model the rules plan, and the rest is drawn.
    """
    name = window_name(case)
    instants = slots(case, case.policy.windows[name])
    # How likely a choice was is told as of the refusal: it is the same when its instant has come, or was missed.
    first, told = _planned(replace(case, now=case.facts.last_failure), instants, name)
    drawn = explore(case, instants, first.at if first else None)
    if drawn is not None:
        return _named(case, *_admit(case, drawn.at, name, drawn.why), drawn.propensity)
    if first is None:
        return None, told
    planned, told = (first, ()) if first.at >= case.now else _planned(case, instants, name)
    return _named(case, planned, told, propensity(case, instants, first.at, first.at))


def _planned(case: Case, instants: tuple[datetime, ...], name: str) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the charge that model or rules would make if nothing were drawn."""
    model = case.policy.model
    if model is None:
        return _by_rules(case)
    at = best(case, model, instants, tries_left(case))
    if at is not None and at < case.now:  # missed: the best of what is left
        at = best(case, model, tuple(each for each in instants if each >= case.now), tries_left(case))
    if at is None:
        return None, (f"ruled_out: no charge is worth its price by model {model.version}",)
    joined = _joined(case, at, name)
    if joined is not None:
        return _admit(case, joined, name, f"together: with another charge of this card, instead of {utc_text(at)}")
    return _admit(case, at, name, f"learned: the instant that model {model.version} expects most of")


def _joined(case: Case, at: datetime, name: str) -> datetime | None:
    """Return when another case charges this card, or just has, if that is open and within a day of ``at``."""
    begin, window = earliest(case), case.policy.windows[name]
    near = (each for each in (*case.facts.card_due, *case.facts.uses) if abs(each - at) <= DAY and each >= begin)
    return next((each for each in sorted(near) if each != at and is_open(each, window, case.place)), None)


def _named(
    case: Case, charge: Charge | None, told: tuple[str, ...], chance: float
) -> tuple[Charge | None, tuple[str, ...]]:
    """Return the charge with what chose it, and how likely."""
    if charge is None:
        return None, told
    version = case.policy.model.version if case.policy.model else None
    return replace(charge, model=version, propensity=round(chance, 6)), told


def tries_left(case: Case) -> int:
    """Return how many repetitions the card has left in this case."""
    return min(case.verdict.retry_limit, case.policy.max_attempts) - case.retries


def _forbidden(case: Case) -> str | None:
    """Return why this card is not to be charged at any time, or None."""
    limit = min(case.verdict.retry_limit, case.policy.max_attempts)
    new = case.fresh or case.entered
    chosen = not new and not case.asked
    rules = (
        ("consent" in case.causes, "consent was withdrawn, no card is charged"),
        (case.place.country in case.policy.excluded_countries, f"cards of {case.place.country} are not charged again"),
        (not new and case.forbidden, "never is not charged again on this card"),
        (chosen and not case.retried, f"{case.verdict.decline_class} is not charged again on this card"),
        (chosen and case.retries >= limit, f"{case.retries} of {limit} retries on this card are used"),
    )
    return next((why for applies, why in rules if applies), None)


def _gap(case: Case) -> timedelta:
    soon, later = (case.policy.gaps_hours[each] for each in ("retry_soon", "retry_later"))
    gaps = (*soon, *later) if case.verdict.decline_class is DeclineClass.RETRY_SOON else later
    return max(case.allowed - case.facts.last_failure, hours(gaps[min(case.retries, len(gaps) - 1)]))


def _backoff(case: Case) -> tuple[datetime, str]:
    """Return when the gap after the last refusal is over, and the reason."""
    spread = timedelta(minutes=case.policy.spread_minutes) * case.fraction("backoff")
    failed, gap = case.facts.last_failure, _gap(case)
    least = max((case.allowed - failed) / HOUR, 0)
    return failed + gap + spread, f"backoff: {gap / HOUR:g} h after the last refusal ({least:g} h at least)"


def _payday(case: Case, at: datetime) -> date | None:
    """Return the payday that a charge planned at ``at`` is due for: lack of funds on what salary arrives on."""
    if case.verdict.cause != "funds" or case.facts.card.funding not in PAID_INTO or not case.policy.payday_reach_days:
        return None
    zone, country = case.place.zones[0], case.place.country
    habits = habits_of(country, [each.astimezone(zone).date() for each in case.facts.successes])
    reach, allowed = timedelta(days=case.policy.payday_reach_days), case.allowed.astimezone(zone).date()
    payday = nearest_payday(country, habits, at.astimezone(zone).date(), reach, allowed)
    if payday is None or at < case.silent_until <= _begins(case, payday):
        return None  # no waiting for a payday at the price of a notice before it
    return payday


def _begins(case: Case, payday: date) -> datetime:
    """Return the first instant of the payday at which a charge is allowed."""
    return max(datetime.combine(payday, time.min, case.place.zones[0]).astimezone(UTC), case.allowed)


def _at_midnight(case: Case, payday: date) -> tuple[Charge, tuple[str, ...]] | None:
    """Return the charge right after salaries have arrived, where the merchant wants it: debit cards alone."""
    if not case.policy.payday_midnight or case.facts.card.funding != "debit":
        return None
    charge, ruled_out = _admit(
        case, _begins(case, payday), "payday", f"payday: {payday.isoformat()}, at its first minutes"
    )
    missed = charge is None or charge.at.astimezone(case.place.zones[0]).date() != payday
    return None if charge is None or missed else (charge, ruled_out)


def _on_payday(case: Case, payday: date, at: datetime, why: str) -> tuple[Charge | None, tuple[str, ...]]:
    if payday != at.astimezone(case.place.zones[0]).date():
        at, why = _begins(case, payday), f"payday: {payday.isoformat()} is the nearest one, instead of {utc_text(at)}"
    return _admit(case, at, "funds", why)


def window_name(case: Case) -> str:
    """Return the window of the policy that a repeated charge of this case keeps."""
    if case.hop:
        return "retry_soon"
    return case.verdict.cause if case.verdict.cause in ("funds", "limit") else "unexplained"


def _admit(case: Case, at: datetime, name: str, why: str) -> tuple[Charge | None, tuple[str, ...]]:
    """Move ``at`` forward until budget and window admit it."""
    limits, uses = case.policy.budgets.get((case.facts.card.brand or "").lower(), ()), case.facts.uses
    free = free_from(at, uses, limits, case.tries)
    told = (f"budget: spent until {utc_text(free)}",) if free > at else ()
    earliest = max(free, case.now)
    opened = earliest if case.entered else case.slot(free, case.policy.windows[name], case.place, "window")
    if opened is None or opened >= case.last_charge:
        return None, (*told, f"ruled_out: {name} admits no charge before {utc_text(case.last_charge)}")
    if free_from(opened, uses, limits, case.tries) > opened:  # only where a limit has come into force meanwhile
        return _admit(case, opened, name, why)
    if not case.entered and not is_open(free, case.policy.windows[name], case.place):
        told = (*told, f"window: {name} is closed until then in {_names(case.place)}")
    return Charge(opened, len(case.facts.attempts) + 1, (*case.why, why, *told)), ()


def _names(place: Place) -> str:
    if len(place.zones) > 1:
        return f"the {len(place.zones)} zones of {place.country}"
    return ", ".join(zone.key for zone in place.zones)
