"""What is known of a group: customers and money that were there, and how much of each was lost, by kind.

What each figure means, and of what it is a share: docs/churn.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from worker.churn.sql import KINDS
from worker.intervals import Interval, newcombe
from worker.report.figures import Share, ratio

COMPARED = ("all", "voluntary", "involuntary")


@dataclass(frozen=True, slots=True)
class Money:
    """One currency: who paid in it and left, and the revenue of a month, in minor units: at the start, and lost."""

    customers: int
    customers_lost: int
    start: int
    lost: dict[str, int]
    contracted: int

    def as_json(self) -> dict[str, Any]:
        """Return it flat: each kind is a key of its own."""
        gone = sum(self.lost.values())
        told = {"customers": self.customers, "customers_lost": self.customers_lost, "start": self.start, "lost": gone}
        return {**told, "share": ratio(gone, self.start), **self.lost, "contracted": self.contracted}


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of a group: customers and subscriptions at the start, those lost by kind, ``value`` by currency.

    ``contracted`` customers lost a subscription and kept another. ``unpriced`` subscriptions have no fixed price: they
    are counted, at the start and lost, and are in no money.
    """

    group: str
    customers: int
    lost: dict[str, int]
    contracted: int
    subscriptions: int
    subscriptions_lost: int
    unpriced: int
    unpriced_lost: int
    value: dict[str, Money]

    def share(self, kind: str = "all") -> Share:
        """Return how many of the customers were lost, in all or to one kind.

        Who came into a band of tenure within the period is lost in it and was not there at its start: where more are
        lost than were there, it is a share of nothing.
        """
        lost = sum(self.lost.values()) if kind == "all" else self.lost[kind]
        return Share(lost, self.customers if lost <= self.customers else 0)

    @property
    def lost_count(self) -> int:
        """Return how many customers were lost, of any kind."""
        return sum(self.lost.values())

    def as_json(self) -> dict[str, Any]:
        """Return the figures with their shares; a share of nothing is null."""
        kinds = {kind: self._told(kind) for kind in KINDS}
        return {
            "group": self.group,
            "customers": self.customers,
            **self._told("all"),
            "kinds": kinds,
            "contracted": self.contracted,
            "subscriptions": self.subscriptions,
            "subscriptions_lost": self.subscriptions_lost,
            "unpriced": self.unpriced,
            "unpriced_lost": self.unpriced_lost,
            "value": {currency: money.as_json() for currency, money in self.value.items()},
        }

    def _told(self, kind: str) -> dict[str, Any]:
        share = self.share(kind)
        return {"lost": share.part, "share": share.value, "interval": share.interval}


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the lost share of one group of customers exceeds that of another, in all or to one kind."""

    of: str
    over: str
    kind: str
    one: Share
    other: Share

    @property
    def points(self) -> float:
        """Return the difference in percentage points."""
        return round(100 * (self.one.part / self.one.whole - self.other.part / self.other.whole), 2)

    @property
    def interval(self) -> Interval:
        """Return Newcombe's interval of it in percentage points."""
        low, high = newcombe((self.one.part, self.one.whole), (self.other.part, self.other.whole)) or (-1.0, 1.0)
        return round(100 * low, 2), round(100 * high, 2)

    def as_json(self) -> dict[str, Any]:
        """Return it with what is compared."""
        told = {"of": self.of, "over": self.over, "kind": self.kind}
        return {**told, "points": self.points, "interval": self.interval}


def differences(of: str, one: Figures, over: str, other: Figures) -> list[Difference]:
    """Return by how much a group lost more than another: in all, and by kind; nothing where one of them is empty."""
    if not one.customers or not other.customers:
        return []
    return [Difference(of, over, kind, one.share(kind), other.share(kind)) for kind in COMPARED]


@dataclass(frozen=True, slots=True)
class Reason:
    """How many subscriptions of a plan ended for one reason within a band of tenure; ``feedback`` as it was given."""

    kind: str
    reason: str | None
    feedback: str | None
    tenure: str
    plan: str | None
    subscriptions: int


@dataclass(frozen=True, slots=True)
class Month:
    """The customers that were lost in one month, by kind."""

    begins: date
    lost: dict[str, int]
