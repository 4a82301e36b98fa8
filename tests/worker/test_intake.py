"""Is every webhook that was accepted stored, however many come at once and whatever stands beside it?"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from tests.worker.builders import START, event, one
from worker.inbox import Event, parse_event
from worker.web.intake import Full, Intake


def come(engine: Engine, *told: Event, most: int = 1000) -> list[Any]:
    """Have events come at the same moment; return what each was answered."""

    async def all_at_once() -> list[Any]:
        intake = Intake(engine, most)
        return await asyncio.gather(*map(intake.store, told), return_exceptions=True)

    return asyncio.run(all_at_once())


def many(count: int) -> list[Event]:
    """Return so many events."""
    return [parse_event(event(f"evt_{number}")) for number in range(count)]


def test_what_comes_at_once_is_stored_together(engine: Engine) -> None:
    """Fifty events: the first one, and in a second transaction what came meanwhile; told as new once."""
    assert come(engine, *many(50)) == [True] * 50
    assert one(engine, "SELECT count(DISTINCT CAST(xmin AS text)) FROM events") == 2
    assert come(engine, *many(51)) == [False] * 50 + [True]


def test_what_is_too_much_is_refused_before_it_is_stored(engine: Engine) -> None:
    """Those that had a place are stored and told so; the others may come again."""
    answers = come(engine, *many(5), most=2)
    assert answers[:3] == [True] * 3
    assert [type(each) for each in answers[3:]] == [Full, Full]
    assert one(engine, "SELECT array_agg(id ORDER BY id) FROM events") == ["evt_0", "evt_1", "evt_2"]
    assert come(engine, *many(5)[3:]) == [True] * 2


def test_one_that_the_database_does_not_take_harms_none_beside_it(engine: Engine) -> None:
    """Only its sender is told of an error."""
    odd = Event("evt_odd", "invoice.payment_failed", None, START, {"a": "\0"})
    before, after = many(2)
    told = come(engine, before, odd, after)
    assert told[::2] == [True, True]
    assert isinstance(told[1], DataError)
    assert one(engine, "SELECT array_agg(id ORDER BY id) FROM events") == ["evt_0", "evt_1"]
