"""What to do next about a case: one of five steps, each with its instant and its reasons.

A reason is ``rule: what it asked for``; the word before the colon is machine-readable and stable.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Refresh:
    """Read the invoice and the stored card again."""

    at: datetime
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Charge:
    """Charge the stored card; ``attempt`` counts from 1.

    ``model`` is the version of the model that chose the instant, and ``propensity`` how likely this part of the day was
    to be chosen; both None where the rules leave no choice.
    """

    at: datetime
    attempt: int
    reasons: tuple[str, ...] = ()
    model: str | None = None
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """Send the customer one notice, named by the contact ladder."""

    at: datetime
    notice: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``at``."""

    at: datetime
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """The case ends as ``recovered``, ``lost``, ``canceled`` or ``released``."""

    at: datetime
    outcome: str
    reasons: tuple[str, ...] = ()


Step = Refresh | Charge | Contact | Wait | Close


def as_json(step: Step) -> dict[str, Any]:
    """Return a step as a JSON object: ``step``, ``at`` (UTC, ending in Z), its own fields and ``reasons``."""
    told: dict[str, Any] = {"step": type(step).__name__.lower()}
    told |= {field.name: value for field in fields(step) if (value := getattr(step, field.name)) is not None}
    return {**told, "at": utc_text(step.at), "reasons": list(told.pop("reasons"))}


def utc_text(at: datetime) -> str:
    """Return a UTC instant as people and machines read it, to the second."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
