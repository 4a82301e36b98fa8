"""What is there to learn from? What was seen of subscriptions at a month's first score, and what became of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection, select

from schedules.learned import Model
from schedules.risk import terms
from schedules.subscriber import HORIZONS, LONG, Subscriber
from worker.learn import LEAST_SAMPLES, NothingToLearn, weigh
from worker.models import cases, risks, subscriptions
from worker.subscriptions import GONE

FOLDS = 2
BY_PAYMENT = "payment_failed"
AT_ONCE = 1000  # rows


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was seen of a subscription, and after how many days a payment lost it; None: not within 90."""

    subscription_id: str
    seen: Subscriber
    lost_after: int | None

    def lost(self, days: int) -> bool:
        """Whether it was lost to a payment within so many days."""
        return self.lost_after is not None and self.lost_after <= days

    @property
    def fold(self) -> int:
        """Into which part of the subscriptions it falls, by its own number."""
        return sha256(self.subscription_id.encode()).digest()[0] % FOLDS


def fit(lessons: Sequence[Lesson], version: str) -> Model:
    """Return the model that explains best what became of them; raise ``NothingToLearn`` with too few of either kind."""
    pairs = [(each, days) for each in lessons for days in HORIZONS if each.seen.at_risk(days)]
    lost = sum(each.lost(LONG) for each in lessons)
    if len(lessons) < LEAST_SAMPLES or not 0 < lost < len(lessons):
        msg = f"{len(lessons)} scores of 90 days ago or more, {lost} of them lost: {LEAST_SAMPLES} with both are needed"
        raise NothingToLearn(msg)
    return weigh((terms(each.seen, days) for each, days in pairs), [each.lost(days) for each, days in pairs], version)


def logged(db: Connection, now: datetime) -> Iterator[Lesson]:
    """Yield what was seen 90 days ago or more; not what the provider shows no longer."""
    lost = _lost(db)
    known = risks.c.seen_at <= now - timedelta(days=LONG), subscriptions.c.status != GONE
    joined = select(risks.c.subscription_id, risks.c.seen_at, risks.c.seen).join(subscriptions)
    ordered = joined.where(*known).order_by(risks.c.subscription_id, risks.c.month)
    for row in db.execute(ordered.execution_options(yield_per=AT_ONCE)):
        ends = lost[row.subscription_id]
        coming = ends[bisect_right(ends, row.seen_at) :]
        after = (coming[0] - row.seen_at).days if coming else None
        yield Lesson(row.subscription_id, Subscriber.of(row.seen), after)


def _lost(db: Connection) -> dict[str, list[datetime]]:
    """Return when subscriptions were lost to a payment, as the provider tells or a case of ours, in order."""
    found: dict[str, list[datetime]] = defaultdict(list)
    ended = select(subscriptions.c.id, subscriptions.c.ended_at).where(
        subscriptions.c.reason == BY_PAYMENT, subscriptions.c.ended_at.is_not(None)
    )
    given_up = select(cases.c.subscription_id, cases.c.closed_at).where(
        cases.c.state == "lost", cases.c.subscription_id.is_not(None)
    )
    for name, at in (*db.execute(ended), *db.execute(given_up)):
        found[name].append(at)
    return defaultdict(list, {name: sorted(ends) for name, ends in found.items()})
