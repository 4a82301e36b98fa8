"""By which rail is a debit collected, and in which hours does its scheme take one?

Cards have no rail: they are asked in the hours of their bank. Everything else is known by the provider's name of the
method. Sources: UPI AutoPay from PayU and Cashfree (two outlets print other hours), Pix Automatico from Celcoin, the
SEPA cut-off of 10:30 CET from Stripe; bank debits are presented on the business days of their clearing. For how long:
Nacha (180 days), Bacs (a month), Adyen's limit for SEPA (42 days), Pix (7 days). How often a scheme lets a debit be
presented again stands in the budgets of the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time


@dataclass(frozen=True, slots=True)
class Rail:
    """The scheme of a debit: its country (``None``: several), local zone and hours, and whose business days it keeps.

    ``calendar`` is a country or a financial market that ``schedules.places.closed_days`` knows, ``None`` every day.
    ``days``: how long after the first presentation the scheme takes another one (``None``: no such rule is published).
    """

    country: str | None
    zone: str
    hours: tuple[tuple[time, time], ...]
    calendar: str | None
    days: int | None = None


LAST = time.max
ALL_DAY = ((time.min, LAST),)
RAILS = {
    "us_bank_account": Rail("US", "America/New_York", ALL_DAY, "FED", 180),
    "sepa_debit": Rail(None, "Europe/Brussels", ((time.min, time(10, 30)),), "ECB", 42),
    "bacs_debit": Rail("GB", "Europe/London", ALL_DAY, "GB", 30),
    "au_becs_debit": Rail("AU", "Australia/Sydney", ALL_DAY, "AU"),
    "nz_bank_account": Rail("NZ", "Pacific/Auckland", ALL_DAY, "NZ"),
    "acss_debit": Rail("CA", "America/Toronto", ALL_DAY, "CA"),
    "upi": Rail("IN", "Asia/Kolkata", ((time.min, time(10)), (time(13), time(17)), (time(21, 30), LAST)), None),
    "pix": Rail("BR", "America/Sao_Paulo", ((time.min, time(8)), (time(18), time(21))), None, 7),
}
