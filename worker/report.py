"""What came back, by which means, and at what price? Counted from the cases of a database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from worker.models import OUTCOMES, attempts, cases, history, outbox

TAKEN_BACK = ("disputed", "refunded")  # as the inbox notes it in the history of a recovered case
MEANS = ("card_update", "silent_retry", "after_contact", "customer")


@dataclass(frozen=True, slots=True)
class Report:
    """``value`` is minor units by currency: failed, and recovered by each means; they are never added up.

    ``taken_back`` counts those of the recovered whose money was refunded or disputed later, wholly or in part.
    """

    cases: int
    states: dict[str, int]
    recovered: dict[str, int]
    value: dict[str, dict[str, int]]
    attempts: int
    notices: int
    median_days: float | None
    taken_back: int

    @property
    def unfinished(self) -> int:
        """Return how many cases are still open."""
        return self.cases - sum(self.states.get(state, 0) for state in OUTCOMES)

    @property
    def recovered_count(self) -> int:
        """Return how many cases came back, by any means."""
        return sum(self.recovered.values())

    def as_json(self) -> dict[str, Any]:
        """Return the report with its ratios; a ratio without a denominator is null."""
        won = self.recovered_count
        ratios = {
            "recovered_count": won,
            "recovered_share": _ratio(won, self.cases),
            "attempts_per_recovery": _ratio(self.attempts, won),
            "notices_per_case": _ratio(self.notices, self.cases),
        }
        return {**asdict(self), **ratios}


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def make_report(db: Connection) -> Report:
    """Count all cases of the installation."""
    states = _counts(db, select(cases.c.state, func.count()).group_by(cases.c.state))
    won = select(cases.c.recovered_by, func.count()).where(cases.c.state == "recovered").group_by(cases.c.recovered_by)
    means = _counts(db, won)
    days = func.extract("epoch", cases.c.closed_at - cases.c.failed_at) / 86400
    median = select(func.percentile_cont(0.5).within_group(days)).where(cases.c.state == "recovered")
    return Report(
        cases=sum(states.values()),
        states=states,
        recovered={name: means.get(name, 0) for name in MEANS},
        value=_value(db),
        attempts=_count(db, attempts, attempts.c.state.in_(("succeeded", "declined"))),
        notices=_messages(db),
        median_days=_days(db.execute(median).scalar()),
        taken_back=_taken_back(db),
    )


def _counts(db: Connection, statement: Select[Any]) -> dict[str, int]:
    return {str(name): int(number) for name, number in db.execute(statement)}


def _count(db: Connection, table: Any, condition: Any) -> int:
    return int(db.execute(select(func.count()).select_from(table).where(condition)).scalar_one())


def _messages(db: Connection) -> int:
    """Count the notices that left; several cases may have been told in one."""
    message = func.count(func.coalesce(outbox.c.merged_into, outbox.c.id).distinct())
    left = outbox.c.kind == "notice", outbox.c.delivered_at.is_not(None)
    return int(db.execute(select(message).where(*left)).scalar_one())


def _taken_back(db: Connection) -> int:
    """Count the cases whose money went back after it had come."""
    lines = select(func.count(history.c.case_id.distinct())).where(history.c.what.in_(TAKEN_BACK))
    return int(db.execute(lines).scalar_one())


def _days(found: Any) -> float | None:
    return None if found is None else round(float(found), 2)


def _value(db: Connection) -> dict[str, dict[str, int]]:
    total = func.sum(cases.c.amount_minor)
    back = [func.coalesce(total.filter(cases.c.recovered_by == means), 0).label(means) for means in MEANS]
    totals = (
        select(cases.c.currency, total.label("failed"), *back).group_by(cases.c.currency).order_by(cases.c.currency)
    )
    return {
        row["currency"]: {name: int(row[name]) for name in ("failed", *MEANS)} for row in db.execute(totals).mappings()
    }
