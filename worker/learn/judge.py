"""Is a model better than what runs? Judged on charges it has not seen, by what the bank answered and by no wish.

Each half of the customers is judged by a model of the other half. In the situations that the running policy met, three
estimates tell what the model's choices are worth: by trust in its own chances (direct), by reweighting those
charges that happened to go where it would have sent them (inverse propensity, IPS), and by both together (doubly
robust), which is right when either is. M. Dudik, J. Langford, L. Li, Proceedings of ICML 2011, pages 1097-1104.
What runs is judged in the same way, without its exploring. A decision is worth 1 when the charge passes, less what an
attempt costs; no attempt is worth 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from math import sqrt
from typing import Any

from schedules import Policy
from schedules.charges import next_charge
from schedules.choice import REACH, part_of
from schedules.learned import Model, chance
from worker.intervals import Z
from worker.learn.fit import NothingToLearn, fit
from worker.learn.samples import FOLDS, Sample

MOST_JUDGED = 50_000
TENTHS = 10
WORST = 3.0  # standard errors between what was foretold and what came
LEAST_MATCHED = 50  # with fewer charges where a policy would have sent them its interval says nothing


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the interval in which the truth lies 19 times in 20."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[tuple[str, float]]) -> Estimate:
        """Return the mean of values, each with the customer whose values belong together."""
        count = len(values)
        sums: dict[str, float] = defaultdict(float)
        mean = sum(value for _, value in values) / count
        for customer, value in values:
            sums[customer] += value - mean
        reach = Z * sqrt(sum(each * each for each in sums.values())) / count
        return cls(mean, mean - reach, mean + reach)


@dataclass(frozen=True, slots=True)
class Worth:
    """What a policy's decisions are worth by each estimate.

    ``matched`` logged charges went where it would have sent them; in a share of the situations it ``stops`` charging.
    """

    direct: Estimate
    ips: Estimate
    doubly_robust: Estimate
    matched: int
    stops: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about a model. ``tenths`` are chances foretold, shares that came, and how many charges."""

    charges: int
    running: Worth
    model: Worth
    gain: Estimate
    foretold: float
    came: float
    calibrated: bool
    tenths: tuple[tuple[float, float, int], ...]

    @property
    def better(self) -> bool:
        """Whether the doubly robust gain is above zero with certainty, and the chances can be believed."""
        return self.enough and self.calibrated and self.gain.low > 0

    @property
    def enough(self) -> bool:
        """Whether both policies would often have done what was done."""
        return min(self.running.matched, self.model.matched) >= LEAST_MATCHED

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"better": self.better, "enough": self.enough, **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Choice:
    """What each estimate says of one decision of a policy."""

    direct: float = 0.0
    ips: float = 0.0
    doubly_robust: float = 0.0
    matched: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class _Judged:
    """One logged charge, the chance that the model gave it, and what both policies would have done."""

    sample: Sample
    foretold: float
    running: _Choice
    model: _Choice


def judge(samples: Sequence[Sample], policy: Policy, step: Callable[[int], None] = lambda _: None) -> Verdict:
    """Judge what a model of such charges would choose, against the policy that runs; ``step`` is told the number done.

    Only charges with a logged propensity count. Raises ``NothingToLearn``.
    """
    logged = sorted((each for each in samples if each.propensity), key=_shuffled)[:MOST_JUDGED]
    if not logged:
        msg = "no charge has a propensity: set explore_percent above 0 in the policy, and come back"
        raise NothingToLearn(msg)
    models = [fit([each for each in samples if each.fold != fold], "judged") for fold in range(FOLDS)]
    judged = []
    for number, each in enumerate(logged, start=1):
        judged.append(_one(each, models[each.fold], policy))
        step(number)
    return _sum_up(judged)


def _shuffled(sample: Sample) -> bytes:
    return sha256(f"{sample.facts.payment.payment_id}:{sample.at.isoformat()}".encode()).digest()


def _one(sample: Sample, model: Model, policy: Policy) -> _Judged:
    """Judge one decision: what runs, and what the model would have chosen."""
    runs = replace(policy, explore_percent=0)
    running, learned = (_charge(sample, each) for each in (runs, replace(runs, model=model)))
    if learned is not None and learned - sample.facts.last_failure > REACH:
        learned = running  # nothing is known of it: no better than what runs
    return _Judged(
        sample,
        chance(model, sample.about, sample.at.astimezone(sample.case.place.zones[0])),
        *(_choice(sample, model, at, policy.attempt_cost_percent / 100) for at in (running, learned)),
    )


def _charge(sample: Sample, policy: Policy) -> datetime | None:
    """Return when a policy would have charged in the situation of a sample."""
    charge, _ = next_charge(replace(sample.case, policy=policy))
    return charge.at if charge else None


def _choice(sample: Sample, model: Model, at: datetime | None, cost: float) -> _Choice:
    """Say what a charge at this instant would have been worth instead of the one that was made."""
    if at is None:
        return _Choice(stopped=True)
    zone = sample.case.place.zones[0]
    made, direct = (chance(model, sample.about, each.astimezone(zone)) for each in (sample.at, at))
    matched = part_of(sample.case, at) == part_of(sample.case, sample.at)
    weight = matched / (sample.propensity or 1.0)
    robust = direct + weight * (sample.passed - made) - cost
    return _Choice(direct - cost, weight * (sample.passed - cost), robust, matched)


def _sum_up(judged: Sequence[_Judged]) -> Verdict:
    def mean(what: Callable[[_Judged], float]) -> Estimate:
        return Estimate.of([(each.sample.facts.payment.customer_id, what(each)) for each in judged])

    def worth(of: Callable[[_Judged], _Choice]) -> Worth:
        return Worth(
            mean(lambda each: of(each).direct),
            mean(lambda each: of(each).ips),
            mean(lambda each: of(each).doubly_robust),
            sum(of(each).matched for each in judged),
            sum(of(each).stopped for each in judged) / len(judged),
        )

    off = mean(lambda each: each.foretold - each.sample.passed)
    return Verdict(
        len(judged),
        worth(lambda each: each.running),
        worth(lambda each: each.model),
        mean(lambda each: each.model.doubly_robust - each.running.doubly_robust),
        sum(each.foretold for each in judged) / len(judged),
        sum(each.sample.passed for each in judged) / len(judged),
        abs(off.mean) <= WORST * (off.high - off.low) / (2 * Z),
        _tenths(judged),
    )


def _tenths(judged: Sequence[_Judged]) -> tuple[tuple[float, float, int], ...]:
    """Return what was foretold, what came, and of how many charges, from the least likely tenth to the most likely."""
    ordered = sorted(judged, key=lambda each: each.foretold)
    parts = [ordered[len(ordered) * n // TENTHS : len(ordered) * (n + 1) // TENTHS] for n in range(TENTHS)]
    return tuple(
        (sum(e.foretold for e in part) / len(part), sum(e.sample.passed for e in part) / len(part), len(part))
        for part in parts
        if part
    )
