"""How do policies compare on the same draws? Each plays a fresh world of the same seed; the first is the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.practice.protocol import World
from worker.simulate.figures import Difference, Figures, difference, ratios_of, told_of
from worker.simulate.play import play
from worker.simulate.policies import Plan

STEP = 100  # payments between two signs of life


class NotTheSame(Exception):
    """Two worlds of one seed that fail other payments: nothing can be compared on them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What some policies did to one world, the base first."""

    world: str
    seed: int
    levels: dict[str, str]
    policies: tuple[Figures, ...]

    @property
    def payments(self) -> int:
        """Return how many payments had failed."""
        return len(self.policies[0].told)

    @property
    def differences(self) -> dict[str, dict[str, Difference | None]]:
        """Return by policy and figure by how much it exceeds the base."""
        base, *others = self.policies
        return {
            each.policy: {name: difference(ratio, each.told, base.told) for name, ratio in ratios_of(base.told).items()}
            for each in others
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {
            "world": self.world,
            "seed": self.seed,
            "levels": self.levels,
            "payments": self.payments,
            "policies": [each.as_json() for each in self.policies],
            "base": self.policies[0].policy,
            "differences": [
                {"policy": policy, "figures": {name: _pair(one) for name, one in found.items()}}
                for policy, found in self.differences.items()
            ],
        }


def _pair(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"difference": round(found.value, 5), "interval": [round(edge, 5) for edge in found.interval]}


def figures_of(world: World, plan: Plan, step: Callable[[int], None] = lambda _number: None) -> Figures:
    """Play a world to its end under one policy; ``step`` is told the number of payments that have ended."""
    zone, zones, played = getattr(world, "zone", None), {}, []
    for number, one in enumerate(play(world, plan.decide, cooldown=plan.cooldown), 1):
        played.append(one)
        if zone is not None:
            zones[one.payment.payment_id] = zone(one.payment.payment_id)
        if number % STEP == 0:
            step(number)
    played.sort(key=lambda one: (one.payment.failed_at, one.payment.payment_id))
    return Figures(plan.name, told_of(played, zones))


def require_same(policies: Sequence[Figures], world: str) -> None:
    """Raise ``NotTheSame`` unless all have played the same payments."""
    drawn = [[(one.customer_id, one.currency, one.amount_minor) for one in each.told] for each in policies]
    if any(each != drawn[0] for each in drawn):
        msg = f"{world}: two worlds of the same seed fail different payments, so nothing can be compared"
        raise NotTheSame(msg)
