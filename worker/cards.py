"""Which of the customer's stored cards is to be charged, and what became of the one that failed?

Stripe charges the first method that is set on the invoice, its subscription or the customer. When that one has been
refused, the default of another level may be better; other cards on file are read only when the policy says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from schedules import Card


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored payment method and what it shows; ``backup`` is one that no level names as its default."""

    method_id: str
    card: Card
    backup: bool = False


def choose(stored: Sequence[Stored], refused: Collection[Card], now: datetime) -> Stored:
    """Return the first method that no bank has refused in this case, else the one that Stripe would charge itself.

    ``stored`` comes in the order in which Stripe looks, the backups last.
    """
    first, *others = stored
    usable = (first, *(each for each in others if not expired(each.card, now)))
    return next((each for each in usable if all(each.card.differs(card) for card in refused)), first)


def expired(card: Card, now: datetime) -> bool:
    """Whether the month on the card is over, as far as it is known."""
    if card.exp_year is None or card.exp_month is None:
        return False
    return (card.exp_year, card.exp_month) < (now.year, now.month)


def refreshed(before: Card, after: Card, method_before: str | None, method_id: str | None) -> str:
    """Say what a reading found: the card ``updated`` or ``unchanged``, its method ``closed``, or ``none`` at all."""
    if method_id is None:
        return "none" if method_before is None else "closed"
    return "updated" if after.differs(before) or method_before not in (None, method_id) else "unchanged"
