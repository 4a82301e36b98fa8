"""What is known of a group of failed payments: counts, money by currency, shares and how sure they are.

What each figure means, and of what it is a share: docs/report.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from worker.intervals import Interval, newcombe, wilson
from worker.models import OPEN_STATES

MEANS = ("card_update", "silent_retry", "after_contact", "provider", "customer")
PERCENTILES = ("p25", "p50", "p75", "p90")


def ratio(part: int, whole: int) -> float | None:
    """Return a share or a number of things for each other thing; None without a whole."""
    return round(part / whole, 4) if whole else None


@dataclass(frozen=True, slots=True)
class Share:
    """Some of many, with the interval in which the true share lies 19 times in 20."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """Return the share, None without a whole."""
        return ratio(self.part, self.whole)

    @property
    def interval(self) -> Interval | None:
        """Return its interval (Wilson), None without a whole."""
        found = wilson(self.part, self.whole)
        return None if found is None else (round(found[0], 4), round(found[1], 4))

    def as_json(self) -> dict[str, Any]:
        """Return both counts and the share."""
        return {"cases": self.whole, "recovered": self.part, "share": self.value}


@dataclass(frozen=True, slots=True)
class Money:
    """What failed in one currency, what came back by each means, and what was spent on charges: minor units."""

    cases: int
    failed: int
    recovered: dict[str, int]
    attempts: int
    cost: int | None

    def as_json(self) -> dict[str, Any]:
        """Return it flat: each means is a key of its own."""
        back = sum(self.recovered.values())
        told = {"cases": self.cases, "failed": self.failed, "recovered": back, "share": ratio(back, self.failed)}
        return {**told, **self.recovered, "attempts": self.attempts, "cost": self.cost}


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of a group of cases: ``recovered`` by means, ``value`` by currency, quantiles of the ``days``.

    ``late`` were paid after the 30 days; ``waited`` counts charges that a plan had kept out of a bank's closed hours.
    """

    group: str
    cases: int
    states: dict[str, int]
    recovered: dict[str, int]
    late: int
    silent: Share
    contacted: Share
    left_after: int
    attempts: int
    waited: int
    notices: int
    taken_back: int
    days: tuple[float, ...] | None
    value: dict[str, Money]

    @property
    def unfinished(self) -> int:
        """Return how many cases are still open."""
        return sum(self.states.get(state, 0) for state in OPEN_STATES)

    @property
    def recovered_count(self) -> int:
        """Return how many cases came back in time, by any means."""
        return sum(self.recovered.values())

    @property
    def back(self) -> Share:
        """Return how many of all cases came back in time."""
        return Share(self.recovered_count, self.cases)

    def as_json(self) -> dict[str, Any]:
        """Return the figures with their ratios; a ratio without a denominator is null."""
        won = self.recovered_count
        return {
            "group": self.group,
            "cases": self.cases,
            "states": self.states,
            "open": self.unfinished,
            "recovered_count": won,
            "recovered_share": self.back.value,
            "recovered_interval": self.back.interval,
            "recovered": self.recovered,
            "recovered_late": self.late,
            "canceled_share": ratio(self.states.get("canceled", 0), self.cases),
            "value": {currency: money.as_json() for currency, money in self.value.items()},
            "silent": self.silent.as_json(),
            "contacted": {
                **self.contacted.as_json(),
                "canceled_after": self.left_after,
                "canceled_after_share": ratio(self.left_after, self.contacted.whole),
            },
            "days_to_recovery": dict(zip(PERCENTILES, self.days, strict=True)) if self.days else None,
            "attempts": self.attempts,
            "attempts_per_recovery": ratio(self.attempts, won),
            "off_hours_avoided": self.waited,
            "notices": self.notices,
            "notices_per_case": ratio(self.notices, self.cases),
            "taken_back": self.taken_back,
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """The customers of one arm, each counted once, by the first of their cases in the cohort."""

    name: str
    back: Share

    def as_json(self) -> dict[str, Any]:
        """Return the arm with its share and interval."""
        share = {"share": self.back.value, "interval": self.back.interval}
        return {"arm": self.name, "customers": self.back.whole, "recovered": self.back.part, **share}


@dataclass(frozen=True, slots=True)
class Lift:
    """By how much the recovered share of one arm exceeds that of another, with Newcombe's interval."""

    of: Arm
    over: Arm

    @property
    def points(self) -> float:
        """Return the difference in percentage points."""
        return round(100 * (self.of.back.part / self.of.back.whole - self.over.back.part / self.over.back.whole), 2)

    @property
    def interval(self) -> Interval:
        """Return the interval of the difference in percentage points."""
        pairs = [(arm.back.part, arm.back.whole) for arm in (self.of, self.over)]
        low, high = newcombe(*pairs) or (-1.0, 1.0)  # an arm without customers is none
        return round(100 * low, 2), round(100 * high, 2)

    def as_json(self) -> dict[str, Any]:
        """Return it with the names of both arms."""
        return {"of": self.of.name, "over": self.over.name, "points": self.points, "interval": self.interval}


@dataclass(frozen=True, slots=True)
class Period:
    """The cases that failed on one day, in one week or month, and how many came back by each means."""

    begins: date
    cases: int
    recovered: dict[str, int]

    @property
    def back(self) -> Share:
        """Return how many came back in time, by any means."""
        return Share(sum(self.recovered.values()), self.cases)

    def as_json(self) -> dict[str, Any]:
        """Return the period with its share."""
        told = {"begins": self.begins.isoformat(), "cases": self.cases, "recovered": self.recovered}
        return {**told, "recovered_count": self.back.part, "recovered_share": self.back.value}
