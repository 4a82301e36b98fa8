"""Who is not written to, and why? Who chose so, whose address sends mail back, and whom a person has named.

An address is known by its digest alone: a customer who mends it is written to again. Whoever reads the database can
test a guess with it, and no more.
"""

from __future__ import annotations

import hmac
import unicodedata
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Policy
from worker.models import install, suppressions

OPTED_OUT, BY_HAND, BOUNCED, COMPLAINED = "opted_out", "by_hand", "bounced", "complained"
REASONS = {
    OPTED_OUT: "the customer wants no reminders",
    BY_HAND: "the customer is not to be written to",
    BOUNCED: "mail to this address came back",
    COMPLAINED: "mail to this address was called unwanted",
}


class Customer(NamedTuple):
    """A customer of an account; of one's own it is None."""

    customer_id: str
    account: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Customer:
        """Return whom a row is about."""
        return cls(row.customer_id, row.account)

    @property
    def theirs(self) -> Any:
        """The condition that a suppression is about this customer."""
        mine = suppressions.c.customer_id == self.customer_id
        return mine & suppressions.c.account.is_not_distinct_from(self.account)


def digest(db: Connection, address: str) -> str:
    """Return what stands for an address in this installation, in small or in capital letters."""
    key = db.execute(select(install.c.id)).scalar_one().bytes
    plain = unicodedata.normalize("NFC", address.strip()).casefold()
    return hmac.digest(key, plain.encode(errors="backslashreplace"), "sha256").hex()


def suppress(db: Connection, customer: Customer, why: str, now: datetime, address: str | None = None) -> bool:
    """Note why a customer is not written to, and at which address if it is about one; False when it was noted."""
    row = {**customer._asdict(), "why": why, "address": address, "at": now}
    new = upsert(suppressions).values(row).on_conflict_do_nothing().returning(suppressions.c.id)
    return db.execute(new).first() is not None


def refusal(db: Connection, customer: Customer, notice: str, address: str | None, policy: Policy) -> str | None:
    """Say why a customer is not to get a notice, by mail at an address or else by another channel; or None."""
    about = [BY_HAND, OPTED_OUT] if notice in policy.optional else [BY_HAND]
    found = customer.theirs & suppressions.c.why.in_(about)
    if address is not None:
        found = or_(found, suppressions.c.address == address)
    row = db.execute(select(suppressions).where(found).order_by(suppressions.c.id).limit(1)).first()
    if row is None:
        return None
    known_by = "" if Customer.of(row) == customer else f", noted of {row.customer_id}"
    return REASONS[row.why] + known_by


def listed(db: Connection) -> list[Row[Any]]:
    """Return who is not written to, the oldest first."""
    return list(db.execute(select(suppressions).order_by(suppressions.c.at, suppressions.c.id)))


def lift(db: Connection, customer: Customer) -> list[str]:
    """Write to a customer again, and to all who share the address; return why that was not so."""
    addresses = select(suppressions.c.address).where(customer.theirs, suppressions.c.address.is_not(None))
    gone = delete(suppressions).where(or_(customer.theirs, suppressions.c.address.in_(addresses)))
    return sorted(set(db.execute(gone.returning(suppressions.c.why)).scalars()))
