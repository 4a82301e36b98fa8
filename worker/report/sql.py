"""What is counted for a report? A cohort, cell by cell, and the groups that its cases can be put into.

Each figure is defined in docs/report.md. What stands in braces is filled in with texts of this module only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import Any

from worker.models import card_fact

YEARS = range(1970, 3000)
EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

COUNTRY, BRAND, FUNDING = (card_fact("c.failed_card", name) for name in ("country", "brand", "funding"))
CURRENCIES = "LEFT JOIN jsonb_each_text(CAST(:units AS jsonb)) AS unit (currency, minor) ON unit.currency = c.currency"
PLACES = f"""
LEFT JOIN jsonb_to_recordset(CAST(:places AS jsonb)) AS place (country text, time_zone text, brand text, zone text)
  ON place.country = coalesce({COUNTRY}, '') AND place.time_zone = coalesce(c.time_zone, '')
 AND place.brand = coalesce({BRAND}, '')"""
LOCAL = "c.failed_at AT TIME ZONE place.zone"

WHOLE = """
SELECT min(c.failed_at) AS first, max(c.failed_at) AS last
  FROM cases c WHERE c.failed_at >= :begin AND c.failed_at < :end
"""
KNOWN_PLACES = f"""
SELECT DISTINCT coalesce({COUNTRY}, '') AS country, coalesce(c.time_zone, '') AS time_zone,
       coalesce({BRAND}, '') AS brand
  FROM cases c WHERE c.failed_at >= :begin AND c.failed_at < :end
"""  # noqa: S608 - our own constants
COHORT = """cohort AS (
    SELECT c.id, c.customer_id, c.arm, c.currency, c.amount_minor, c.failed_at, c.closed_at, c.state, {key} AS key,
           c.recovered_by AS means,
           c.state = 'recovered' AND c.closed_at <= c.failed_at + interval '30 days' AS back
      FROM cases c {join}
     WHERE c.failed_at >= :begin AND c.failed_at < :end
)"""
OF_COHORT = "AND case_id IN (SELECT id FROM cohort)"
CELLS = """
WITH {cohort}, charged AS (
    SELECT case_id, count(*) AS attempts, count(*) FILTER (WHERE waited) AS waited
      FROM attempts WHERE state IN ('succeeded', 'declined') {within} GROUP BY 1
), touches AS (
    SELECT case_id, coalesce(delivered_at, at) AS at,
           row_number() OVER (PARTITION BY coalesce(merged_into, id) ORDER BY id) = 1 AS is_first
      FROM outbox
     WHERE kind = 'notice' AND (delivered_at IS NOT NULL OR error = :uncertain) {within}
), told AS (
    SELECT t.case_id, count(*) FILTER (WHERE t.is_first) AS notices,
           bool_or(t.at <= coalesce(c.closed_at, 'infinity')) AS contacted,
           bool_or(c.state = 'canceled' AND t.at BETWEEN c.closed_at - interval '7 days' AND c.closed_at) AS left_after
      FROM touches t JOIN cohort c ON c.id = t.case_id
     GROUP BY t.case_id
), gone AS (
    SELECT DISTINCT case_id FROM history WHERE what IN ('disputed', 'refunded') {within}
)
SELECT key, currency, state, back, CASE WHEN back THEN means END AS means, coalesce(contacted, false) AS contacted,
       count(*) AS cases, CAST(sum(amount_minor) AS bigint) AS amount,
       CAST(coalesce(sum(attempts), 0) AS bigint) AS attempts, CAST(coalesce(sum(waited), 0) AS bigint) AS waited,
       CAST(coalesce(sum(notices), 0) AS bigint) AS notices, count(*) FILTER (WHERE left_after) AS left_after,
       count(gone.case_id) FILTER (WHERE back) AS gone
  FROM cohort
  LEFT JOIN charged ON charged.case_id = cohort.id
  LEFT JOIN told ON told.case_id = cohort.id
  LEFT JOIN gone ON gone.case_id = cohort.id
 GROUP BY 1, 2, 3, 4, 5, 6
