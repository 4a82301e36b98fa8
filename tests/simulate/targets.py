"""How near does the built-in world come to published figures? `python -m tests.simulate.targets` prints the table.

docs/simulate.md shows it, with the grade of each published figure. The reference fit has no card updater in the rows
before the one that adds it, so they are played without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from schedules import Policy
from worker.practice.world import BuiltInWorld
from worker.simulate import Played, play
from worker.simulate.fixed import Fixed
from worker.simulate.policies import Plan, plan_of

DAY = timedelta(days=1)
SEED, PAYMENTS = 1, 10_000


class NoUpdater(BuiltInWorld):
    """The built-in world without a card updater."""

    def __init__(self, seed: int, payments: int) -> None:
        super().__init__(seed, payments)
        self._people = {name: replace(person, updated_at=None) for name, person in self._people.items()}


@dataclass(frozen=True, slots=True)
class Run:
    """What a policy did to a world."""

    played: list[Played]

    @property
    def back(self) -> list[Played]:
        """Return what came back within 30 days."""
        return [each for each in self.played if each.recovered]

    @property
    def share(self) -> float:
        """Return how many percent came back."""
        return 100 * len(self.back) / len(self.played)

    @property
    def silent(self) -> float:
        """Return how many percent of what came back a charge won on a card that the customer had not entered."""
        won = [each for each in self.back if each.tries and each.tries[-1].decline is None]
        return 100 * sum(each.tries[-1].facts.card_entered_at is None for each in won) / len(self.back)

    def within(self, days: float) -> float:
        """Return how many percent of all were back so early."""
        early = (each for each in self.back if each.closed_at and each.closed_at <= each.payment.failed_at + days * DAY)
        return 100 * sum(1 for _ in early) / len(self.played)

    @property
    def nine_tenths(self) -> float:
        """Return after how many days nine tenths of what came back were back."""
        days = sorted((each.closed_at - each.payment.failed_at) / DAY for each in self.back if each.closed_at)
        return days[int(0.9 * len(days))]

    @property
    def first_retry(self) -> float:
        """Return how many percent of the first retries were approved."""
        first = [each.tries[0] for each in self.played if each.tries]
        return 100 * sum(each.decline is None for each in first) / len(first)

    @property
    def attempts(self) -> float:
        """Return how many charges each recovery took."""
        return sum(len(each.tries) for each in self.played) / len(self.back)

    @property
    def driven_away(self) -> float:
        """Return how many percent canceled within 7 days after a notice."""
        return 100 * sum(each.outcome == "canceled" and each.touched() for each in self.played) / len(self.played)


DEFAULT = Policy.default()
SILENT = replace(DEFAULT, ladder=(), silent_days=DEFAULT.deadline_days)
PLANS: Mapping[str, tuple[type[BuiltInWorld], Plan]] = {
    "nothing": (NoUpdater, Plan("nothing", Fixed((), ()))),
    "three": (NoUpdater, Plan("three", Fixed((3, 5, 7), (), hour=2))),
    "three by day": (NoUpdater, Plan("three by day", Fixed((3, 5, 7), (), hour=10))),
    "four": (NoUpdater, Plan("four", Fixed((1, 3, 5, 7), (0, 3, 7), hour=2))),
    "silent": (NoUpdater, plan_of("silent", SILENT)),
    "updater": (BuiltInWorld, plan_of("updater", SILENT)),
    "default": (BuiltInWorld, plan_of("default", DEFAULT)),
    "early": (BuiltInWorld, plan_of("early", replace(DEFAULT, silent_days=0))),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure with what is published for it, what the reference fit gives, and how to measure it here.

    ``tolerance`` is by how much ours may miss the reference: what the fit leaves out or knows too much of, and chance.
    """

    what: str
    published: str
    reference: float
    measure: Callable[[Mapping[str, Run]], float]
    tolerance: float


TARGETS = (
    Target("nothing", "-", 6.4, lambda runs: runs["nothing"].share, 2),
    Target("3 retries on days 3, 5, 7 at 02:00, no mail", "33 to 38", 36.3, lambda runs: runs["three"].share, 6),
    Target("the same at 10:00", "-", 39.7, lambda runs: runs["three by day"].share, 7),
    Target(
        "4 retries on days 1, 3, 5, 7 at 02:00, mails 0, 3, 7", "48 to 53", 50.9, lambda runs: runs["four"].share, 7
    ),
    Target("timed silent retries, 8 or fewer (blind, see below)", "-", 53.7, lambda runs: runs["silent"].share, 9),
    Target("and the updater: points more", "-", 7.9, lambda runs: runs["updater"].share - runs["silent"].share, 3),
    Target("and mails after silence: the default policy", "about 71", 69.8, lambda runs: runs["default"].share, 9),
    Target("mails from day 0 instead: points", "-", -0.8, lambda runs: runs["early"].share - runs["default"].share, 2),
    Target(
        "and cancelations after a notice: points more",
        "-",
        0.7,
        lambda runs: runs["early"].driven_away - runs["default"].driven_away,
        0.7,
    ),
    Target("of recoveries silent, default policy", "60 to 78", 79, lambda runs: runs["default"].silent, 8),
    Target("of recoveries silent, 4 retries with mails", "60 to 78", 59, lambda runs: runs["four"].silent, 8),
    Target("back before 3 days, 3 retries", "12 to 18", 18, lambda runs: runs["three"].within(3), 6),
    Target("back before 3 days, default policy", "12 to 18", 26, lambda runs: runs["default"].within(3), 10),
    Target("90 % of recoveries by day", "10", 14, lambda runs: runs["default"].nine_tenths, 5),
    Target("first retry approved, on day 3 at 10:00", "25 to 35", 22, lambda runs: runs["three by day"].first_retry, 6),
    Target("charges for each recovery, default policy", "-", 4.3, lambda runs: runs["default"].attempts, 1),
)


def runs_of(seed: int, payments: int) -> dict[str, Run]:
    """Play every policy of the table."""
    return {
        name: Run(list(play(world(seed, payments), plan.decide, cooldown=plan.cooldown)))
        for name, (world, plan) in PLANS.items()
    }


def main() -> None:
    """Print the table."""
    payments = int(sys.argv[1]) if len(sys.argv) > 1 else PAYMENTS
    runs = runs_of(SEED, payments)
    print("| measure | published | reference fit | here |\n|---|---|---|---|")  # noqa: T201 - it is made to print
    for each in TARGETS:
        print(f"| {each.what} | {each.published} | {each.reference:g} | {each.measure(runs):.1f} |")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
