"""What does the practice bank keep? Its records of customers, cards, invoices and charges.

``objects.py`` shows them to the outside in Stripe's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from schedules.facts import Card, Decline, FailedPayment

JSON = dict[str, Any]
NAMES = ("Ada", "Ben", "Carla", "Dev", "Emi", "Farid", "Grace", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Milo", "Nora")


@dataclass(slots=True)
class Method:
    """One stored payment method, whose fate the world tells under ``payment_id``.

    ``entered``: the customer stored it by hand; ``refused``: its last decline.
    """

    id: str
    customer_id: str
    payment_id: str
    card: Card
    created: datetime
    entered: bool = False
    refused: Decline | None = None


@dataclass(slots=True)
class Charged:
    """One charge as it was made, with the card it was made on."""

    id: str
    at: datetime
    method_id: str
    card: Card
    decline: Decline | None


@dataclass(slots=True)
class Customer:
    """One customer: who, since when, and the methods stored, the default last chosen.

    ``account``: the connected account whose customer it is; None is the merchant's own.
    """

    id: str
    created: datetime
    country: str | None
    locale: str | None
    time_zone: str | None
    currency: str
    methods: list[str] = field(default_factory=list)
    default: str | None = None
    account: str | None = None

    @property
    def name(self) -> str:
        """Return a first name that depends on the id alone."""
        return NAMES[sum(self.id.encode()) % len(NAMES)]

    @property
    def email(self) -> str:
        """Return an address under a domain that can never receive mail."""
        return f"{self.name.lower()}.{self.id.removeprefix('cus_')}@customer.example"


@dataclass(slots=True)
class Bill:
    """One invoice with its subscription, its payment intent and every charge made for it; or an intent alone.

    ``paused`` is what becomes of the subscription's next invoices while their collection is paused; ``advancing``
    whether the bank would go on with this one by itself.
    """

    payment: FailedPayment
    tail: str
    charges: list[Charged]
    status: str = "open"
    closed_at: datetime | None = None
    own_method: str | None = None
    canceled_at: datetime | None = None
    paused: str | None = None
    advancing: bool = True
    cancellation: JSON = field(default_factory=lambda: {"comment": None, "feedback": None, "reason": None})
    version: int = 0

    @property
    def id(self) -> str:
        """Return the id of the invoice, or of the payment intent without one."""
        return self.payment.payment_id

    @property
    def invoiced(self) -> bool:
        """Say whether there is an invoice; a one-off payment intent has none."""
        return not self.id.startswith("pi_")

    @property
    def intent_id(self) -> str:
        """Return the id of its one payment intent."""
        return f"pi_{self.tail}"

    @property
    def created(self) -> datetime:
        """Stripe tries an invoice an hour after it was created."""
        return self.payment.failed_at - timedelta(hours=1)


def seconds(at: datetime | None) -> int | None:
    """Return whole Unix seconds."""
    return None if at is None else int(at.timestamp())