"""
SPEED = """
WITH {cohort}
SELECT grouping(key) = 1 AS whole, key,
       percentile_cont(ARRAY[0.25, 0.5, 0.75, 0.9]) WITHIN GROUP (ORDER BY closed_at - failed_at) AS times
  FROM cohort WHERE back GROUP BY GROUPING SETS ((), (key))
"""
COURSE = """
WITH {cohort}
SELECT CAST(date_trunc(:step, failed_at AT TIME ZONE 'UTC') AS date) AS begins,
       CASE WHEN back THEN CAST(ceil(extract(epoch FROM closed_at - failed_at) / 86400) AS integer) END AS day,
       CASE WHEN back THEN means END AS means, count(*) AS cases
  FROM cohort GROUP BY 1, 2, 3
"""
ARMS = """
WITH {cohort}
SELECT arm, count(*) AS customers, count(*) FILTER (WHERE back) AS recovered
  FROM (SELECT DISTINCT ON (customer_id) arm, back FROM cohort ORDER BY customer_id, failed_at, id) AS firsts
 GROUP BY arm
"""

BANDS = (10, 25, 50, 100, 250, 1000)
AMOUNTS = ("below 10", *(f"{low} to {high}" for low, high in pairwise(BANDS)), "1000 and more")
TENURES = ("0 to 3 months", "3 to 12 months", "over 12 months")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Dimension:
    """What cases can be grouped by: SQL for the group of a case, NULL where it is unknown.

    ``label`` says a group in words; then groups stand in their own order, and otherwise the largest first.
    """

    title: str
    key: str
    join: str = ""
    label: Callable[[Any], str] | None = None


USUAL = "(usual)"  # no segment has parentheses in its name
NOTHING = Dimension("all", "NULL::text")
DIMENSIONS = {
    "class": Dimension("class of the decline", "c.decline_class"),
    "country": Dimension("country of the card", f"nullif(upper({COUNTRY}), '')"),
    "network": Dimension("network of the card", BRAND),
    "issuer": Dimension(
        "card, as far as the provider shows its issuer",
        f"nullif(concat_ws(' ', {COUNTRY}, {BRAND}, {FUNDING}), '')",
    ),
    "amount": Dimension(
        "amount, in whole units of its currency",
        f"width_bucket(c.amount_minor / coalesce(unit.minor, '100')::numeric, ARRAY{list(BANDS)}::numeric[])",
        CURRENCIES,
        AMOUNTS.__getitem__,
    ),
    "tenure": Dimension(
        "how long the customer had been one", "width_bucket(c.tenure_days, ARRAY[90, 365])", "", TENURES.__getitem__
    ),
    "policy": Dimension("arm of the experiment", "c.arm"),
    "segment": Dimension("segment of the policy", f"coalesce(c.segment, '{USUAL}')"),
    "weekday": Dimension(
        "weekday of the failure, by the card's clock",
        f"CAST(extract(isodow FROM {LOCAL}) AS integer)",
        PLACES,
        lambda number: WEEKDAYS[number - 1],
    ),
    "hour": Dimension(
        "hour of the failure, by the card's clock",
        f"CAST(extract(hour FROM {LOCAL}) AS integer)",
        PLACES,
        "{:02}:00".format,
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """Which cohort (``begin`` included, ``end`` not), by what, and what one charge costs, in whole units by currency.

    ``same_policy``: the arms A and B follow the same policy, so that their difference checks the experiment itself.
    """

    begin: datetime | None = None
    end: datetime | None = None
    by: str | None = None
    attempt_cost: Mapping[str, Decimal] = field(default_factory=dict)
    same_policy: bool = False

    @property
    def dimension(self) -> Dimension:
        """Return how cases are grouped."""
        return DIMENSIONS[self.by] if self.by else NOTHING

    @property
    def bounds(self) -> dict[str, Any]:
        """Return the cohort's bounds as parameters of a statement."""
        return {"begin": self.begin or EVER[0], "end": self.end or EVER[1]}


def day_named(text: str) -> datetime:
    """Return the beginning (UTC) of a day such as 2026-01-31; raise ``ValueError`` saying what was expected."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.year not in YEARS:
        msg = "expected one such as 2026-01-31"
        raise ValueError(msg)
    return datetime.combine(day, time(), UTC)
