"""How do signals come in over HTTP? Signed as Standard Webhooks, an object or a list of them, each judged by itself.

What cannot be read at all is answered 400 or 413 and keeps nothing. Everything else is answered 200 with what became of
each: a sender that repeats what was refused would be refused again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker import app, standard_webhooks
from worker.clock import machine_now
from worker.logs import log
from worker.settings import Settings
from worker.signals import Counts, take_in
from worker.web.bodies import TooLarge, read_body

if TYPE_CHECKING:
    from starlette.requests import Request

MOST = 1000


def routes(settings: Settings, engine: Engine) -> list[Route]:
    """Return the route of signals; none unless a secret verifies them."""
    secrets = [secret.get_secret_value() for secret in settings.signals_secret]

    async def signals(request: Request) -> Response:
        try:
            body = await read_body(request)
            standard_webhooks.verify(secrets, request.headers, body, machine_now())
            values = _values(body)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413)
        except ValueError as error:
            log.warning("signals refused", reason=str(error))
            return JSONResponse({"error": str(error)}, 400)
        try:
            counts = await run_in_threadpool(_keep, engine, values)
        except SQLAlchemyError as error:
            log.warning("signals", error=type(error).__name__)
            return JSONResponse({"error": "try again in a minute"}, 503)
        told = {"new": counts.new, "duplicate": counts.duplicate, "rejected": len(counts.rejected)}
        log.info("signals", **told)
        return JSONResponse(counts.as_json())

    return [Route("/signals", signals, methods=["POST"])] if secrets else []


def _values(body: bytes) -> list[Any]:
    """Return the values of a body; raise ``ValueError`` when there is none to be judged by itself."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        msg = "the body is not JSON"
        raise ValueError(msg) from None
    if not isinstance(value, dict | list):
        msg = "expected a signal or a list of signals"
        raise ValueError(msg)  # noqa: TRY004 - a body, not an argument
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST:
        msg = f"more than {MOST} signals at once"
        raise TooLarge(msg)
    return values


def _keep(engine: Engine, values: list[Any]) -> Counts:
    counts = Counts()
    for _ in take_in(engine, (({"index": index}, value) for index, value in enumerate(values)), app.now(), counts):
        pass
    return counts
