"""Does the default policy beat what everybody does? `python -m tests.simulate.rivals` prints the table of the docs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from worker.practice.world import BuiltInWorld
from worker.simulate.compare import figures_of
from worker.simulate.figures import RATIOS, Difference, Figures, Ratio, difference
from worker.simulate.policies import DEFAULT, FIXED, plan_named

SEEDS, PAYMENTS = (1, 2, 3, 4, 5), 10_000
SHOWN = ("recovered_share", "attempts_per_recovery", "notices_per_payment", "canceled_after_notice_share")


@dataclass(frozen=True, slots=True)
class Duel:
    """The default policy and its rival on the same payments of one or more seeds."""

    default: Figures
    fixed: Figures

    def by(self, ratio: Ratio) -> Difference:
        """Return by how much the default policy exceeds its rival."""
        found = difference(ratio, self.default.told, self.fixed.told)
        assert found is not None
        return found


def duel(seed: int, payments: int) -> Duel:
    """Play both on the world of one seed."""
    return Duel(*(figures_of(BuiltInWorld(seed, payments), plan_named(word)) for word in (DEFAULT, FIXED)))


def together(duels: list[Duel]) -> Duel:
    """Return all payments of several duels as one: customers of two seeds are different people."""
    sides = ((each.default for each in duels), (each.fixed for each in duels))
    return Duel(*(Figures(side[0].policy, [one for each in side for one in each.told]) for side in map(list, sides)))


def main() -> None:
    """Print the table."""
    payments = int(sys.argv[1]) if len(sys.argv) > 1 else PAYMENTS
    print(f"| seed | {' | '.join(SHOWN)} | violations |\n|---|{'---|' * len(SHOWN)}---|", flush=True)  # noqa: T201
    duels = {str(seed): duel(seed, payments) for seed in SEEDS}
    for name, found in (*duels.items(), ("all", together(list(duels.values())))):
        print(f"| {name} | {' | '.join(_cell(found, each) for each in SHOWN)} | {_violations(found)} |")  # noqa: T201


def _cell(found: Duel, name: str) -> str:
    """Return both figures, and their difference with its interval: shares in percentage points."""
    ratio, scale = RATIOS[name], 100 if name.endswith("share") else 1
    both = [scale * (ratio.of(each.told) or 0) for each in (found.default, found.fixed)]
    gap = found.by(ratio)
    low, high = (scale * edge for edge in gap.interval)
    return f"{both[0]:.2f} - {both[1]:.2f}: {scale * gap.value:+.2f} ({low:+.2f} to {high:+.2f})"


def _violations(found: Duel) -> str:
    return " - ".join(str(violations(each)) for each in (found.default, found.fixed))


def violations(figures: Figures) -> int:
    """Return how many charges broke a limit."""
    return sum(one.broken.closed + one.broken.budget + one.broken.never for one in figures.told)


if __name__ == "__main__":
    main()
