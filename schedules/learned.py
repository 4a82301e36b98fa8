"""How likely is it that a charge passes at an instant? A model as a small readable file, scored without any library.

A model is a list of weights of a logistic regression. Each names something that a provider shows: ``funds/debit`` is
what the refusals say on what kind of card, and ``funds/debit hour=9`` how that hour of the issuer's day does there.
A weight that is not in the file is zero: what was seen seldom leans on what was seen often. How weights are
found is not this module's business (``dunning learn``).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import exp, isfinite
from pathlib import Path
from typing import Any

from schedules.paydays import latest_payday, paydays_after
from schedules.tables import PolicyError

SINCE = (1, 2, 3, 4, 6, 8, 11, 15, 21)  # days since the renewal failed, and since the last refusal: where bins begin
MOST_TRIES = 8
LAST_PAYDAY = 7
CAME = (0, 1, 2)
HORIZON = 400  # days; no case is open for longer
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, eq=False)
class Model:
    """Weights by name, and the ``version`` by which every attempt tells what chose its instant."""

    version: str
    base: float
    weights: Mapping[str, float]
    file: str = ""
    _scores: dict[tuple[str, ...], Scores] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model; raise ``PolicyError`` naming the file and what is wrong with it."""
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(given["version"]), _number("base", given["base"]), _weights(given["weights"]), str(path))
        except (TypeError, AttributeError):
            msg = f"model {path}: expected an object of version, base and weights"
        except KeyError as missing:
            msg = f"model {path}: {missing.args[0]}: missing"
        except (OSError, ValueError) as error:
            msg = f"model {path}: {error}"
        raise PolicyError(msg)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in its file."""
        return {"version": self.version, "base": self.base, "weights": dict(self.weights)}

    def scores(self, kind: str, country: str) -> Scores:
        """Return its weights for one kind of card, as tables."""
        key = (kind, country)
        if key not in self._scores:
            self._scores[key] = Scores.of(self, *key)
        return self._scores[key]

    def sum(self, names: Iterable[str]) -> float:
        """Add up weights; one that is not there is zero."""
        return sum(self.weights.get(name, 0.0) for name in names)


@dataclass(frozen=True, slots=True)
class Scores:
    """The part of a model that concerns one kind of card: what each hour, weekday, wait and try adds."""

    hour: tuple[float, ...]
    weekday: tuple[float, ...]
    monthday: tuple[float, ...]
    payday: tuple[float, ...]
    since: tuple[float, ...]
    advised: tuple[float, ...]
    gap: tuple[float, ...]
    came: tuple[tuple[float, ...], ...]
    past: tuple[tuple[float, ...], ...]
    tried: tuple[float, ...]
    number: tuple[float, ...]

    @classmethod
    def of(cls, model: Model, kind: str, country: str) -> Scores:
        """Add the weights that hold for all cards to those of this kind, and of this kind in this country."""

        def add(names: list[str]) -> tuple[float, ...]:
            return tuple(model.sum(_levels(kind, country, name)) for name in names)

        return cls(
            add([f"hour={hour}" for hour in range(24)]),
            add([f"weekday={day}" for day in WEEKDAYS]),
            add([f"monthday={day}" for day in range(32)]),
            add([f"payday={days}" for days in range(LAST_PAYDAY + 1)]),
            add([f"since={number}" for number in range(len(SINCE) + 1)]),
            add([f"advised={number}" for number in range(len(SINCE) + 1)]),
            add([f"gap={number}" for number in range(len(SINCE) + 1)]),
            tuple(add([f"came={weekly}{monthly}" for monthly in CAME]) for weekly in CAME),
            tuple(add([f"past={weekly}{monthly}" for monthly in CAME]) for weekly in CAME),
            add([f"tried={number}" for number in range(len(SINCE) + 1)]),
            add([f"try={number}" for number in range(MOST_TRIES + 1)]),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model sees of a case: nothing that names the customer, the merchant's price or a person.

    ``kind`` is what the refusals say on what kind of card, ``traits`` what else is known of card and refusals.
    ``failed``, ``refused`` and ``advised`` are local days of the issuer: of the renewal, of the latest refusal, and
    from when on the network advised to ask again, if it did.
    """

    kind: str
    country: str
    traits: tuple[str, ...]
    number: int
    failed: date
    refused: date
    advised: date | None
    weekly: tuple[str, ...]
    monthly: tuple[str, ...]

    @property
    def own(self) -> tuple[str, ...]:
        """The weights that hold at any instant."""
        traits = (f"country={self.country}", *self.traits)
        return (self.kind, *traits, *(f"{self.kind} {trait}" for trait in traits))


