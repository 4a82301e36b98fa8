"""What does the built-in world believe? The numbers of ``world.toml``, at their low, middle or high value."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

NUMBERS = ("causes", "authentication", "debit", "funds", "tries", "updater", "customers")


@dataclass(frozen=True)
class Beliefs:
    """``numbers`` by dotted name, and the tables of codes, countries and advice as they stand in the file."""

    numbers: Mapping[str, float]
    tables: Mapping[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]


def names() -> list[str]:
    """Return the names of all numbers that have a low and a high value."""
    return [f"{section}.{name}" for section in NUMBERS for name in _file()[section]]


def load_beliefs(levels: Mapping[str, str] | None = None) -> Beliefs:
    """Read the middle values, or for the names in ``levels`` the ``low`` or ``high`` one.

    Raises ``KeyError`` for a name or a level that does not exist.
    """
    tables, chosen = _file(), dict(levels or {})
    rows = {f"{section}.{name}": row for section in NUMBERS for name, row in tables[section].items()}
    unknown = set(chosen) - set(rows)
    if unknown:
        msg = f"no such value in world.toml: {', '.join(sorted(unknown))}"
        raise KeyError(msg)
    return Beliefs({name: float(row[chosen.get(name, "mid")]) for name, row in rows.items()}, tables)


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("world.toml").read_text(encoding="utf-8"))


def pick(dice: Random, weights: Mapping[str, float]) -> str:
    """Draw one key in proportion to its weight."""
    keys: Sequence[str] = tuple(weights)
    return dice.choices(keys, tuple(weights.values()))[0]
