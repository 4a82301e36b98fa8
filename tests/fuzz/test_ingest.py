"""Does any file make ``dunning ingest`` fail, or an event that it kept its handling?"""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from schedules import Policy
from tests.fuzz.hostile import CANARY, FUZZ, events, handle_all
from tests.worker.builders import START
from worker.eventfile import read_raw
from worker.ingest import Counts, ingest

FORMS: dict[str, Callable[[list[bytes]], bytes]] = {
    "lines": b"\n".join,
    "a list": lambda values: b"[" + b",\n".join(values) + b"]",
    "a page": lambda values: b'{"object": "list", "data": [' + b",".join(values) + b'], "has_more": false}',
    "a row": b" ".join,
    "broken": lambda values: b'{"a": [' + b"}\n{".join(values),
}


def test_no_file_makes_ingest_fail(
    engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every value is counted once, every event that was kept is handled, and nothing of a customer stays behind."""

    @FUZZ
    @given(st.lists(events(), max_size=3), st.sampled_from(sorted(FORMS)))
    def take(values: list[bytes], form: str) -> None:
        counts = Counts()
        read = read_raw(io.BytesIO(FORMS[form](values)))
        seen = sum(ingest(engine, Policy.default(), START, read, counts))
        assert seen == counts.new + counts.duplicate + counts.ignored + len(counts.rejected)
        assert CANARY not in str(counts.as_json())
        if counts.new:
            handle_all(engine, counts.new)

    take()
    assert CANARY not in "".join(capfd.readouterr()) + caplog.text
