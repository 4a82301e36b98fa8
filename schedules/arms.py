"""Which of a merchant's policies do a customer's cases follow? Drawn from the customer's id: stable, and no dice."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

A, B, CONTROL = ARMS = ("a", "b", "control")
CONTROLS = ("provider", "observe")


@dataclass(frozen=True, slots=True)
class Experiment:
    """How many percent of the customers are left alone, and how many follow the rival policy; all others follow A.

    Another ``name`` draws anew. ``control`` is what happens to those who are left alone: the ``provider`` may retry
    by itself, or nobody does and we ``observe``. Raises ``ValueError`` for shares that do not fit.
    """

    name: str = ""
    control_percent: int = 0
    control: str = "provider"
    rival_percent: int = 0

    def __post_init__(self) -> None:
        shares = (self.control_percent, self.rival_percent)
        if min(shares) < 0 or sum(shares) > 100:  # noqa: PLR2004 - percent
            msg = "control_percent and rival_percent: expected shares of at least 0, 100 together at most"
            raise ValueError(msg)
        if self.control not in CONTROLS:
            msg = f"control: expected one of {', '.join(CONTROLS)}"
            raise ValueError(msg)

    def arm_of(self, customer_id: str) -> str:
        """Return the arm of a customer, always the same one: ``a``, ``b`` or ``control``."""
        drawn = int.from_bytes(sha256(f"{self.name}:{customer_id}".encode()).digest()[:6]) / 2**48 * 100
        if drawn < self.control_percent:
            return CONTROL
        return B if drawn < self.control_percent + self.rival_percent else A
