"""Values for the tests of decisions, each with a default that a test may overrule.

Everything happens after one failure, on a Tuesday night in Berlin: a Visa card without money on it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from schedules import Card, Decline, Facts, FailedPayment, PastAttempt

FAILED = datetime(2026, 11, 3, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def card(**changes: Any) -> Card:
    """A German Visa card that no other test value shares a number with."""
    return replace(Card("fp_first", "visa", "credit", "DE", 12, 2030), **changes)


def declined(code: str | None = "insufficient_funds", **changes: Any) -> Decline:
    """A refusal by the bank with nothing but this code."""
    return Decline(code, **changes)


def payment(**changes: Any) -> FailedPayment:
    """The renewal that failed."""
    failed = FailedPayment("in_1", "cus_1", "sub_1", 1900, "eur", FAILED, declined(), card())
    return replace(failed, **changes)


def facts(code: str | None = "insufficient_funds", **changes: Any) -> Facts:
    """A case whose card was read right after the renewal failed with ``code``."""
    known = Facts(payment=payment(decline=declined(code)), card=card(), refreshed_at=FAILED + MINUTE, uses=(FAILED,))
    return replace(known, **changes)


def attempt(
    number: int = 1, at: datetime = FAILED + DAY, code: str = "insufficient_funds", **changes: Any
) -> PastAttempt:
    """A charge that the bank refused."""
    return replace(PastAttempt(number, at, card(), declined(code)), **changes)


def berlin(day: int, hour: int, minute: int = 0) -> datetime:
    """The UTC instant of a wall time in Berlin, in the November of the failure."""
    return datetime(2026, 11, day, hour, minute, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
