"""Was a limit broken? Every charge that was played, judged by other means than deciding.

Budgets are those of the card networks as the default policy knows them, whatever the policy that is played allows
itself, and they are counted here from all charges of the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from schedules import Facts, FailedPayment, Policy
from schedules.budgets import free_from
from schedules.declines import DeclineClass, classify
from schedules.hours import night
from schedules.places import Place, place_of
from worker.simulate.play import Played, Try

BUDGETS = Policy.default().budgets


@dataclass(frozen=True, slots=True)
class Broken:
    """How many charges of one payment were made in the bank's night, over a budget, or after a refusal for good."""

    closed: int = 0
    budget: int = 0
    never: int = 0


def judge(played: Sequence[Played], zones: dict[str, str]) -> list[Broken]:
    """Return what each payment's charges broke; ``zones`` are the issuers' true ones by payment, as far as told."""
    over = _over_budget(played)
    return [
        Broken(
            closed=sum(asleep(each.facts, each.step.at, place_for(one, zones)) for each in one.tries),
            budget=sum((one.payment.payment_id, each.step.at) in over for each in one.tries),
            never=sum(forbidden(each.facts) for each in one.tries),
        )
        for one in played
    ]


def place_for(played: Played, zones: dict[str, str]) -> Place:
    """Return where the issuer is: its true zone where the world tells it, else every zone of the card's place."""
    payment = played.payment
    place = place_of(payment.card.country, payment.time_zone, payment.card.brand)
    zone = zones.get(payment.payment_id)
    return place if zone is None else Place(place.country, (ZoneInfo(zone),))


def asleep(facts: Facts, at: datetime, place: Place) -> bool:
    """Whether it is night at the issuer, and no customer is waiting who has just entered the card."""
    entered = facts.card_entered_at
    return not (entered is not None and entered > facts.last_failure) and night(at, place)


def forbidden(facts: Facts) -> bool:
    """Whether the card had been refused for good, and is still the same."""
    return any(classify(each.decline, each.card.brand).decline_class is DeclineClass.NEVER for each in facts.refused)


def _over_budget(played: Iterable[Played]) -> Collection[tuple[str, datetime]]:
    """Return the charges, by payment and instant, that were one more than a network allows on a card."""
    uses: dict[str, list[tuple[datetime, str, Try | None]]] = defaultdict(list)
    for one in played:
        name = one.payment.payment_id
        uses[one.payment.card.fingerprint or name].append((one.payment.failed_at, name, None))
        for each in one.tries:
            uses[each.facts.card.fingerprint or name].append((each.step.at, name, each))
    found = set()
    for charges in uses.values():
        charges.sort(key=lambda charge: charge[:2])
        for number, (at, name, made) in enumerate(charges):
            if made is not None and not _within(made, at, [use for use, *_ in charges[:number]]):
                found.add((name, at))
    return found


def _within(each: Try, at: datetime, uses: Sequence[datetime]) -> bool:
    """Whether no budget was spent; what was presented before on this credential counts for limits of one case."""
    own = [one.failed_at if isinstance(one, FailedPayment) else one.at for one in each.facts.refused]
    return free_from(at, uses, BUDGETS.get((each.facts.card.brand or "").lower(), ()), own) == at
