"""Which policies can be simulated? Those of a file, the default one, and the fixed calendar that everybody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from schedules import Facts, Policy, Step, next_step
from schedules.arms import A
from worker.simulate.fixed import Fixed
from worker.simulate.play import Decide

DEFAULT, FIXED = "default", "fixed"


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision with its name; ``cooldown`` is how long the customer's other cases are silent after a notice."""

    name: str
    decide: Decide
    cooldown: timedelta = timedelta()


def plan_named(word: str) -> Plan:
    """Return the plan of a word or of a TOML file; raise ``PolicyError`` when the file is no policy.

    An experiment in the file draws nobody: the policy itself is judged, for all customers, with its segments.
    """
    if word in RIVALS:
        return Plan(word, RIVALS[word])
    return plan_of(word, Policy.default() if word == DEFAULT else Policy.load(word))


def plan_of(name: str, policy: Policy) -> Plan:
    """Return the plan of a policy."""

    def decide(facts: Facts, now: datetime) -> Step:
        return next_step(facts, policy.of(A, policy.segment_of(facts.payment)), now)

    return Plan(name, decide, timedelta(hours=policy.cooldown_hours))


RIVALS: Mapping[str, Decide] = {FIXED: Fixed()}
