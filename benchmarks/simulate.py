"""How long does it take to try a policy on a world? Whole cases from failure to end, in virtual time, on one core."""

from __future__ import annotations

from time import process_time

from benchmarks.measure import Row, Scale, interleave
from worker.practice.world import BuiltInWorld
from worker.simulate import play
from worker.simulate.policies import DEFAULT, plan_named

LEAST = 167  # payments a second: ten thousand in a minute


def measure(scale: Scale) -> list[Row]:
    """Return how many payments of the built-in world are played to their end in a second."""
    number = scale.of(10_000)
    found = interleave({"payments played to their end": lambda: played(number)}, scale.rounds)
    return [Row("simulate", what, "payments/s", runs, least=LEAST) for what, runs in found.items()]


def played(number: int) -> float:
    """Play a world of so many payments, drawing it included."""
    plan = plan_named(DEFAULT)
    begun = process_time()
    ended = sum(1 for _ in play(BuiltInWorld(1, number), plan.decide, cooldown=plan.cooldown))
    return ended / (process_time() - begun)
