"""Values for the tests of the simulator: a small world of written-down answers, and how to play it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from schedules import Card, Decline, FailedPayment
from tests.worker.builders import CARD, ENTERED, FUNDS, LOST, RENEWED, START, payment
from worker.simulate import Played, play
from worker.simulate.policies import plan_named

__all__ = ["CARD", "DAY", "ENTERED", "FUNDS", "HOUR", "LOST", "RENEWED", "START", "Written", "failed", "played"]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def failed(number: int = 1, **changes: Any) -> FailedPayment:
    """A failed renewal with a card of its own."""
    own = replace(CARD, fingerprint=f"fingerprint-{number}")
    return replace(payment(number), **{"card": own, **changes})


@dataclass
class Written:
    """A world of written-down answers by payment; charges that are not written down are refused as the renewal was.

    ``asked`` holds every call with its instant.
    """

    payments: Sequence[FailedPayment] = field(default_factory=lambda: [failed()])
    answers: Mapping[str, list[Decline | None]] = field(default_factory=dict)
    acts: Mapping[str, list[tuple[str, datetime]]] = field(default_factory=dict)
    asked: list[tuple[str, str, datetime]] = field(default_factory=list)
    closed: int = 0

    def failures(self) -> Iterable[FailedPayment]:
        """Return the renewals."""
        return self.payments

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the card that was entered by then, else the one that failed."""
        entered = any(act == "card" and when <= at for act, when in self.acts.get(payment_id, ()))
        return ENTERED if entered else next(p.card for p in self.payments if p.payment_id == payment_id)

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Give the next written answer."""
        self.asked.append(("charge", payment_id, at))
        answers = self.answers.get(payment_id)
        return answers.pop(0) if answers else next(p.decline for p in self.payments if p.payment_id == payment_id)

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Note that the customer was told."""
        self.asked.append((notice, payment_id, at))

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the first written act later than ``after``."""
        coming = (act for act in self.acts.get(payment_id, ()) if act[1] > after)
        return min(coming, key=lambda act: act[1], default=None)

    def close(self) -> None:
        """Count how often it is closed."""
        self.closed += 1


def played(world: Written, policy: str = "fixed") -> list[Played]:
    """Play a world to its end."""
    plan = plan_named(policy)
    return list(play(world, plan.decide, cooldown=plan.cooldown))
