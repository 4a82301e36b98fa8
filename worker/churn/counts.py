"""How is churn counted? The database returns one row for each group, kind and currency; they are added up here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from schedules.arms import ARMS, CONTROL
from schedules.steps import utc_text
from worker.churn import sql
from worker.churn.figures import Difference, Figures, Money, Month, Reason, differences
from worker.churn.sql import DIMENSIONS, KINDS, MONTH, NO_GROUP, NOTHING, YEAR, Dimension, Period, Question
from worker.report.sql import TENURES

UNKNOWN, ALL = "unknown", "all"
Rows = Sequence[RowMapping]


@dataclass(frozen=True, slots=True)
class Churn:
    """What is known at ``now`` of a period: as a whole, by groups, by arms, and against an earlier period.

    ``apart`` counts the subscriptions about which nothing is said, by why.
    """

    question: Question
    now: datetime
    total: Figures
    groups: tuple[Figures, ...]
    arms: tuple[Figures, ...]
    before: Figures | None
    apart: dict[str, int]
    reasons: tuple[Reason, ...]

    @property
    def final(self) -> bool:
        """Whether the period is over."""
        return self.now >= self.question.period.end

    @property
    def changes(self) -> list[Difference]:
        """Return by how much more was lost than in the earlier period."""
        return differences("period", self.total, "before", self.before) if self.before else []

    @property
    def effects(self) -> list[Difference]:
        """Return by how much more each arm lost than those who are left alone."""
        found = {arm.group: arm for arm in self.arms}
        others = (arm for name, arm in found.items() if name != CONTROL and CONTROL in found)
        return [each for arm in others for each in differences(arm.group, arm, CONTROL, found[CONTROL])]

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object; docs/churn.md tells the keys."""
        ask = self.question
        return {
            **ask.period.as_json(),
            "by": ask.by,
            "now": utc_text(self.now),
            "final": self.final,
            "total": self.total.as_json(),
            "groups": [group.as_json() for group in self.groups],
            "before": {**ask.before.as_json(), **self.before.as_json()} if ask.before and self.before else None,
            "changes": [each.as_json() for each in self.changes],
            "arms": [arm.as_json() for arm in self.arms],
            "effects": [each.as_json() for each in self.effects],
            "apart": self.apart,
            "reasons": [asdict(each) for each in self.reasons],
        }


def make_churn(db: Connection, now: datetime, ask: Question) -> Churn:
    """Answer a question about the subscriptions of the installation, as the provider showed them last."""
    _settle_in(db)
    cells = _cells(db, now, ask, ask.dimension, ask.period)
    total, before = _figures(ALL, cells), None
    if ask.before:
        before = _figures(ALL, _cells(db, now, ask, NOTHING, ask.before))
    groups = _groups(cells, ask.dimension) if ask.by else ()
    return Churn(ask, now, total, groups, _arms(db, now, ask), before, _apart(db, now, ask), _reasons(db, now, ask))


def course(db: Connection, now: datetime) -> tuple[Month, ...]:
    """Return the customers lost in each of the last twelve full months, by kind."""
    _settle_in(db)
    end = sql.period(now).end
    begin = end - YEAR
    known = {"now": now, "begin": begin, "end": end}
    found = db.execute(text(sql.filled(sql.COURSE)), known).mappings().all()
    begins = [(begin.astimezone(UTC) + number * MONTH).date() for number in range(12)]
    return tuple(Month(at, _by_kind((row for row in found if row["month"] == at), "customers")) for at in begins)


def _settle_in(db: Connection) -> None:
    """Sort in memory and wait for no compiler, for this transaction only."""
    db.execute(text("SET LOCAL work_mem = '64MB'"))
    db.execute(text("SET LOCAL jit = off"))


def _bounds(now: datetime, period: Period) -> dict[str, Any]:
    return {"now": now, "begin": period.begin, "end": period.end}


def _cells(db: Connection, now: datetime, ask: Question, of: Dimension, period: Period) -> Rows:
    """Return the cells of a period, by one dimension."""
    drawn, rival = ask.experiment.control_percent, ask.experiment.rival_percent
    arms = {"experiment": ask.experiment.name, "control": drawn, "control_or_rival": drawn + rival}
    filled = sql.filled(sql.CELLS, base=of.base or NO_GROUP, key=of.key)
    return db.execute(text(filled), {**_bounds(now, period), **arms}).mappings().all()


