"""What the stories share: a month of one installation, checked against Stripe's description at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.practice import openapi
from tests.stories.month import Month, a_month
from tests.stories.scripted import Scripted

Play = Callable[..., Month]


@pytest.fixture(scope="session")
def description(pytestconfig: pytest.Config) -> openapi.Description:
    """Return Stripe's description, kept between sessions."""
    return openapi.load(pytestconfig.cache.mkdir("openapi"))


@pytest.fixture
def play(engine: Engine, tmp_path: Path, description: openapi.Description) -> Iterator[Play]:
    """Return a function that plays a scripted month to its end; all that was sent is what Stripe describes."""
    with ExitStack() as stack:
        played: list[Month] = []

        def start(world: Scripted, days: float = 35, **choices: Any) -> Month:
            month = stack.enter_context(a_month(engine, tmp_path, world, **choices))
            played.append(month)
            month.play(days)
            return month

        yield start
        for month in played:
            month.record.check(description)
            assert month.ledger["summary"]["double_charges"] == 0
            assert month.ledger["summary"]["off_hours"] == 0
