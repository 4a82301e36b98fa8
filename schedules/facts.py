"""What is known about one unpaid invoice: frozen values, no behaviour beyond reading them.

Instants are aware UTC datetimes, money is an integer of minor units, unknown values are ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """The stored credential as the provider shows it at one instant.

    ``brand`` is the provider's word: ``visa``, ``mastercard``, ``amex``, ...; for a bank debit it is the
    method (``us_bank_account``, ``sepa_debit``, ``bacs_debit``). ``funding`` is ``credit``, ``debit``,
    ``prepaid`` or ``unknown``; ``country`` is the issuer's ISO 3166-1 alpha-2 code. ``last4`` are the last digits.
    """

    fingerprint: str | None = None
    brand: str | None = None
    funding: str | None = None
    country: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    last4: str | None = None

    def expires_by(self, at: datetime) -> bool:
        """Whether the month until which it is valid is over at ``at``; what is not known does not expire."""
        return None not in (self.exp_year, self.exp_month) and (self.exp_year, self.exp_month) < (at.year, at.month)

    def differs(self, other: Card) -> bool:
        """Whether this is another credential: the number or the expiry changed. What is not known did not change."""
        mine = (self.fingerprint, self.exp_month, self.exp_year, self.last4)
        theirs = (other.fingerprint, other.exp_month, other.exp_year, other.last4)
        return mine != theirs and any(
            None not in pair and pair[0] != pair[1] for pair in zip(mine, theirs, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Decline:
    """Why a charge failed, in the provider's and the network's own codes."""

    code: str | None = None
    advice_code: str | None = None
    network_decline_code: str | None = None
    network_advice_code: str | None = None
    outcome_type: str | None = None
    outcome_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FailedPayment:
    """One renewal that failed: what opens a case.

    ``payment_id`` is the id of the invoice, or of a payment intent without one (``pi_…``). ``plan`` are the
    names of its prices, joined by ``+``.

    Raises ``ValueError`` for a naive ``failed_at``; it is turned into UTC otherwise.
    """

    payment_id: str
    customer_id: str
    subscription_id: str | None
    amount_minor: int
    currency: str
    failed_at: datetime
    decline: Decline
    card: Card
    time_zone: str | None = None
    locale: str | None = None
    tenure_days: int | None = None
    plan: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "failed_at", utc(self.failed_at))


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """One charge of this case that the bank answered with a decline, whoever made it. Numbers start at 1."""

    number: int
    at: datetime
    card: Card
    decline: Decline


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the decision may look at. Built by ``worker.cases`` or by a simulation, nowhere else.

    ``card`` is the credential as last read, ``card_entered_at`` when the customer stored it by hand
    (``None``: it came with the case or from the card updater). ``refreshed_at`` is the last reading.
    ``ended`` is what the provider says is over: ``paid``, ``canceled`` (by the
    customer), ``lapsed`` (subscription ended by the provider for lack of payment), ``voided``, ``disputed``.
    ``uses`` are the instants of every charge on this fingerprint in the last 30 days, over all cases.
    ``card_due`` is when the older open cases of this fingerprint are to be charged.
    ``contacted`` are the notices of this case, ``customer_contacts`` those of all the customer's cases.
    ``successes`` are the instants at which earlier cases of the customer were recovered. ``retried_elsewhere``: the
    provider's own engine will charge this invoice again. ``asked_at`` is when an operator last asked for a charge.
    """

    payment: FailedPayment
    card: Card
    card_entered_at: datetime | None = None
    refreshed_at: datetime | None = None
    attempts: tuple[PastAttempt, ...] = ()
    uses: tuple[datetime, ...] = ()
    card_due: tuple[datetime, ...] = ()
    contacted: tuple[datetime, ...] = ()
    customer_contacts: tuple[datetime, ...] = ()
    successes: tuple[datetime, ...] = ()
    ended: str | None = None
    paused: bool = False
    retried_elsewhere: bool = False
    asked_at: datetime | None = None

    @property
    def last_failure(self) -> datetime:
        """When a bank last said no: the latest attempt, or the renewal itself."""
        return self.attempts[-1].at if self.attempts else self.payment.failed_at

    @property
    def refusals(self) -> tuple[FailedPayment | PastAttempt, ...]:
        """Every refusal of the case in order: the renewal's, then those of the attempts."""
        return (self.payment, *self.attempts)

    @property
    def refused(self) -> tuple[FailedPayment | PastAttempt, ...]:
        """The refusals of the credential that is stored now; the first is no retry of it. Empty: a fresh card."""
        return tuple(each for each in self.refusals if not each.card.differs(self.card))

    @property
    def refusal(self) -> FailedPayment | PastAttempt:
        """The latest refusal of the stored credential, else the latest of the case."""
        return (self.refused or self.refusals)[-1]


def by_name(facts: Card | Decline) -> dict[str, Any]:
    """Return the facts of a card or a decline by name; a plain copy, for they hold nothing but text and numbers."""
    return {name: getattr(facts, name) for name in facts.__slots__}


def utc(instant: datetime) -> datetime:
    """Return the same instant in UTC; raise ``ValueError`` when it has no time zone."""
    if instant.tzinfo is None:
        msg = f"instant without a time zone: {instant.isoformat()}"
        raise ValueError(msg)
    return instant.astimezone(UTC)


def hours(number: float) -> timedelta:
    """``number`` of hours as a duration."""
    return timedelta(hours=number)
