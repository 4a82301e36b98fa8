"""What do practice lives teach? At every first of a month of their year, what is seen and what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any

from schedules.facts import Card
from schedules.learned import Model
from schedules.risk import chance
from schedules.subscriber import LONG, Subscriber
from worker.practice.lives import BEGIN, BY_PAYMENT, EVERY, YEAR, Life, Prevention, Renewal, lives, midnight
from worker.practice.objects import DEBITS
from worker.risk.samples import Lesson

MONTHS = range(1, 13)
THRESHOLDS = (0.75, 0.5, 0.25, 0.1)
AHEAD = timedelta(days=7)  # of a charge, as worker/prevention.py looks
WHY = {"funds": "funds", "technical": "technical", "authentication": "authentication", "missing": "other"}
WHY |= {"risk": "unexplained", "block": "unexplained", "expired": "credential", "replaced": "credential"}


def lessons(number: int, seed: int) -> Iterator[Lesson]:
    """Yield what so many lives of a seed teach, life by life."""
    drawn = list(lives(seed, number))
    usual = usual_prices(drawn)
    for life in drawn:
        for at in map(midnight, MONTHS):
            if life.started_at <= at and not life.ended(at):
                yield Lesson(life.id, seen_of(life, at, usual), _lost_after(life, at))


@dataclass(frozen=True, slots=True)
class Kept:
    """What help ahead of the renewals of a year keeps, where it is given from a chance within 90 days on.

    ``helped`` counts renewals before which somebody was looked after, ``lost`` the subscriptions that payments lost
    without help, ``kept`` how many fewer with it; ``monthly`` the same of a month's revenue, by currency.
    """

    least: float
    helped: int
    lost: int
    kept: int
    monthly: dict[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {**asdict(self), "monthly": {name: {"lost": a, "kept": b} for name, (a, b) in self.monthly.items()}}


def kept(model: Model, number: int, seed: int) -> Iterator[Kept]:
    """Live the same year without prevention, and with it from each threshold on; all else is drawn the same."""
    alone = list(lives(seed, number))
    usual, without = usual_prices(alone), _lost_in_year(alone)
    for least in THRESHOLDS:
        asked = list[bool]()
        yield _kept(least, without, _lost_in_year(lives(seed, number, _from(least, model, usual, asked))), asked)


def _from(least: float, model: Model, usual: Mapping[str, float], asked: list[bool]) -> Prevention:
    """Return the help for those who score so much a week before their renewal; notes in ``asked`` whether they did."""

    def wanted(life: Life, due: datetime) -> bool:
        asked.append(due >= BEGIN and chance(model, seen_of(life, due - AHEAD, usual), LONG) >= least)
        return asked[-1]

    return Prevention(wanted)


def _kept(least: float, without: dict[str, list[int]], helped: dict[str, list[int]], asked: list[bool]) -> Kept:
    monthly = {name: (sum(of), sum(of) - sum(helped.get(name, ()))) for name, of in sorted(without.items())}
    lost = sum(map(len, without.values()))
    return Kept(least, sum(asked), lost, lost - sum(map(len, helped.values())), monthly)


def _lost_in_year(drawn: Iterator[Life] | Sequence[Life]) -> dict[str, list[int]]:
    """Return by currency what those paid a month whom a payment lost within the year."""
    found: dict[str, list[int]] = defaultdict(list)
    for life in drawn:
        if life.reason == BY_PAYMENT and life.ended_at and BEGIN <= life.ended_at < BEGIN + YEAR:
            found[life.currency].append(life.amount)
    return found


def usual_prices(drawn: Sequence[Life]) -> dict[str, float]:
    """Return the median monthly price of each currency."""
    prices: dict[str, list[int]] = defaultdict(list)
    for life in drawn:
        prices[life.currency].append(life.amount)
    return {currency: median(each) for currency, each in prices.items()}


def seen_of(life: Life, at: datetime, usual: Mapping[str, float]) -> Subscriber:
    """Return what a provider and our cases would show of a life that goes on."""
    charges, card, next_at = life.until(at), life.card(at), life.next_at(at)
    failed = [each for each in charges if each.cause and each.at > at - YEAR]
    unpaid = next((each for each in failed if _open(each, at)), None)
    ends = life.cancel_at if life.asked_at and life.asked_at <= at else None
    return Subscriber(
        at=at.date(),
        since=life.started_at.date(),
        next_charge=None if ends and ends <= next_at else next_at.date(),
        every=EVERY.days,
        ends=ends.date() if ends else None,
        method=_method(card),
        funding=card.funding if card else None,
        valid_until=_valid_until(card),
        country=life.country,
        currency=life.currency,
        relative=round(life.amount / usual[life.currency], 3),
        declines=len(failed),
        recovered=sum(not _open(each, at) for each in failed),
        unpaid=unpaid.at.date() if unpaid else None,
        cause=WHY[unpaid.cause or ""] if unpaid else None,
        paid=max((each.paid_at.date() for each in charges if each.paid_at and each.paid_at <= at), default=None),
        other=life.other is not None and not life.other.expires_by(next_at),
    )


def _open(renewal: Renewal, at: datetime) -> bool:
    return renewal.paid_at is None or renewal.paid_at > at


def _method(card: Card | None) -> str | None:
    if card is None:
        return None
    return card.brand if card.brand in DEBITS else "card"


def _valid_until(card: Card | None) -> date | None:
    if card is None or card.exp_year is None or card.exp_month is None:
        return None
    return date(card.exp_year + card.exp_month // 12, card.exp_month % 12 + 1, 1)


def _lost_after(life: Life, at: datetime) -> int | None:
    if life.ended_at is None or life.reason != BY_PAYMENT:
        return None
    return (life.ended_at - at) // timedelta(days=1)
