"""What do banks and customers answer in a story? Exactly what is written down in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from schedules import Card, Decline, FailedPayment

JSON = dict[str, Any]
NEW_YORK = "America/New_York"
FUNDS = Decline("insufficient_funds", None, "51", None, "issuer_declined", "insufficient_funds")
VISA = Card("OLDoldOLDoldOLD1", "visa", "debit", "US", 4, 2027, "1881")
NEWER = Card("NEWnewNEWnewNEW1", "visa", "credit", "US", 9, 2029, "4242")


def local(text: str, zone: str = NEW_YORK) -> datetime:
    """Return the UTC instant of a wall time such as ``2026-01-12 10:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


FAILED_AT = local("2026-01-12 10:00")  # a Monday


def a_payment(**given: Any) -> FailedPayment:
    """Return a failed renewal: lack of funds on a Visa debit card of New York, unless told otherwise."""
    usual: JSON = {
        "payment_id": "in_1",
        "customer_id": "cus_1",
        "subscription_id": "sub_1",
        "amount_minor": 1999,
        "currency": "usd",
        "failed_at": FAILED_AT,
        "decline": FUNDS,
        "card": VISA,
        "time_zone": NEW_YORK,
        "locale": "en-US",
        "tenure_days": 90,
    }
    return FailedPayment(**{**usual, **given})


@dataclass
class Scripted:
    """A world of written-down answers: charges are refused as the renewal was, but for the answers given here."""

    payments: tuple[FailedPayment, ...]
    answers: Mapping[str, list[Decline | None]] = field(default_factory=dict)
    acts: Mapping[str, list[tuple[str, datetime]]] = field(default_factory=dict)
    updates: Mapping[str, list[tuple[datetime, Card]]] = field(default_factory=dict)
    new_card: Card = NEWER
    accounts: Mapping[str, str] = field(default_factory=dict)

    def failures(self) -> Iterable[FailedPayment]:
        """Return the written renewals."""
        return self.payments

    def _payment(self, payment_id: str) -> FailedPayment:
        return next(each for each in self.payments if each.payment_id == payment_id)

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the card entered by hand, else the one of the card updater, else the one that failed."""
        if any(act == "card" and when <= at for act, when in self.acts.get(payment_id, ())):
            return self.new_card
        updated = [card for when, card in self.updates.get(payment_id, ()) if when <= at]
        return updated[-1] if updated else self._payment(payment_id).card

    def charge(self, payment_id: str, at: datetime) -> Decline | None:  # noqa: ARG002 - part of the protocol
        """Give the next written answer, else refuse as before."""
        answers = self.answers.get(payment_id)
        return answers.pop(0) if answers else self._payment(payment_id).decline

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Do nothing: a scripted customer acts when it is written."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the first written act later than ``after``."""
        coming = [act for act in self.acts.get(payment_id, ()) if act[1] > after]
        return min(coming, key=lambda act: act[1], default=None)

    def next_update(self, payment_id: str, after: datetime) -> datetime | None:
        """Return the first written card update later than ``after``."""
        return min((when for when, _ in self.updates.get(payment_id, ()) if when > after), default=None)

    def zone(self, payment_id: str) -> str:
        """Everybody banks where they live."""
        return self._payment(payment_id).time_zone or "UTC"

    def account(self, payment_id: str) -> str | None:
        """Return the connected account whose renewal it is."""
        return self.accounts.get(payment_id)

    def close(self) -> None:
        """Nothing to release."""
