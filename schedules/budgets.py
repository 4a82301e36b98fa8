"""How often may this card still be charged? Card-network limits over rolling windows.

A spent budget is not an error: it yields the first instant at which the oldest use has left the window.
Sources and conflicts of the default numbers: docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

MONTH_HOURS = 720


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``attempts`` charges on one card within any ``hours`` hours, 30 days at most: uses are known so long.

    A rule of a network holds ``since`` a day and ``until`` another (UTC, both included; ``None``: without an end).
    """

    attempts: int
    hours: int
    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 1 <= self.hours <= MONTH_HOURS:
            msg = f"a limit needs 1 attempt or more in 1 to {MONTH_HOURS} hours, not {self.attempts} in {self.hours} h"
            raise ValueError(msg)

    def holds(self, at: datetime) -> bool:
        """Whether the rule is in force at an instant."""
        day = at.date()
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


def free_from(at: datetime, uses: Sequence[datetime], limits: Iterable[Limit]) -> datetime:
    """Return the first instant not before ``at`` at which one more charge breaks none of the limits in force."""
    limits = tuple(limits)
    free = max((at, *(_free(at, uses, limit) for limit in limits if limit.holds(at))))
    # A limit that comes into force on the way may ask for more.
    return at if free == at else free_from(free, uses, limits)


def _free(at: datetime, uses: Sequence[datetime], limit: Limit) -> datetime:
    window = timedelta(hours=limit.hours)
    recent = sorted(use for use in uses if use > at - window)
    if len(recent) < limit.attempts:
        return at
    return recent[-limit.attempts] + window
