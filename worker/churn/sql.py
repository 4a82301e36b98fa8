"""How does the database tell who was there, who left and why? Each definition stands in docs/churn.md.

What stands in braces is filled in with texts of this module only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dateutil.relativedelta import relativedelta

from schedules.arms import Experiment
from worker.report.sql import TENURES

KINDS = ("voluntary", "involuntary", "disputed", "other")
LEFT_OUT = ("gone", "trialing", "never_began", "ends_ahead")
MONTH, YEAR = relativedelta(months=1), relativedelta(years=1)

# Of each subscription: until when it lived and why it ended; or why nobody can say.
LIVES = """closed AS (
    SELECT c.subscription_id, c.state, c.ended, c.closed_at,
           max(c.closed_at) FILTER (WHERE c.state = 'recovered') OVER (PARTITION BY c.subscription_id) AS won_at,
           row_number() OVER (PARTITION BY c.subscription_id ORDER BY c.closed_at DESC, c.id DESC) = 1 AS is_last
      FROM cases c WHERE c.closed_at IS NOT NULL AND c.subscription_id IS NOT NULL
), ours AS (
    SELECT s.id, bool_or(c.is_last AND c.ended = 'disputed') AS disputed,
           min(c.closed_at) FILTER (WHERE c.state = 'lost' AND c.closed_at > coalesce(c.won_at, '-infinity'))
               AS given_up_at,
           bool_or(c.state = 'lost' AND c.closed_at BETWEEN s.ended_at - interval '2 days'
                                                        AND s.ended_at + interval '1 minute') AS ended_by_us
      FROM closed c JOIN subscriptions s ON s.id = c.subscription_id GROUP BY s.id
), known AS (
    SELECT s.*, coalesce(s.account, '') AS owner, o.disputed, o.ended_by_us,
           CASE WHEN s.ended_at IS NOT NULL THEN s.ended_at
                WHEN s.status IN ('past_due', 'unpaid', 'paused') THEN o.given_up_at END AS lost_at
      FROM subscriptions s LEFT JOIN ours o ON o.id = s.id
), told AS (
    SELECT id, owner, customer_id, currency, monthly_minor, plan, country, method, reason, feedback,
           started_at, lost_at,
           CASE WHEN lost_at IS NULL THEN NULL
                WHEN reason = 'payment_disputed' OR disputed THEN 'disputed'
                WHEN reason = 'payment_failed' OR ended_by_us OR ended_at IS NULL THEN 'involuntary'
                WHEN coalesce(reason, 'cancellation_requested') = 'cancellation_requested' THEN 'voluntary'
                ELSE 'other' END AS kind,
           CASE WHEN status = 'gone' THEN 'gone'
                WHEN status = 'trialing' THEN 'trialing'
                WHEN status IN ('incomplete', 'incomplete_expired') OR lost_at <= started_at THEN 'never_began'
                WHEN lost_at > :now THEN 'ends_ahead' END AS left_out
      FROM known
), lives AS (
    SELECT *, coalesce(lost_at, 'infinity') AS until FROM told WHERE left_out IS NULL
)"""
# Of each subscription that was active at the start: was it lost by the end, and did its customer keep another one?
HELD = """{lives}, stayed AS (
    SELECT DISTINCT owner, customer_id, true AS stays FROM lives WHERE started_at <= :end AND until > :end
), held AS (
    SELECT l.*, l.until <= :end AS lost, coalesce(s.stays, false) AS stays
      FROM lives l LEFT JOIN stayed s USING (owner, customer_id) WHERE l.started_at <= :begin AND l.until > :begin
)"""
CELLS = """
WITH {held}, main AS (
    SELECT DISTINCT ON (owner, customer_id) owner, customer_id, currency, plan, country, method, started_at, stays
      FROM held ORDER BY owner, customer_id, started_at, id
), latest AS (
    SELECT DISTINCT ON (owner, customer_id) owner, customer_id, lost, lost_at, kind, reason, feedback
      FROM held WHERE lost ORDER BY owner, customer_id, lost_at DESC, id
), customers AS (
    SELECT main.*, coalesce(lost, false) AS lost, lost_at, kind, reason, feedback
      FROM main LEFT JOIN latest USING (owner, customer_id)
)
SELECT 'customers' AS what, {base} AS base, CASE WHEN lost THEN {key} END AS key, currency, lost,
       CASE WHEN lost THEN kind END AS kind, stays, count(*) AS count, 0 AS unpriced, 0 AS monthly
  FROM customers GROUP BY 1, 2, 3, 4, 5, 6, 7
UNION ALL
SELECT 'subscriptions', {base}, CASE WHEN lost THEN {key} END, currency, lost,
       CASE WHEN lost THEN kind END, stays, count(*), count(*) FILTER (WHERE monthly_minor IS NULL),
       CAST(coalesce(sum(monthly_minor), 0) AS bigint)
  FROM held GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
