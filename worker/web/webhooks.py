"""How do events come in over HTTP? Verified, stored, answered; handled later. Also health and metrics.

Anything malformed is answered 400 or 413 and stores nothing; 5xx only when the event could not be committed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker import app, inbox
from worker.clock import machine_now
from worker.logs import log
from worker.models import cases
from worker.settings import Settings, load_settings
from worker.stripe_gateway import verify_event

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_BODY = 1024 * 1024


class TooLarge(ValueError):
    """The body is larger than any event."""


def make_web(settings: Settings, engine: Engine) -> Starlette:
    """Return the web application over one database."""

    async def stripe_webhook(request: Request) -> Response:
        try:
            body = await _body(request)
            event = _verified(body, request.headers.get("stripe-signature", ""), settings)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413)
        except ValueError as error:
            log.warning("webhook refused", reason=str(error))
            return JSONResponse({"error": str(error)}, 400)
        new = await run_in_threadpool(_keep, engine, event) if event.ours else False
        return JSONResponse({"received": event.id, "new": new})

    async def healthz(_request: Request) -> Response:
        return await run_in_threadpool(_health, engine)

    async def metrics(_request: Request) -> Response:
        return Response(await run_in_threadpool(_metrics, engine), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/webhooks/stripe", stripe_webhook, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
        ]
    )


def serve() -> Starlette:
    """Return the web application of this installation (uvicorn calls it once per process)."""
    return make_web(load_settings(), app.engine())


async def _body(request: Request) -> bytes:
    """Read at most ``LARGEST_BODY`` bytes, whatever the client announced."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            msg = f"the body is larger than {LARGEST_BODY} bytes"
            raise TooLarge(msg)
    return bytes(body)


def _verified(body: bytes, signature: str, settings: Settings) -> inbox.Event:
    """Return the event of a signed body; raise ``ValueError`` saying what is wrong, before anything is stored."""
    secrets = tuple(secret.get_secret_value() for secret in settings.stripe_webhook_secret)
    verify_event(body, signature, secrets, machine_now())
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        msg = "the body is not JSON"
        raise inbox.BadEvent(msg) from None
    return inbox.parse_event(value)


def _keep(engine: Engine, event: inbox.Event) -> bool:
    with engine.begin() as db:
        return bool(inbox.keep(db, [event]))


def _health(engine: Engine) -> Response:
    """Healthy: the database answers, and says how much is waiting."""
    try:
        with engine.connect() as db:
            waiting = inbox.waiting(db)
            overdue = _overdue(db)
    except SQLAlchemyError as error:
        return JSONResponse({"healthy": False, "why": f"database: {type(error).__name__}"}, 503)
    return JSONResponse({"healthy": True, "events_waiting": waiting, "cases_due": overdue})


def _overdue(db: Connection) -> int:
    return int(db.execute(select(func.count()).select_from(cases).where(cases.c.due_at <= app.now())).scalar_one())


def _metrics(engine: Engine) -> bytes:
    """Gauges are read from the database at each scrape, so they are right however many processes there are."""
    registry = CollectorRegistry()
    by_state = Gauge("dunning_cases", "Cases by state", ["state"], registry=registry)
    waiting = Gauge("dunning_events_waiting", "Events kept and not handled yet", registry=registry)
    due = Gauge("dunning_cases_due", "Cases whose next step is due", registry=registry)
    with engine.connect() as db:
        for state, count in db.execute(select(cases.c.state, func.count()).group_by(cases.c.state)):
            by_state.labels(state).set(count)
        waiting.set(inbox.waiting(db))
        due.set(_overdue(db))
    return generate_latest(registry)
