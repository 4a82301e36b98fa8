"""What a measurement is: one figure for each round, all ways of a piece of work taking turns within a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: so many rounds, of a share of the full work."""

    rounds: int = 5
    share: float = 1.0

    def of(self, count: int) -> int:
        """Return the share of a full count, at least 1."""
        return max(int(count * self.share), 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a piece of work in every round; ``least`` and ``most`` bound what its median is asked to be."""

    work: str
    what: str
    unit: str
    runs: tuple[float, ...]
    least: float | None = None
    most: float | None = None

    @property
    def median(self) -> float:
        """Return the middle one of the rounds."""
        return median(self.runs)

    @property
    def met(self) -> bool | None:
        """Return whether the median is as asked; None where nothing is asked."""
        if self.least is None and self.most is None:
            return None
        low, high = self.least, self.most
        return (low is None or self.median >= low) and (high is None or self.median <= high)

    def as_json(self) -> dict[str, Any]:
        """Return the row with its median and all its rounds."""
        asked = {"least": self.least, "most": self.most, "met": self.met} if self.met is not None else {}
        runs = [float(f"{each:.6g}") for each in self.runs]
        return {"work": self.work, "what": self.what, "unit": self.unit, "median": median(runs), "runs": runs, **asked}


def interleave(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, tuple[T, ...]]:
    """Run every way once in each round, each round beginning with another one; return what each way found."""
    names, found = list(ways), {name: list[T]() for name in ways}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(ways[name]())
    return {name: tuple(runs) for name, runs in found.items()}


def ratios(above: Iterable[float], below: Iterable[float]) -> tuple[float, ...]:
    """Return the ratio of two figures of the same round, for each round."""
    return tuple(one / other for one, other in zip(above, below, strict=True))
