"""What came back, by which means, and at what price? Counted in the database, for a cohort and each of its groups.

A cohort is every case whose first failure lies in a time; recovered is what was paid, by any means, within 30 days of
it. The total is one more group. What each figure means, and of what it is a share: docs/report.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from schedules.arms import CONTROL, A, B
from schedules.steps import utc_text
from worker.report import count
from worker.report.figures import Arm, Figures, Lift, Period
from worker.report.sql import Question

WINDOW = timedelta(days=30)
# How far a picture goes over time: so many days at most are told one by one, so many by weeks, more by months.
MOST_DAYS, MOST_WEEKS = timedelta(days=45), timedelta(weeks=104)


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a cohort at ``now``: as a whole, by groups, by arms, over time, and by days since the failure.

    ``final_at`` is when its last case has had its 30 days; ``curve`` counts by means what was back by each of them.
    """

    question: Question
    now: datetime
    final_at: datetime | None
    total: Figures
    groups: tuple[Figures, ...]
    arms: tuple[Arm, ...]
    step: str
    periods: tuple[Period, ...]
    curve: dict[str, list[int]]

    @property
    def final(self) -> bool:
        """Whether every case of the cohort has had its 30 days."""
        return self.final_at is not None and self.now >= self.final_at

    @property
    def lifts(self) -> list[Lift]:
        """Return by how much each arm exceeds the control, and B exceeds A."""
        found = {arm.name: arm for arm in self.arms}
        pairs = [(A, CONTROL), (B, CONTROL), (B, A)]
        return [Lift(found[of], found[over]) for of, over in pairs if of in found and over in found]

    @property
    def back_by_day(self) -> list[tuple[int, int]]:
        """Return how many cases were back by each day after their failure, by any means."""
        return [(day, sum(counts)) for day, counts in enumerate(zip(*self.curve.values(), strict=True))]

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object; docs/report.md tells the keys."""
        ask = self.question
        return {
            "from": ask.begin.date().isoformat() if ask.begin else None,
            "to": ask.end.date().isoformat() if ask.end else None,
            "by": ask.by,
            "now": utc_text(self.now),
            "final": self.final,
            "final_at": utc_text(self.final_at) if self.final_at else None,
            "total": self.total.as_json(),
            "groups": [group.as_json() for group in self.groups],
            "arms": [arm.as_json() for arm in self.arms],
            "lifts": [lift.as_json() for lift in self.lifts],
            "same_policy": ask.same_policy,
            "over_time": {"step": self.step, "periods": [period.as_json() for period in self.periods]},
            "curve": self.curve,
        }


def make_report(db: Connection, now: datetime, question: Question | None = None) -> Report:
    """Answer a question about the cases of the installation; without one, about all of them.

    Everybody who shows a report asks here: the command, the console and the practice.
    """
    ask = question or Question()
    # The sorts of a large cohort stay in memory, and none waits for a compiler; both for this transaction only.
    db.execute(text("SET LOCAL work_mem = '64MB'"))
    db.execute(text("SET LOCAL jit = off"))
    first, last = count.span(db, ask)
    ends, step = ask.end or last, _step(first, last)
    total, groups = count.groups(db, ask)
    periods, curve = count.course(db, ask, step)
    arms = count.arms(db, ask)
    return Report(ask, now, ends + WINDOW if ends else None, total, groups, arms, step, periods, curve)


def _step(first: datetime | None, last: datetime | None) -> str:
    """Return in which steps time is told, by its length."""
    length = last - first if first and last else timedelta()
    return "day" if length <= MOST_DAYS else "week" if length <= MOST_WEEKS else "month"
