"""What does a decline mean: may this credential be charged again, how often, and how long not?

``declines.csv`` holds one row for each code that a provider or a network can answer. Every code of a decline is
looked up where it belongs, in this order of precedence:

1. Stripe's own block (``outcome_type``, ``outcome_reason``): the charge never reached the bank;
2. Mastercard's merchant advice code, on Mastercard cards only: other brands use the same digits differently;
3. Stripe's ``advice_code``;
4. the network's decline code, in the table of its brand or debit scheme;
5. ``code`` in the table of its rail, then in the card, error and debit tables.

All that is known counts. The strictest class wins, because the network may fine or block a retry against any of
them; then the longest wait and the smallest limit of the retry rows hold. Sources: Stripe's lists of decline codes,
Visa Core Rules of April 2026 (table 7-2), published Mastercard advice codes, Nacha, SEPA and Bacs tables; limits and
waits marked as working values there are replaced by logged outcomes. A US bank debit is presented again for lack of
funds only, whatever else its codes would allow (Nacha).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from schedules.facts import Decline


class DeclineClass(StrEnum):
    """What a decline asks for, from the mildest to the strictest."""

    RETRY_SOON = "retry_soon"
    RETRY_LATER = "retry_later"
    STALE_CREDENTIAL = "stale_credential"
    CUSTOMER_ACTION = "customer_action"
    MERCHANT_FIX = "merchant_fix"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``retry_limit`` counts charges after the failed one, on the same credential."""

    source: str
    code: str
    decline_class: DeclineClass
    retry_limit: int
    wait: timedelta
    cause: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all codes of one decline mean together.

    ``retry_limit`` and ``wait`` (least time before the next charge) bind the credential that was declined; both are
    zero unless the class is a retry class. ``evidence`` is ``source:code`` in order of precedence, ``unknown`` the
    codes that no table can read, as ``field:code``.
    """

    decline_class: DeclineClass
    retry_limit: int
    wait: timedelta
    cause: str
    evidence: tuple[str, ...]
    unknown: tuple[str, ...]


RETRY_CLASSES = frozenset({DeclineClass.RETRY_SOON, DeclineClass.RETRY_LATER})
CAUSES = (
    "deceased",  # these two always show: they bind every card of the customer
    "consent",
    "funds",
    "limit",
    "technical",
    "credential",
    "authentication",
    "merchant",
    "other",
    "unexplained",
)
STRICTNESS = {decline_class: rank for rank, decline_class in enumerate(DeclineClass)}
NETWORK_TABLES = {
    "visa": "visa",
    "mastercard": "mastercard_de39",
    "amex": "amex",
    "us_bank_account": "ach",
    "sepa_debit": "sepa",
}
RAIL_TABLES = {"us_bank_account": "stripe_ach", "sepa_debit": "stripe_sepa", "bacs_debit": "stripe_bacs"}
CODE_TABLES = ("stripe_card", "stripe_error_code", "stripe_sepa", "stripe_bacs", "stripe_ach")
ONLY_FUNDS = frozenset({"us_bank_account"})  # Nacha: nothing but R01 and R09 may be presented again
SOFTENED_BY_CATEGORY_2 = frozenset({("stripe_card", "service_not_allowed"), ("stripe_card", "not_permitted")})


def read_table(lines: Iterable[str]) -> dict[tuple[str, str], Row]:
    """Rows by (source, code) from CSV lines; ``ValueError`` for a bad class, cause or number, or a repeated code."""
    table: dict[tuple[str, str], Row] = {}
    for cells in csv.DictReader(lines):
        row = Row(
            cells["source"],
            cells["code"],
            DeclineClass(cells["class"]),
            int(cells["retry_limit"]),
            timedelta(hours=int(cells["wait_hours"])),
            cells["cause"],
            cells["meaning"],
        )
        if row.cause not in CAUSES or (row.source, row.code) in table:
            msg = f"declines.csv: unknown cause or repeated code: {row.source},{row.code},{row.cause}"
            raise ValueError(msg)
        table[row.source, row.code] = row
    return table


TABLE = read_table(files("schedules").joinpath("declines.csv").read_text(encoding="utf-8").splitlines())
# A decline that no table can read: asked again a day later, a few times, and reported.
UNREADABLE = Row("none", "none", DeclineClass.RETRY_LATER, 4, timedelta(hours=24), "unexplained", "nothing known")


@lru_cache(maxsize=4096)
def classify(decline: Decline, brand: str | None, overrides: tuple[Row, ...] = ()) -> Verdict:
    """Judge ``decline`` of a card of ``brand`` (Stripe's word, or the bank debit's method; ``None``: not known).

    ``overrides`` are rows of the merchant's own that stand before those of the table.
    """
    brand = (brand or "").lower()
    own = {(row.source, row.code): row for row in overrides}
    known: list[Row] = []
    unknown: list[str] = []
    for field, code, sources in _questions(decline, brand):
        found = (own.get((source, code)) or TABLE.get((source, code)) for source in sources)
        row = next(filter(None, found), None)
        if row is None:
            unknown.append(f"{field}:{code}")
        else:
            known.append(row)
    rows = _softened(known, decline, brand) or [UNREADABLE]
    strictest = max((row.decline_class for row in rows), key=STRICTNESS.__getitem__)
    cause = _cause(rows, strictest)
    if brand in ONLY_FUNDS and strictest in RETRY_CLASSES and cause != "funds":
        strictest = DeclineClass.CUSTOMER_ACTION
    limit, wait = _retry_terms(rows, strictest)
    evidence = tuple(f"{row.source}:{row.code}" for row in known)
    return Verdict(strictest, limit, wait, cause, evidence, tuple(unknown))


def _questions(decline: Decline, brand: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every code of ``decline`` as (field, code, tables that may know it), the most trusted first."""
    blocked = decline.outcome_type == "blocked"
    reason = decline.outcome_reason
    # Older records lack the type; with another type the same words are a remark on a charge that was sent.
    if reason and (blocked or (not decline.outcome_type and ("stripe_outcome_reason", reason) in TABLE)):
        yield "outcome_reason", reason, ("stripe_outcome_reason",)
    # Stripe held it back and says no (known) reason why. No bank has refused it and no network budget is spent, so
    # it may be asked again, with the caps of the mildest known block.
    if blocked and ("stripe_outcome_reason", reason) not in TABLE:
        yield "outcome_type", "blocked", ("stripe_outcome_type",)
    if decline.network_advice_code:
        tables = ("mastercard_mac",) if brand == "mastercard" else ()
        yield "network_advice_code", decline.network_advice_code, tables
    if decline.advice_code:
        yield "advice_code", decline.advice_code, ("stripe_advice_code",)
    if decline.network_decline_code:
        yield "network_decline_code", decline.network_decline_code, (NETWORK_TABLES.get(brand, ""),)
    if decline.code:
        yield "code", decline.code, (RAIL_TABLES.get(brand, ""), *CODE_TABLES)


def _softened(known: list[Row], decline: Decline, brand: str) -> list[Row]:
    """``known`` without the rows that a more exact one explains away."""
    network = TABLE.get(("visa", decline.network_decline_code or "")) if brand == "visa" else None
    if network and network.meaning.startswith("category 2:"):
        return [row for row in known if (row.source, row.code) not in SOFTENED_BY_CATEGORY_2]
    return known


def _retry_terms(rows: list[Row], strictest: DeclineClass) -> tuple[int, timedelta]:
    """Smallest limit and longest wait of ``rows``; nothing to allow and nothing to wait for outside retry classes."""
    if strictest not in RETRY_CLASSES:
        return 0, timedelta(0)
    return min(row.retry_limit for row in rows), max(row.wait for row in rows)


def _cause(rows: list[Row], strictest: DeclineClass) -> str:
    """The cause of the strictest rows: what binds all cards first, then the most trusted row that names one."""
    causes = [row.cause for row in rows if row.decline_class is strictest]
    for binding in ("deceased", "consent"):
        if binding in causes:
            return binding
    return next((cause for cause in causes if cause != "unexplained"), "unexplained")
