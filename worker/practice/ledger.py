"""Was the merchant well behaved? Every charge the bank saw, judged by what only the bank knows."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.practice.events import Cause
    from worker.practice.records import JSON, Bill, Charged, Method

CLOSED_FROM, CLOSED_UNTIL = time(0, 30), time(6, 0)
OWN_CARD = timedelta(hours=1)


class Ledger:
    """The charges after the renewals themselves, and the requests that were made."""

    def __init__(self, world: object) -> None:
        self._zone: Callable[[str], str] | None = getattr(world, "zone", None)
        self.attempts: list[JSON] = []
        self.approvals: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refused_on_paid = 0

    def write(self, bill: Bill, charged: Charged, method: Method, cause: Cause, *, by: str) -> None:
        """Note one charge; for the bank's hours in the issuer's true zone, when the world tells it."""
        local = self._local(bill, charged.at)
        closed = local is not None and CLOSED_FROM <= local.time() < CLOSED_UNTIL
        self.approvals[bill.id] += charged.decline is None
        self.attempts.append(
            {
                "invoice": bill.id,
                "charge": charged.id,
                "at": charged.at.isoformat(),
                "local": local.isoformat() if local else None,
                "approved": charged.decline is None,
                "code": charged.decline.code if charged.decline else None,
                "fingerprint": charged.card.fingerprint,
                "idempotency_key": cause.key,
                "request_id": cause.request_id,
                "by": by,
                "off_hours": closed,
                "own_card": method.entered and charged.at - method.created <= OWN_CARD,
            }
        )

    def _local(self, bill: Bill, at: datetime) -> datetime | None:
        zone = self._zone(bill.id) if self._zone else bill.payment.time_zone
        return at.astimezone(ZoneInfo(zone)) if zone else None

    def body(self, payments: int) -> JSON:
        """Return the whole ledger with its summary."""
        approved = {invoice: count for invoice, count in self.approvals.items() if count}
        return {"attempts": self.attempts, "approvals": approved, "summary": self._summary(payments)}

    def _summary(self, payments: int) -> JSON:
        ours = [each for each in self.attempts if each["by"] == "merchant"]
        off_hours = [each for each in ours if each["off_hours"]]
        return {
            "payments": payments,
            "attempts": len(ours),
            "approved": sum(each["approved"] for each in self.attempts),
            "approved_by_merchant": sum(each["approved"] for each in ours),
            "approved_by_customer": sum(each["approved"] for each in self.attempts) - sum(e["approved"] for e in ours),
            "double_charges": sum(count > 1 for count in self.approvals.values()),
            "refused_on_paid": self.refused_on_paid,
            "off_hours": sum(not each["own_card"] for each in off_hours),
            "off_hours_own_card": sum(each["own_card"] for each in off_hours),
            "requests": dict(self.requests),
            "writes": sum(count for method, count in self.requests.items() if method != "GET"),
        }
