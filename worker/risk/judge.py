"""Is a model of risk better than knowing nothing, the expiry alone, and the rules? Judged on what it has not seen.

A chance is judged by its squared distance from what came (Brier score): honest chances have the least. Intervals are
clustered by subscription, because its months are no separate proofs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from schedules.learned import Model
from schedules.risk import RULES, chance
from schedules.subscriber import HORIZONS
from worker.intervals import Interval, Z, wilson
from worker.learn import Estimate
from worker.risk.samples import FOLDS, Lesson, fit

TENTHS = 10
WORST = 3.0  # standard errors between what was foretold and what came
RIVALS = ("base rate", "expiry alone", "rules")

Foretell = Callable[[Lesson, int], float]


@dataclass(frozen=True, slots=True)
class Horizon:
    """What was found within so many days, over the subscriptions that a payment could lose.

    ``brier`` is of the model and its rivals, ``gain`` what the model has less than each. ``tenths`` are chances
    foretold, shares that came, their intervals and counts, the least likely first; ``lift`` compares the last of them
    with all, and ``caught`` is its share of what was lost.
    """

    days: int
    count: int
    foretold: float
    came: float
    calibrated: bool
    brier: dict[str, float]
    gain: dict[str, Estimate]
    tenths: tuple[tuple[float, float, Interval | None, int], ...]
    lift: float
    lift_between: Interval
    caught: float

    @property
    def better(self) -> bool:
        """Whether it is certainly better than each rival, and its chances hold."""
        return self.calibrated and all(each.low > 0 for each in self.gain.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about a model within 30 and 90 days."""

    horizons: tuple[Horizon, ...]

    @property
    def better(self) -> bool:
        """Whether both may be believed."""
        return all(each.better for each in self.horizons)

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {"better": self.better, "horizons": [{**asdict(each), "better": each.better} for each in self.horizons]}


def judge(lessons: Sequence[Lesson], taught: Sequence[Lesson] | None = None) -> Verdict:
    """Judge a model of what was ``taught`` on other lessons; without, each half of them by a model of the other half.

    Raises ``NothingToLearn``.
    """
    if taught is not None:
        known = [_Rivals(taught)]
        return Verdict(tuple(_judged(lessons, days, lambda _: known[0]) for days in HORIZONS))
    halves = [_Rivals([each for each in lessons if each.fold != fold]) for fold in range(FOLDS)]
    return Verdict(tuple(_judged(lessons, days, lambda each: halves[each.fold]) for days in HORIZONS))


class _Rivals:
    """What one set of lessons teaches: a model, the base rate, and a rate for each kind of expiry."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._model: Model = fit(lessons, "judged")
        self._base, self._expiry = {}, {}
        for days in HORIZONS:
            risky = [each for each in lessons if each.seen.at_risk(days)]
            self._base[days] = base = sum(each.lost(days) for each in risky) / len(risky)
            kinds: dict[str, list[bool]] = defaultdict(list)
            for each in risky:
                kinds[each.seen.expires(days)].append(each.lost(days))
            self._expiry[days] = {kind: (sum(lost) + base) / (len(lost) + 1) for kind, lost in kinds.items()}

    def told(self, lesson: Lesson, days: int) -> dict[str, float]:
        """Return the chance that each of them foretells."""
        base = self._base[days]
        return {
            "model": chance(self._model, lesson.seen, days),
            "base rate": base,
            "expiry alone": self._expiry[days].get(lesson.seen.expires(days), base),
            "rules": chance(RULES, lesson.seen, days),
        }


@dataclass(frozen=True, slots=True)
class _Told:
    """One lesson within one horizon: what each foretold, and what came."""

    name: str
    chances: dict[str, float]
    lost: bool

    def error(self, who: str) -> float:
        return (self.chances[who] - self.lost) ** 2


def _judged(lessons: Sequence[Lesson], days: int, rivals: Callable[[Lesson], _Rivals]) -> Horizon:
    told = [
        _Told(each.subscription_id, rivals(each).told(each, days), each.lost(days))
        for each in lessons
        if each.seen.at_risk(days)
    ]
    off = Estimate.of([(each.name, each.chances["model"] - each.lost) for each in told])
    tenths = _tenths(told)
    came, (_, top, between, count) = sum(each.lost for each in told) / len(told), tenths[-1]
    low, high = between or (top, top)
    return Horizon(
        days,
        len(told),
        sum(each.chances["model"] for each in told) / len(told),
        came,
        abs(off.mean) <= WORST * (off.high - off.low) / (2 * Z),
        {who: sum(each.error(who) for each in told) / len(told) for who in ("model", *RIVALS)},
        {who: Estimate.of([(each.name, each.error(who) - each.error("model")) for each in told]) for who in RIVALS},
        tenths,
        top / came if came else 0.0,
        (low / came, high / came) if came else (0.0, 0.0),
        top * count / (came * len(told)) if came else 0.0,
    )


def _tenths(told: Sequence[_Told]) -> tuple[tuple[float, float, Interval | None, int], ...]:
    """Return what was foretold, what came and of how many, from the least likely tenth to the most likely."""
    ordered = sorted(told, key=lambda each: each.chances["model"])
    parts = [ordered[len(ordered) * n // TENTHS : len(ordered) * (n + 1) // TENTHS] for n in range(TENTHS)]
    return tuple(_part(part) for part in parts if part)


def _part(part: Sequence[_Told]) -> tuple[float, float, Interval | None, int]:
    lost, count = sum(each.lost for each in part), len(part)
    return sum(each.chances["model"] for each in part) / count, lost / count, wilson(lost, count), count
