"""Does it matter in which order, how often and how late events come? A month of 20 customers, told well and badly.

The month is played twice over the same world. The first time every event arrives at once. The second time some are
lost until a catch-up finds them in the provider's list, some come minutes late or again days later, and what arrives
together arrives in any order. An event is a hint: both months must end alike, to the last charge and notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, select

from tests.conftest import start_afresh
from tests.stories.month import Month, a_month
from worker import catchup, inbox
from worker.ingest import Counts
from worker.models import cases
from worker.practice.world import BuiltInWorld

JSON = dict[str, Any]
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
CATCH_UP = 5 * MINUTE  # as beat does it


@dataclass
class Told(Month):
    """A month whose events a postman hands over; ``plan`` gives the delay of each copy of the next event."""

    plan: Callable[[], list[timedelta]] = lambda: [timedelta(0)]
    any_order: Random | None = None
    lost: int = 0
    bag: list[tuple[datetime, JSON]] = field(default_factory=list)
    last_id: str | None = None
    catch_up_at: datetime | None = None

    def _until_delivered(self) -> None:
        """Take what the bank has told since, and hand over what is due by now."""
        now = self.clock[0]
        self._take(now)
        arrived = [each for at, each in self.bag if at <= now]
        self.bag = [(at, each) for at, each in self.bag if at > now]
        if self.any_order is not None:
            self.any_order.shuffle(arrived)
        for each in arrived:  # one by one: the order of arrival is the order of handling
            with self.engine.begin() as db:
                inbox.keep(db, [event for event in [inbox.parse_event(each)] if event.ours])
        if self.catch_up_at is not None and self.catch_up_at <= now:
            self.catch_up_at = None
            assert not self.catch_up(now).rejected

    def _take(self, now: datetime) -> None:
        for each in self._told_since():
            copies = self.plan()
            self.bag += [(now + delay, each) for delay in copies]
            if not copies:
                self.lost, self.catch_up_at = self.lost + 1, self.catch_up_at or now + CATCH_UP

    def _told_since(self) -> Iterator[JSON]:
        """Yield what is new in the bank's list, the oldest first; only of the types that an endpoint would be sent."""
        more = True
        while more:
            asked = {"limit": 100, "ending_before": self.last_id}
            headers = {"Authorization": "Bearer sk_test_1"}
            page = self.http.get(f"{self.bank}/v1/events", params=asked, headers=headers, timeout=20).json()
            more = page["has_more"] and self.last_id is not None
            self.last_id = page["data"][0]["id"] if page["data"] else self.last_id
            yield from (each for each in reversed(page["data"]) if each["type"] in inbox.OURS)

    def catch_up(self, now: datetime) -> Counts:
        """Do as ``dunning sync`` and beat do."""
        counts = Counts()
        for _ in catchup.missed_events(self.desk(now), counts):
            pass
        return counts

    def _our_next(self) -> datetime | None:
        instants = [super()._our_next(), self.catch_up_at, *(at for at, _ in self.bag)]
        return min((at for at in instants if at is not None), default=None)

    def outcome(self) -> dict[str, tuple[str, str | None, int, int]]:
        """Return of each invoice how its case ended, by what, and how often it was charged and told of."""
        charges = Counter(each["invoice"] for each in self.charges if each["by"] == "merchant")
        notices = Counter(invoice for _, invoice, effect in self.seen if effect.startswith("notice"))
        with self.engine.connect() as db:
            rows = db.execute(select(cases).order_by(cases.c.payment_id)).all()
        return {
            row.payment_id: (row.state, row.recovered_by, charges[row.payment_id], notices[row.payment_id])
            for row in rows
        }


def badly(dice: Random) -> list[timedelta]:
    """A fifth is lost, half of the others come minutes late, and a third comes again, at once or days later."""
    if dice.random() < 0.2:
        return []
    again = [dice.choice((timedelta(0), MINUTE, 3 * DAY))] if dice.random() < 1 / 3 else []
    return [MINUTE * dice.choice((0, 0, 1, 4)), *again]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_month_told_badly_ends_as_the_same_month_told_well(engine: Engine, tmp_path: Path, seed: int) -> None:
    """The same end of each case, by the same means, after as many charges and as many notices."""
    outcomes = []
    for place in ("well", "badly"):
        start_afresh(engine)
        world, dice = BuiltInWorld(seed, 20, 31), Random(seed)
        with a_month(engine, tmp_path / place, world, told=frozenset(), kind=Told) as month:
            assert isinstance(month, Told)
            if place == "badly":
                month.plan, month.any_order = partial(badly, dice), dice
            month.play(days=34)
            outcomes.append(month.outcome())
            assert month.catch_up(month.clock[0]).new == 0, "everything that was lost has been found"
            assert month.ledger["summary"]["double_charges"] == 0
            assert bool(month.lost) == (place == "badly")
    well, told_badly = outcomes
    assert len(well) == 20
    assert {state for state, *_ in well.values()} >= {"recovered", "lost"}
    assert told_badly == well
