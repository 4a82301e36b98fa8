"""How do events come in over HTTP? Verified, stored, answered; handled later. Also health and metrics.

What mail services report of our mails comes in the same way, where a secret for it is set.

Anything malformed is answered 400 or 413 and stores nothing; 5xx only when the event could not be committed, and 429
when too many wait.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker import app, bounces, inbox, standard_webhooks, watch
from worker.clock import machine_now
from worker.logs import log
from worker.metrics import exposition
from worker.settings import Settings, load_settings
from worker.stripe_gateway import StripeGateway, verify_event
from worker.web import links, signals, unsubscribe
from worker.web.bodies import TooLarge, read_body
from worker.web.console import routes as console
from worker.web.intake import Full, Intake

if TYPE_CHECKING:
    from starlette.requests import Request


def make_web(settings: Settings, engine: Engine, gateway: Callable[[], StripeGateway] = app.gateway) -> Starlette:
    """Return the web application over one database; ``gateway`` is asked for when a customer follows a link."""
    intake = Intake(engine)

    async def stripe_webhook(request: Request) -> Response:
        try:
            body = await read_body(request)
            event = _verified(body, request.headers.get("stripe-signature", ""), settings)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413)
        except ValueError as error:
            log.warning("webhook refused", reason=str(error))
            return JSONResponse({"error": str(error)}, 400)
        try:
            new = await intake.store(event) if event.ours else False
        except Full:
            return JSONResponse({"error": "too many events at once: try again in a minute"}, 429)
        except SQLAlchemyError as error:
            log.warning("webhook", error=type(error).__name__)
            return JSONResponse({"error": "try again in a minute"}, 503)
        return JSONResponse({"received": event.id, "new": new})

    async def healthz(_request: Request) -> Response:
        found = await run_in_threadpool(watch.health, engine, settings.tick_seconds, app.now())
        return JSONResponse(found.as_json(), 200 if found.live else 503)

    async def readyz(_request: Request) -> Response:
        found = await run_in_threadpool(watch.health, engine, settings.tick_seconds, app.now())
        return JSONResponse(found.as_json(), 200 if found.ready else 503)

    async def metrics(_request: Request) -> Response:
        told = await run_in_threadpool(exposition, engine, app.now())
        return Response(told, media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/webhooks/stripe", stripe_webhook, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            *_of_mail(settings, engine),
            *signals.routes(settings, engine),
            *links.routes(settings, engine, gateway),
            *unsubscribe.routes(settings, engine),
            *console.routes(settings, engine),
        ]
    )


def _of_mail(settings: Settings, engine: Engine) -> list[Route]:
    """Return the route for what mail services report; none unless a secret verifies it."""
    secrets = [secret.get_secret_value() for secret in settings.mail_webhook_secret]

    async def mail_webhook(request: Request) -> Response:
        try:
            body = await read_body(request)
            standard_webhooks.verify(secrets, request.headers, body, machine_now())
            report = bounces.from_webhook(body)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413)
        except ValueError as error:
            log.warning("mail webhook refused", reason=str(error))
            return JSONResponse({"error": str(error)}, 400)
        try:
            ours = await run_in_threadpool(_note, engine, report) if report else False
        except SQLAlchemyError as error:
            log.warning("mail webhook", error=type(error).__name__)
            return JSONResponse({"error": "try again in a minute"}, 503)
        log.info("mail webhook", outcome=report.outcome if report else None, ours=ours)
        return JSONResponse({"ours": ours})

    return [Route("/webhooks/mail", mail_webhook, methods=["POST"])] if secrets else []


def serve() -> Starlette:
    """Return the web application of this installation (uvicorn calls it once per process)."""
    return make_web(load_settings(), app.engine())


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


def _note(engine: Engine, report: bounces.Report) -> bool:
    with engine.begin() as db:
        return bounces.note(db, report, app.now())
