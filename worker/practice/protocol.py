"""What is a world? Banks and customers, as a simulation or the practice bank plays against them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from schedules.facts import Card, Decline, FailedPayment

CARD, CANCEL, PAID = ACTS = ("card", "cancel", "paid")


class World(Protocol):
    """The methods of one payment are called in that payment's time order. docs/simulate.md shows a whole world.

    Two more methods may be there: ``next_update(payment_id, after)``, when the card updater will renew the stored card
    (a provider tells of it by an event), and ``zone(payment_id)``, the issuer's true time zone, to judge charges by.
    """

    def failures(self) -> Iterable[FailedPayment]:
        """Yield the failed renewals in time order."""

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the stored card at an instant."""

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Charge it; ``None`` is an approval."""

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Tell the customer."""

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the customer's own first act later than ``after``: one of ``ACTS`` and its instant."""

    def close(self) -> None:
        """Release what the world holds."""
