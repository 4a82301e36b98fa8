"""What the tests of the worker share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Serve, Street


@pytest.fixture(scope="session")
def street() -> Iterator[Street]:
    """Give the server of all practice banks."""
    running = Street()
    yield running
    running.close()


@pytest.fixture
def serve(engine: Engine, street: Street) -> Serve:
    """Return a function that opens a bank over a world until the next one is opened."""
    return partial(street.open, engine)
