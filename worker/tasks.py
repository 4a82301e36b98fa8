"""The ways in from the queue: each task reads the clock once and calls one function."""

from __future__ import annotations

from uuid import UUID

from worker import app, charging, notices, sweep
from worker.app import celery_app
from worker.charging import Desk
from worker.logs import log
from worker.settings import load_settings
from worker.stripe_gateway import GatewayError


def desk() -> Desk:
    """Return what this process works with, at the present business instant."""
    settings = load_settings()
    return Desk(
        engine=app.engine(),
        gateway=app.gateway(),
        policy=app.policy(),
        live=settings.mode == "live",
        lease_seconds=settings.lease_seconds,
        now=app.now(),
    )


def mailbox() -> notices.Mailbox:
    """Return where this installation's notices go."""
    settings = load_settings()
    smtp_url = settings.smtp_url.get_secret_value() if settings.smtp_url else None
    return notices.Mailbox(settings.mail_from, settings.home / "notices", smtp_url)


@celery_app.task(name="dunning.tick")  # type: ignore[untyped-decorator]  # celery has no types
def tick() -> None:
    """Find what is due and send hints; beat calls it every few seconds."""
    found = sweep.tick(desk(), send)
    if found != sweep.Swept(0, 0, 0):
        log.info("tick", events=found.events, cases=found.cases, messages=found.messages)


def send(task: str, row_id: int, token: str) -> None:
    """Send one hint to the workers: an id and the token of its lease."""
    celery_app.send_task(task, args=(row_id, token))


@celery_app.task(name="dunning.work")  # type: ignore[untyped-decorator]
def work(case_id: int, token: str) -> None:
    """Do what is due about one case."""
    try:
        done = charging.work(desk(), case_id, UUID(token))
    except GatewayError as error:
        log.warning("work", case_id=case_id, error=str(error))
    else:
        log.info("work", case_id=case_id, done=done)


@celery_app.task(name="dunning.deliver")  # type: ignore[untyped-decorator]
def deliver(message_id: int, token: str) -> None:
    """Deliver one message of the outbox."""
    done = notices.deliver(desk(), mailbox(), message_id, UUID(token))
    log.info("deliver", message_id=message_id, done=done)
