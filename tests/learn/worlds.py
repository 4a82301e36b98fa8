"""Worlds whose banks have habits of their own: a charge passes by the issuer's clock or calendar, by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from schedules import Card, Decline, Facts, FailedPayment, Policy
from schedules.case import case_of
from schedules.charges import next_charge
from worker.learn import Sample

START = datetime(2026, 3, 2, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
FUNDS = Decline(code="insufficient_funds")
CARDS = [Card(f"fp_{number}", "visa", "debit", "DE", 12, 2030) for number in range(10)]


@dataclass(frozen=True)
class Habit:
    """How likely a charge passes at a local instant, and which instants are ``good`` ones."""

    name: str
    chance: Callable[[datetime], float]
    good: Callable[[datetime], bool] = lambda _: True


BAD_MORNINGS = Habit("bad mornings", lambda at: 0.05 if at.hour < 12 else 0.35, lambda at: at.hour >= 12)
NIGHT_IS_BETTER = Habit("night is better", lambda at: 0.4 if not 6 <= at.hour < 18 else 0.1, lambda at: at.hour >= 18)
TWENTIETH = Habit("paid on the 20th", lambda at: 0.9 if 20 <= at.day < 23 else 0.05, lambda at: 20 <= at.day < 23)
NO_NIGHT = Habit("any hour, no weekend", lambda at: 0.05 if at.weekday() > 4 else 0.3, lambda at: at.weekday() < 5)
NOISE = Habit("noise", lambda _: 0.2)


def failed(seed: int, number: int) -> FailedPayment:
    """Return a renewal that failed within two weeks."""
    at = START + timedelta(seconds=Random(f"{seed}:{number}").randrange(14 * 86400))
    name = f"{seed}_{number}"
    return FailedPayment(f"in_{name}", f"cus_{name}", None, 1900, "eur", at, FUNDS, CARDS[number % 10], "Europe/Berlin")


def first_charge(payment: FailedPayment, policy: Policy) -> tuple[Facts, datetime, float | None]:
    """Return when a payment is charged first, with what is known then, and how likely that choice was."""
    facts = Facts(payment, payment.card, refreshed_at=payment.failed_at, uses=(payment.failed_at,))
    charge, _ = next_charge(case_of(facts, policy, payment.failed_at))
    assert charge is not None
    return facts, charge.at, charge.propensity


def samples(habit: Habit, count: int, policy: Policy, seed: int = 1) -> Iterator[Sample]:
    """Yield the first charges of so many payments under a policy, with this bank's answers."""
    for number in range(count):
        facts, at, propensity = first_charge(failed(seed, number), policy)
        luck = Random(f"{seed}:{number}:answer").random()
        yield Sample(facts, at, luck < habit.chance(at.astimezone(ZONE)), propensity)


class World:
    """A world of one habit for the simulator: nobody answers a notice, no card is renewed."""

    def __init__(self, habit: Habit, payments: int) -> None:
        self._habit, self._payments, self._dice = habit, payments, Random(payments)

    def failures(self) -> Iterable[FailedPayment]:
        """Return the renewals in time order."""
        return sorted((failed(2, number) for number in range(self._payments)), key=lambda each: each.failed_at)

    def card(self, payment_id: str, at: datetime) -> Card:  # noqa: ARG002
        """Return the card of the customer, who has several payments to make."""
        return CARDS[int(payment_id.rpartition("_")[2]) % 10]

    def charge(self, payment_id: str, at: datetime) -> Decline | None:  # noqa: ARG002
        """Pass by the issuer's clock."""
        return None if self._dice.random() < self._habit.chance(at.astimezone(ZONE)) else FUNDS

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Nobody reads it."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:  # noqa: ARG002
        """Nobody acts."""
        return None

    def close(self) -> None:
        """Nothing to release."""