def _apart(db: Connection, now: datetime, ask: Question) -> dict[str, int]:
    """Return how many subscriptions are in no share, by why."""
    counted = {why: int(count) for why, count in db.execute(text(sql.filled(sql.APART)), _bounds(now, ask.period))}
    return {why: counted.get(why, 0) for why in (*sql.LEFT_OUT, "within")}


def _reasons(db: Connection, now: datetime, ask: Question) -> tuple[Reason, ...]:
    """Return what was said of the subscriptions that ended, the most frequent first."""
    filled = sql.filled(sql.REASONS, tenure=sql.tenure("lost_at"))
    found = db.execute(text(filled), _bounds(now, ask.period)).mappings()
    return tuple(Reason(**{**row, "tenure": TENURES[row["tenure"]]}) for row in found)


def _arms(db: Connection, now: datetime, ask: Question) -> tuple[Figures, ...]:
    """Return the arms of an experiment; none without one."""
    if not ask.experiment.control_percent + ask.experiment.rival_percent:
        return ()
    told = {arm.group: arm for arm in _groups(_cells(db, now, ask, DIMENSIONS["arm"], ask.period), DIMENSIONS["arm"])}
    return tuple(told[name] for name in ARMS if name in told)


def _groups(cells: Rows, of: Dimension) -> tuple[Figures, ...]:
    """Return a group for each key: who was there in it, or everybody where only who left has one."""
    base, left = defaultdict[Any, list[RowMapping]](list), defaultdict[Any, list[RowMapping]](list)
    for cell in cells:
        base[cell["base"]].append(cell)
        if cell["lost"]:
            left[cell["key"]].append(cell)
    keys = {*left, *base} if of.base else {*left}
    told = {
        key: _figures(UNKNOWN if key is None else of.label(key), base[key] if of.base else cells, left[key])
        for key in keys
    }
    return tuple(told[key] for key in _in_order(told, own=of.label is not str))


def _in_order(told: dict[Any, Figures], *, own: bool) -> list[Any]:
    """Return the groups in their own order, or those of the most losses first; what is unknown comes last."""
    known = [key for key in told if key is not None]
    size = {key: (-told[key].lost_count, -told[key].subscriptions_lost, -told[key].customers) for key in known}
    ordered = sorted(known) if own else sorted(known, key=lambda key: (*size[key], key))
    return [*ordered, *([None] if None in told else [])]


def _figures(group: str, there: Rows, left: Rows | None = None) -> Figures:
    """Add up the cells of who was there, and of who of them, or of this group, was lost."""
    gone = [cell for cell in (there if left is None else left) if cell["lost"]]
    who, what = _of(there, "customers"), _of(there, "subscriptions")
    lost, ended = _of(gone, "customers"), _of(gone, "subscriptions")
    names = sorted({cell["currency"] for cell in (*there, *gone)})
    return Figures(
        group=group,
        customers=_sum(who),
        lost=_by_kind((cell for cell in lost if not cell["stays"]), "count"),
        contracted=_sum(cell for cell in lost if cell["stays"]),
        subscriptions=_sum(what),
        subscriptions_lost=_sum(ended),
        unpriced=_sum(what, "unpriced"),
        unpriced_lost=_sum(ended, "unpriced"),
        value={
            name: _money([c for c in there if c["currency"] == name], [c for c in gone if c["currency"] == name])
            for name in names
        },
    )


def _money(there: Rows, gone: Rows) -> Money:
    """Add up one currency."""
    lost, ended = _of(gone, "customers"), _of(gone, "subscriptions")
    return Money(
        customers=_sum(_of(there, "customers")),
        customers_lost=_sum(cell for cell in lost if not cell["stays"]),
        start=_sum(_of(there, "subscriptions"), "monthly"),
        lost=_by_kind(ended, "monthly"),
        contracted=_sum((cell for cell in ended if cell["stays"]), "monthly"),
    )


def _of(cells: Rows, what: str) -> Rows:
    return [cell for cell in cells if cell["what"] == what]


def _sum(cells: Iterable[RowMapping], what: str = "count") -> int:
    return sum(int(cell[what]) for cell in cells)


def _by_kind(cells: Iterable[RowMapping], what: str) -> dict[str, int]:
    found = list(cells)
    return {kind: _sum((cell for cell in found if cell["kind"] == kind), what) for kind in KINDS}
