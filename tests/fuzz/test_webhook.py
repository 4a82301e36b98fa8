"""Does any body, under any signature, make the webhook fail, or leave something behind that was refused?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine

from tests.fuzz.hostile import CANARY, FUZZ, events
from tests.worker.builders import sql
from worker.practice.events import signature
from worker.settings import Settings
from worker.web.webhooks import make_web

SECRET = "whsec_fuzz"
HEADERS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"t=1", b"v1=00", b"t=now,v1=00", b"t=%d,v1=\xe9" % 10**30, b",=,", b"t=1,v1=" + b"0" * 9_000]
    ),
)


class Asked:
    """The application, asked without a network: whatever it raises is raised here."""

    def __init__(self, engine: Engine) -> None:
        secrets: Any = {"stripe_webhook_secret": (SecretStr(SECRET),)}
        self._app, self._loop = make_web(Settings(**secrets), engine), asyncio.Runner()

    def post(self, body: bytes, header: bytes) -> int:
        """Deliver a body; return the status of the answer."""
        return self._loop.run(self._post(body, header))

    async def _post(self, body: bytes, header: bytes) -> int:
        scope = {"type": "http", "method": "POST", "path": "/webhooks/stripe", "query_string": b""}
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await self._app({**scope, "headers": [(b"stripe-signature", header)]}, receive, send)
        return int(said[0]["status"])

    def close(self) -> None:
        """End the loop and its threads."""
        self._loop.close()


@pytest.fixture
def asked(engine: Engine) -> Iterator[Asked]:
    """Give the application over the tests' database."""
    running = Asked(engine)
    yield running
    running.close()


def test_no_body_and_no_signature_makes_the_webhook_fail(
    asked: Asked, engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Taken, refused or too large, and never an error of ours; only what was taken is stored, and nothing personal."""

    @FUZZ
    @given(events(), st.one_of(st.just(None), st.just(None), st.just(None), HEADERS))
    def send(body: bytes, header: bytes | None) -> None:
        signed = signature(SECRET, body, int(time.time())).encode()
        status = asked.post(body, signed if header is None else header)
        assert status in ((200, 400, 413) if header is None else (400, 413))
        stored = sql(engine, "DELETE FROM events RETURNING CAST(payload AS text)")
        assert len(stored) <= (status == 200)
        assert CANARY not in str(stored)

    send()
    assert CANARY not in "".join(capfd.readouterr()) + caplog.text
