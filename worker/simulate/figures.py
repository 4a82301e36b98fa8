"""What did a policy bring back, at what price, and by how much does it differ from another one on the same draws?

Every figure but the median is a ratio of two sums over payments. How sure the difference of two such ratios is follows
from what each payment adds to it (its influence value): for R = sum(y) / sum(x) that is (y - R x) / sum(x), and for a
difference the one of the policy less the one of its base, on the same payment. Influence values of one customer are
added up, and the variance is C / (C - 1) times the sum of their squares over C customers; the interval is the normal
one. Linearised ratios: W. G. Cochran, Sampling Techniques, 3rd edition (1977), chapter 6; through influence values and
clusters: D. A. Binder, International Statistical Review 51 (1983), 279-292.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, sqrt
from statistics import median
from typing import Any

from schedules.declines import STRICTNESS, classify
from worker.intervals import Interval, Z, wilson
from worker.simulate.judge import Broken, judge, place_for
from worker.simulate.play import Played

MEANS = ("card_update", "silent_retry", "after_contact", "customer")
SILENT = ("card_update", "silent_retry")
DAY, LAST_DAY = timedelta(days=1), 30
CLASSES = tuple(STRICTNESS)


@dataclass(frozen=True, slots=True)
class Told:
    """What one payment counts for: ``means`` is None and ``days`` too unless it came back within 30 days.

    ``hours`` are its charges by the hour of the issuer, each with whether it was approved.
    """

    customer_id: str
    currency: str
    amount_minor: int
    decline_class: str
    outcome: str
    means: str | None
    days: float | None
    attempts: int
    notices: int
    untold: bool
    left_after: bool
    broken: Broken
    hours: tuple[tuple[int, bool], ...]

    @property
    def recovered(self) -> bool:
        """Whether it came back in time."""
        return self.means is not None


def told_of(played: Sequence[Played], zones: dict[str, str]) -> list[Told]:
    """Return what each payment counts for; ``zones`` are the issuers' true ones by payment, as far as a world tells."""
    return [_told(one, broken, zones) for one, broken in zip(played, judge(played, zones), strict=True)]