REASONS = """
WITH {held}
SELECT kind, reason, feedback, {tenure} AS tenure, plan, count(*) AS subscriptions
  FROM held WHERE lost GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5
"""
APART = """
WITH {lives}
SELECT coalesce(left_out, 'within') AS why, count(*) AS count
  FROM told WHERE left_out IS NOT NULL OR (started_at > :begin AND lost_at <= :end) GROUP BY 1
"""
COURSE = """
WITH {lives}, losses AS (
    SELECT id, owner, customer_id, started_at AT TIME ZONE 'UTC' AS started, lost_at, kind,
           date_trunc('month', lost_at AT TIME ZONE 'UTC' - interval '1 microsecond') AS month
      FROM lives WHERE lost_at > :begin AND lost_at <= :end
), customers AS (
    SELECT DISTINCT ON (l.owner, l.customer_id, l.month) l.month, l.kind
      FROM losses l
     WHERE l.started <= l.month
       AND NOT EXISTS (SELECT FROM lives o
                        WHERE o.owner = l.owner AND o.customer_id = l.customer_id
                          AND o.started_at <= (l.month + interval '1 month') AT TIME ZONE 'UTC'
                          AND o.until > (l.month + interval '1 month') AT TIME ZONE 'UTC')
     ORDER BY l.owner, l.customer_id, l.month, l.lost_at DESC, l.id
)
SELECT CAST(month AS date) AS month, kind, count(*) AS customers FROM customers GROUP BY 1, 2
"""


def filled(statement: str, **more: str) -> str:
    """Return one of our statements with what it begins with, and what else it needs."""
    return statement.format(lives=LIVES, held=HELD.format(lives=LIVES), **more)


def tenure(at: str) -> str:
    """Return the SQL of the band of a tenure at an instant, in calendar months of UTC."""
    months = "(started_at AT TIME ZONE 'UTC' + interval '{} months') AT TIME ZONE 'UTC'"
    return f"CASE WHEN {at} < {months.format(3)} THEN 0 WHEN {at} < {months.format(12)} THEN 1 ELSE 2 END"


# The share of an id of 48 bits as schedules/arms.py draws it: the same hash, the same arithmetic.
DRAWN = """CAST(('x' || encode(substring(sha256(convert_to(CAST(:experiment AS text) || ':' || customer_id, 'UTF8'))
          FROM 1 FOR 6), 'hex'))::bit(48) AS bigint)::float8 / 281474976710656 * 100"""
ARM = f"CASE WHEN {DRAWN} < :control THEN 'control' WHEN {DRAWN} < :control_or_rival THEN 'b' ELSE 'a' END"
REASON = """CASE kind WHEN 'voluntary' THEN coalesce(nullif(feedback, ''), 'nothing said')
          WHEN 'other' THEN reason ELSE kind END"""


@dataclass(frozen=True, slots=True)
class Dimension:
    """What can be told apart: SQL for the group of who was there (``base``) and of who left (``key``, the same).

    Without a ``base`` only who left has a group: each is a share of all. ``label`` says a group in words.
    """

    title: str
    base: str | None
    key: str = ""
    label: Callable[[Any], str] = str


NO_GROUP = "NULL::text"
NOTHING = Dimension("all", NO_GROUP, NO_GROUP)
DIMENSIONS = {
    "kind": Dimension("kind of the loss", None, "kind"),
    "tenure": Dimension("how long they had paid", tenure(":begin"), tenure("lost_at"), TENURES.__getitem__),
    "plan": Dimension("plan", "plan", "plan"),
    "country": Dimension("country of the customer, else of the card", "upper(country)", "upper(country)"),
    "method": Dimension("method of payment", "method", "method"),
    "reason": Dimension("what who left has said", None, REASON),
    "arm": Dimension("arm of the experiment", ARM, ARM),
}


@dataclass(frozen=True, slots=True)
class Period:
    """From one instant to another: active at ``begin``, and lost by ``end`` or not."""

    begin: datetime
    end: datetime

    @property
    def days(self) -> int:
        """Return how long it is."""
        return (self.end - self.begin).days

    def as_json(self) -> dict[str, Any]:
        """Return its two days."""
        return {"from": self.begin.date().isoformat(), "to": self.end.date().isoformat()}


@dataclass(frozen=True, slots=True)
class Question:
    """Which period, by what, against which earlier one, and who is drawn into which arm."""

    period: Period
    by: str | None = None
    before: Period | None = None
    experiment: Experiment = field(default_factory=Experiment)

    @property
    def dimension(self) -> Dimension:
        """Return how customers are grouped."""
        return DIMENSIONS[self.by] if self.by else NOTHING


def period(now: datetime, begin: datetime | None = None, end: datetime | None = None) -> Period:
    """Return the period of two days, of which one that is missing lies a month from the other; of none the last month.

    Raises ``ValueError`` for a period that ends before it begins.
    """
    this_month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    first = begin or (end or this_month) - MONTH
    last = end or first + MONTH
    if last <= first:
        msg = f"{last.date()} does not come after {first.date()}"
        raise ValueError(msg)
    return Period(first, last)
