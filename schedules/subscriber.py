"""What is seen of one subscription whose next charges are still to come? Frozen values, and the words for them.

The days are those of UTC: a score looks months ahead, no hour of a bank matters.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from schedules.paydays import habits_of, latest_payday

SHORT, LONG = HORIZONS = (30, 90)  # days
MOST_DUE, MOST_DECLINES, LAST_PAYDAY = 4, 3, 7
WAITS = (2, 8, 15, 22, 31)  # days to the next charge: where bins begin
UNPAID = (4, 8, 15, 22)  # days since a charge failed
PAID = (11, 32, 63)  # days since the last success
TENURES = (3, 6, 12, 24)  # months
AMOUNTS = ("low", "usual", "high")
LOW, HIGH = 0.5, 2.0  # times the median of the currency
DATES = ("at", "since", "next_charge", "ends", "valid_until", "unpaid", "paid")


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What is seen of one subscription on a day (UTC), as the provider and our own cases show it.

    ``valid_until`` is the first day on which the card has expired, ``ends`` when nothing is charged any more,
    ``every`` the days between two charges, ``relative`` the monthly price against the median of its currency,
    ``declines`` and ``recovered`` the renewals of the last year that failed, and those of them that were paid,
    ``unpaid`` since when a charge waits, and ``cause`` why. Signals are the merchant's, by kind.
    """

    at: date
    since: date
    next_charge: date | None = None
    every: int = 30
    ends: date | None = None
    method: str | None = None
    funding: str | None = None
    valid_until: date | None = None
    country: str | None = None
    currency: str = ""
    relative: float | None = None
    declines: int = 0
    recovered: int = 0
    unpaid: date | None = None
    cause: str | None = None
    paid: date | None = None
    other: bool = False
    mandate: str | None = None
    signals: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Subscriber:
        """Return what ``as_json`` told, also that of another version; raise ``ValueError`` for anything else."""
        known = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        return cls(**known | {name: date.fromisoformat(known[name]) for name in DATES if name in known})

    def as_json(self) -> dict[str, Any]:
        """Return what there is to tell, the days as text."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = {name: str(value) if isinstance(value, date) else value for name, value in told.items()}
        return {
            name: value for name, value in shown.items() if value is not None and value is not False and value != {}
        }

    def due(self, days: int) -> int:
        """Return how many charges are to come within so many days, none when renewal ends before."""
        last = self._last_day(days)
        if self.next_charge is None or self.next_charge > last:
            return 0
        return (last - self.next_charge).days // self.every + 1

    def at_risk(self, days: int) -> bool:
        """Whether a payment can lose it at all within so many days."""
        return self.unpaid is not None or self.due(days) > 0

    def expires(self, days: int) -> str:
        """Tell when its card expires: it has, before the next charge, before another one within the days, later."""
        if self.valid_until is None:
            return "unknown"
        bounds = (self.at, self.next_charge or self.at, self._last_day(days))
        names = ("passed", "before", "soon")
        return next((name for name, day in zip(names, bounds, strict=True) if self.valid_until <= day), "later")

    def _last_day(self, days: int) -> date:
        last = self.at + timedelta(days=days)
        return last if self.ends is None else min(last, self.ends - timedelta(days=1))


def values(seen: Subscriber, days: int) -> dict[str, str | None]:
    """Return each group of facts with its value; None where there is nothing to say."""
    in_force = seen.method or "missing"
    return {
        "due": str(min(seen.due(days), MOST_DUE)),
        "wait": _bin(WAITS, seen.next_charge - seen.at) if seen.next_charge else "none",
        "expires": seen.expires(days),
        "unpaid": _unpaid(seen),
        "cause": seen.cause if seen.unpaid else None,
        "method": in_force,
        "funding": seen.funding or "unknown",
        "declines": str(min(seen.declines, MOST_DECLINES)),
        "recovered": _recovered(seen),
        "paid": _bin(PAID, seen.at - seen.paid) if seen.paid else "unknown",
        "tenure": str(bisect_right(TENURES, months(seen))),
        "amount": _amount(seen.relative),
        "currency": seen.currency,
        "country": seen.country or "unknown",
        "payday": payday(seen),
        "renewal": "off" if seen.ends else "on",
        "other": "yes" if seen.other else "no",
        "mandate": seen.mandate,
    }


def _unpaid(seen: Subscriber) -> str:
    if seen.unpaid is None:
        return "no"
    return "unknown" if seen.cause is None else _bin(UNPAID, seen.at - seen.unpaid)


def _recovered(seen: Subscriber) -> str | None:
    ended = seen.declines - (seen.unpaid is not None and seen.cause is not None)
    if ended <= 0:
        return None
    return "all" if seen.recovered >= ended else "some" if seen.recovered else "none"


def _amount(relative: float | None) -> str | None:
    return None if relative is None else AMOUNTS[bisect_right((LOW, HIGH), relative)]


def payday(seen: Subscriber) -> str | None:
    """Return how many days the last payday of the country lies before the next charge, seven at most."""
    return None if seen.next_charge is None else str(_since_payday(seen.country, seen.next_charge))


@lru_cache(maxsize=16384)
def _since_payday(country: str | None, day: date) -> int:
    latest = latest_payday(country, habits_of(country, ()), day, LAST_PAYDAY)
    return LAST_PAYDAY if latest is None else (day - latest).days


def months(seen: Subscriber) -> int:
    """Return for how many whole months it has been paid."""
    return (seen.at.year - seen.since.year) * 12 + seen.at.month - seen.since.month - (seen.at.day < seen.since.day)


def _bin(bounds: tuple[int, ...], wait: timedelta) -> str:
    return str(bisect_right(bounds, wait.days))
