"""A provider without a network: it shows every invoice as open and takes every charge, at once."""

from __future__ import annotations

from typing import Any

from benchmarks.renewals import DECLINE, FAILED_AT, renewal
from worker.readings import Reading
from worker.stripe_gateway import Outcome, Paid


class Instant:
    """Answers as the gateway does, about the invoices of ``benchmarks.renewals``."""

    def read(self, payment_id: str, *_told: Any, **_more: Any) -> Reading:
        """Return an unpaid invoice."""
        number = payment_id.removeprefix("in_")
        failed = renewal(number)
        return Reading(
            payment_id,
            failed.customer_id,
            ended=None,
            amount_minor=failed.amount_minor,
            currency=failed.currency,
            card=failed.card,
            charged=failed.card,
            method_id=f"pm_{number}_0",
            decline=DECLINE,
            charge_id=f"ch_{number}_0",
            in_flight=False,
            waits_for_customer=False,
            retried_by_provider=False,
            email=None,
            link=None,
            time_zone=failed.time_zone,
            locale=failed.locale,
            charged_at=FAILED_AT,
            intent_id=f"pi_{number}",
        )

    def events(self, *_told: Any) -> list[dict[str, Any]]:
        """Tell of nothing."""
        return []

    def open_invoices(self, *_told: Any) -> list[dict[str, Any]]:
        """Tell of no invoice that nobody knows."""
        return []

    def pay(self, *_told: Any, **_more: Any) -> Outcome:
        """Take the money."""
        return Paid()
