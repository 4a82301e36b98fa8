"""How often may this card still be charged? Card-network limits over rolling windows.

A spent budget is not an error: it yields the first instant at which the oldest use has left the window.
Sources and conflicts of the default numbers: docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

MONTH_HOURS = 720
YEAR_HOURS = 8760


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``attempts`` charges on one card within any ``hours`` hours, the first one of a renewal included.

    All cases count, for 30 days at most: uses are known so long. With ``per_case`` only those of the invoice itself
    count, for a year at most: schemes of bank debits limit how often one debit may be presented. A rule holds
    ``since`` a day and ``until`` another (UTC, both included; ``None``: without an end).
    """

    attempts: int
    hours: int
    since: date | None = None
    until: date | None = None
    per_case: bool = False

    def __post_init__(self) -> None:
        most = YEAR_HOURS if self.per_case else MONTH_HOURS
        if self.attempts < 1 or not 1 <= self.hours <= most:
            msg = f"a limit needs 1 attempt or more in 1 to {most} hours, not {self.attempts} in {self.hours} h"
            raise ValueError(msg)

    def holds(self, at: datetime) -> bool:
        """Whether the rule is in force at an instant."""
        day = at.date()
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


def free_from(
    at: datetime, uses: Sequence[datetime], limits: Iterable[Limit], own: Sequence[datetime] = ()
) -> datetime:
    """Return the first instant not before ``at`` at which one more charge breaks none of the limits in force.

    ``uses`` are the charges on the card over all cases, ``own`` those of this case.
    """
    limits = tuple(limits)
    in_force = (limit for limit in limits if limit.holds(at))
    free = max((at, *(_free(at, own if limit.per_case else uses, limit) for limit in in_force)))
    # A limit that comes into force on the way may ask for more.
    return at if free == at else free_from(free, uses, limits, own)


def _free(at: datetime, uses: Sequence[datetime], limit: Limit) -> datetime:
    window = timedelta(hours=limit.hours)
    recent = sorted(use for use in uses if use > at - window)
    if len(recent) < limit.attempts:
        return at
    return recent[-limit.attempts] + window