def _told(one: Played, broken: Broken, zones: dict[str, str]) -> Told:
    payment, zone = one.payment, place_for(one, zones).zones[0]
    return Told(
        customer_id=payment.customer_id,
        currency=payment.currency,
        amount_minor=payment.amount_minor,
        decline_class=str(classify(payment.decline, payment.card.brand).decline_class),
        outcome=one.outcome,
        means=one.means if one.recovered else None,
        days=(one.closed_at - payment.failed_at) / DAY if one.recovered and one.closed_at else None,
        attempts=len(one.tries),
        notices=len(one.contacts),
        untold=not one.contacts,
        left_after=one.outcome == "canceled" and one.touched(),
        broken=broken,
        hours=tuple((each.step.at.astimezone(zone).hour, each.decline is None) for each in one.tries),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure: the sum of ``part`` over all payments for each one of ``whole``."""

    part: Callable[[Told], float]
    whole: Callable[[Told], float] = lambda _told: 1

    def of(self, told: Iterable[Told]) -> float | None:
        """Return the figure, None where there is nothing to share by."""
        parts, wholes = zip(*((self.part(one), self.whole(one)) for one in told), strict=True)
        return sum(parts) / sum(wholes) if sum(wholes) else None


def _won(one: Told) -> float:
    return one.recovered


RATIOS: Mapping[str, Ratio] = {
    "recovered_share": Ratio(_won),
    "silent_share": Ratio(lambda one: one.means in SILENT, _won),
    "untold_share": Ratio(lambda one: one.recovered and one.untold, _won),
    "attempts_per_recovery": Ratio(lambda one: one.attempts, _won),
    "notices_per_payment": Ratio(lambda one: one.notices),
    "canceled_after_notice_share": Ratio(lambda one: one.left_after),
    "closed_window_share": Ratio(lambda one: one.broken.closed, lambda one: one.attempts),
    "budget_violations_per_payment": Ratio(lambda one: one.broken.budget),
    "never_violations_per_payment": Ratio(lambda one: one.broken.never),
}


def value_of(currency: str) -> Ratio:
    """Return the recovered share of the money that failed in one currency."""

    def failed(one: Told) -> float:
        return one.amount_minor if one.currency == currency else 0

    return Ratio(lambda one: failed(one) if one.recovered else 0, failed)


def ratios_of(told: Sequence[Told]) -> dict[str, Ratio]:
    """Return every figure that can be compared, the currencies with most payments first."""
    currencies = Counter(one.currency for one in told)
    values = {f"value_share.{name}": value_of(name) for name, _ in currencies.most_common()}
    return {**RATIOS, **values}


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a figure of a policy exceeds that of the base on the same payments, and how sure that is."""

    value: float
    interval: Interval


def difference(ratio: Ratio, told: Sequence[Told], base: Sequence[Told]) -> Difference | None:
    """Return the paired difference of a figure; None where one of both does not exist."""
    mine, theirs = _influences(ratio, told), _influences(ratio, base)
    if mine is None or theirs is None:
        return None
    (value, ours), (other, others) = mine, theirs
    customers: dict[str, float] = defaultdict(float)
    for one, added, taken in zip(told, ours, others, strict=True):
        customers[one.customer_id] += added - taken
    count = len(customers)
    spread = sqrt(count / max(count - 1, 1) * sum(each * each for each in customers.values()))
    return Difference(value - other, (value - other - Z * spread, value - other + Z * spread))


def _influences(ratio: Ratio, told: Sequence[Told]) -> tuple[float, list[float]] | None:
    """Return the figure and what each payment adds to it."""
    pairs = [(ratio.part(one), ratio.whole(one)) for one in told]
    whole = sum(x for _, x in pairs)
    if not whole:
        return None
    value = sum(y for y, _ in pairs) / whole
    return value, [(y - value * x) / whole for y, x in pairs]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one policy did to the payments of a world, in the world's order."""

    policy: str
    told: Sequence[Told]

    @property
    def recovered(self) -> int:
        """Return how many came back within 30 days."""
        return sum(one.recovered for one in self.told)

    @property
    def median_days(self) -> float | None:
        """Return after how many days half of what came back was back; no interval is told for it."""
        return median(days) if (days := [one.days for one in self.told if one.days is not None]) else None

    @property
    def curve(self) -> list[int]:
        """Return how many were back by each day after the failure, 0 to 30."""
        days = Counter(ceil(one.days) for one in self.told if one.days is not None)
        return [sum(count for day, count in days.items() if day <= last) for last in range(LAST_DAY + 1)]

    @property
    def classes(self) -> dict[str, list[Told]]:
        """Return the payments by the class of their first decline, the mildest class first."""
        found = {name: [one for one in self.told if one.decline_class == name] for name in CLASSES}
        return {str(name): told for name, told in found.items() if told}

    @property
    def hours(self) -> list[tuple[int, int]]:
        """Return the charges of each local hour of the issuer, and how many of them were approved."""
        tried, won = Counter[int](), Counter[int]()
        for one in self.told:
            for hour, approved in one.hours:
                tried[hour] += 1
                won[hour] += approved
        return [(tried[hour], won[hour]) for hour in range(24)]

    def as_json(self) -> dict[str, Any]:
        """Return every figure; docs/simulate.md tells what each is."""
        told = self.told
        return {
            "policy": self.policy,
            "payments": len(told),
            "recovered": self.recovered,
            "recovered_interval": _rounded(wilson(self.recovered, len(told))),
            **{name: _short(ratio.of(told)) for name, ratio in RATIOS.items()},
            "median_days": _short(self.median_days),
            "outcomes": dict(Counter(one.outcome for one in told)),
            "by_means": {name: sum(one.means == name for one in told) for name in MEANS},
            "value": {name.partition(".")[2]: _money(told, name) for name in ratios_of(told) if "." in name},
            "attempts": sum(one.attempts for one in told),
            "notices": sum(one.notices for one in told),
            "canceled_after_notice": sum(one.left_after for one in told),
            "closed_window_attempts": sum(one.broken.closed for one in told),
            "budget_violations": sum(one.broken.budget for one in told),
            "never_violations": sum(one.broken.never for one in told),
            "curve": self.curve,
            "classes": [_class(name, each) for name, each in self.classes.items()],
            "hours": [{"hour": hour, "attempts": t, "approved": won} for hour, (t, won) in enumerate(self.hours)],
        }


def _class(name: str, told: Sequence[Told]) -> dict[str, Any]:
    won = sum(one.recovered for one in told)
    return {
        "class": name,
        "payments": len(told),
        "recovered": won,
        "recovered_share": _short(won / len(told)),
        "recovered_interval": _rounded(wilson(won, len(told))),
        "attempts": sum(one.attempts for one in told),
        "attempts_per_recovery": _short(RATIOS["attempts_per_recovery"].of(told)),
    }


def _money(told: Sequence[Told], name: str) -> dict[str, Any]:
    """Return what failed and came back in one currency, in minor units."""
    currency = name.partition(".")[2]
    mine = [one for one in told if one.currency == currency]
    failed, back = sum(one.amount_minor for one in mine), sum(one.amount_minor for one in mine if one.recovered)
    share = _short(back / failed) if failed else None
    return {"payments": len(mine), "failed": failed, "recovered": back, "share": share}


def _short(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _rounded(interval: Interval | None) -> Interval | None:
    return None if interval is None else (round(interval[0], 4), round(interval[1], 4))
