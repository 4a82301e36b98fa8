"""What may a merchant tell us about a customer that no provider knows? A few kinds of numbers, each with its range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """What a number means, from where to where it goes, and whether ``more`` of it is the worse sign."""

    meaning: str
    least: float
    most: float
    more_is_worse: bool
    whole: bool = False


KINDS: Mapping[str, Kind] = {
    "tickets_unresolved": Kind("support tickets that are open now", 0, 100_000, more_is_worse=True, whole=True),
    "usage_change_percent": Kind("use of the last 30 days against the 30 before", -100, 100_000, more_is_worse=False),
    "satisfaction": Kind("the customer's latest score, 10 is best", 0, 10, more_is_worse=False),
}


def checked(kind: Any, value: Any) -> float:
    """Return the value of a signal; raise ``ValueError`` naming what is wrong with its kind or its value."""
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        msg = f"kind: expected one of {', '.join(KINDS)}"
        raise ValueError(msg)
    # What is no number compares with nothing: NaN lies in no range either.
    fits = type(value) in (int, float) and known.least <= value <= known.most
    if not fits or (known.whole and value != int(value)):
        number = "a whole number" if known.whole else "a number"
        msg = f"value: expected {number} from {known.least:,} to {known.most:,} for {kind}"
        raise ValueError(msg)
    return float(value)