def terms(about: Seen, local: datetime) -> Iterator[str]:
    """Yield the names of all weights that add up to the chance of a charge at an instant of the issuer's clock."""
    day = local.date()
    names = [f"hour={local.hour}", f"weekday={WEEKDAYS[day.weekday()]}", f"monthday={day.day}"]
    names += [f"payday={_payday(about, day)}", f"since={_bin(day - about.failed)}", f"gap={_bin(day - about.refused)}"]
    paid, before = came(about, about.refused, day), came(about, about.failed, about.refused)
    names += [
        f"came={paid[0]}{paid[1]}",
        f"past={before[0]}{before[1]}",
        f"tried={_bin(about.refused - about.failed)}",
        f"try={about.number}",
        *([f"advised={_bin(day - about.advised)}"] if about.advised else ()),
    ]
    yield from about.own
    for name in names:
        yield from _levels(about.kind, about.country, name)


def chance(model: Model, about: Seen, local: datetime) -> float:
    """Return how likely a charge passes at an instant of the issuer's clock."""
    return sigmoid(model.base + model.sum(terms(about, local)))


def day_score(scores: Scores, about: Seen, day: date) -> float:
    """Return what a day adds, but for the wait since the last refusal."""
    by_day = scores.weekday[day.weekday()] + scores.monthday[day.day] + scores.payday[_payday(about, day)]
    advised = scores.advised[_bin(day - about.advised)] if about.advised else 0.0
    return by_day + scores.since[_bin(day - about.failed)] + advised


def gap_score(scores: Scores, about: Seen, refused: date, day: date) -> float:
    """Return what the wait since a refusal adds: its days and paydays, and those that had not helped before it."""
    weekly, monthly = came(about, refused, day)
    past = came(about, about.failed, refused)
    before = scores.tried[_bin(refused - about.failed)] + scores.past[past[0]][past[1]]
    return before + scores.gap[_bin(day - refused)] + scores.came[weekly][monthly]


def came(about: Seen, refused: date, day: date) -> tuple[int, int]:
    """Return how many paydays, by the week and by the month, have come since a refusal; two at most."""
    counts = []
    for habits in (about.weekly, about.monthly):
        paid = paydays_after(about.country, habits, about.failed, HORIZON)
        counts.append(min(bisect_right(paid, day) - bisect_right(paid, refused), CAME[-1]))
    return counts[0], counts[1]


def sigmoid(score: float) -> float:
    """Return the chance that a sum of weights stands for."""
    return 1 / (1 + exp(-score))


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(f"weights: {name}", weight) for name, weight in given.items()}


def _number(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given):
        msg = f"{name}: expected a number, found {given!r:.40}"
        raise ValueError(msg)
    return float(given)


def _levels(kind: str, country: str, name: str) -> tuple[str, str, str]:
    """Return the weight of all cards, how one kind differs, and how that kind differs in one country."""
    return name, f"{kind} {name}", f"{kind} {country} {name}"


def _bin(days: timedelta) -> int:
    return bisect_right(SINCE, days.days)


def _payday(about: Seen, day: date) -> int:
    return _days_since_payday(about.country, about.monthly or about.weekly, day)


@lru_cache(maxsize=65536)
def _days_since_payday(country: str, habits: tuple[str, ...], day: date) -> int:
    """Return how many days ago the last payday was, so many at most."""
    latest = latest_payday(country, habits, day, LAST_PAYDAY)
    return LAST_PAYDAY if latest is None else (day - latest).days
