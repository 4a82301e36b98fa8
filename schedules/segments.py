"""Which customers does a merchant treat otherwise than usual? By how long they have been there, and what they buy.

What is not known fits no condition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from schedules.facts import FailedPayment

NAME = re.compile("[a-z0-9_-]{1,50}")
JOINED = "+"  # the plans of a subscription with several


@dataclass(frozen=True, slots=True)
class Segment:
    """A name, and what must all be true of a payment: tenure in days, amount in minor units, one of the plans.

    Raises ``ValueError`` naming the condition that cannot be meant.
    """

    name: str
    tenure_days_from: int | None = None
    amount_from: int | None = None
    currency: str | None = None
    plans: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = self.tenure_days_from, self.amount_from
        for wrong, reason in (
            (not NAME.fullmatch(self.name), "name: expected small letters, digits, - and _"),
            (
                any(each is not None and each < 0 for each in known),
                "tenure_days_from and amount_from: expected 0 or more",
            ),
            (self.amount_from is not None and self.currency is None, "amount_from: expected a currency beside it"),
            (self.currency is not None and self.amount_from is None, "currency: expected an amount_from beside it"),
            (
                self.currency is not None and not re.fullmatch("[a-z]{3}", self.currency),
                "currency: expected one such as usd",
            ),
            ("" in self.plans, "plans: expected names"),
            (known == (None, None) and not self.plans, "expected a condition: tenure_days_from, amount_from or plans"),
        ):
            if wrong:
                raise ValueError(reason)

    def fits(self, payment: FailedPayment) -> bool:
        """Whether a payment fulfils every condition."""
        least, tenure, plan = self.amount_from, payment.tenure_days, payment.plan or ""
        return (
            (self.tenure_days_from is None or (tenure is not None and tenure >= self.tenure_days_from))
            and (least is None or (payment.currency == self.currency and payment.amount_minor >= least))
            and (not self.plans or not {plan, *plan.split(JOINED)}.isdisjoint(self.plans))
        )
