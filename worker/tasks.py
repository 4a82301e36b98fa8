"""The ways in from the queue: each task reads the clock once and calls one function."""

from __future__ import annotations

from datetime import timedelta
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore
from celery.signals import task_failure, task_postrun, task_prerun, task_success, worker_ready
from structlog.contextvars import bind_contextvars, clear_contextvars

from worker import app, audit, catchup, charging, jobs, notices, replay, retention, sweep, watch
from worker.celery_app import celery_app
from worker.charging import Desk
from worker.eventfile import Counts
from worker.hooks import HookError, Hooks
from worker.links import Links
from worker.logs import log
from worker.mail import Mailbox
from worker.settings import load_settings
from worker.smtp import MailError
from worker.stripe_gateway import GatewayError
from worker.words import NotWritten

# What the first argument of a task is the number of.
ABOUT = {"dunning.work": "case_id", "dunning.deliver": "message_id", "dunning.tell": "message_id"}

TICKING = BoundedSemaphore(2)


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
        links=Links.from_settings(settings),
        hooks=Hooks.from_settings(settings),
    )


def mailbox() -> Mailbox:
    """Return where this installation's notices go."""
    return Mailbox.from_settings(load_settings())


@celery_app.task(name="dunning.tick")  # type: ignore[untyped-decorator]  # celery has no types
def tick() -> None:
    """Find what is due and send hints; beat calls it every few seconds.

    Of the threads of a process two do so at a time: many events that wait leave the others to the cases.
    """
    if not TICKING.acquire(blocking=False):
        raise Ignore
    try:
        while _swept().events == sweep.EVENTS:
            pass
    finally:
        TICKING.release()


def _swept() -> sweep.Swept:
    found = sweep.tick(desk(), send)
    if found != sweep.Swept(0, 0, 0):
        log.info("tick", events=found.events, cases=found.cases, messages=found.messages)
    if found.full:  # behind the hints in the queue: workers that come to their end find the next ones
        celery_app.send_task("dunning.tick")
    return found


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
    try:
        done = notices.deliver(desk(), mailbox(), message_id, UUID(token))
    except (GatewayError, HookError, MailError, NotWritten) as error:
        log.warning("deliver", message_id=message_id, error=str(error))
    else:
        log.info("deliver", message_id=message_id, done=done)


@celery_app.task(name="dunning.tell")  # type: ignore[untyped-decorator]
def tell(message_id: int, token: str) -> None:
    """Deliver one message by webhook; whoever is done with one sees to the next."""
    try:
        deliver(message_id, token)
    finally:
        sweep.tell(desk(), send)


@celery_app.task(name="dunning.catch_up")  # type: ignore[untyped-decorator]
def catch_up() -> None:
    """Read the events that did not reach us; beat calls it every few minutes, and one of many beats is heard."""
    for account in catchup.accounts(app.engine()):
        counts = Counts()
        try:
            for _ in catchup.missed_events(desk(), counts, account, pause=timedelta(minutes=4)):
                pass
        except GatewayError as error:
            log.warning("catch_up", account=account, error=str(error))
        if counts.new or counts.rejected:
            log.info("catch_up", account=account, new=counts.new, rejected=counts.rejected)


@celery_app.task(name="dunning.sweep_invoices")  # type: ignore[untyped-decorator]
def sweep_invoices() -> None:
    """Compare our cases with the open invoices; beat calls it every hour, and it does so once a day."""
    for account in catchup.accounts(app.engine()):
        try:
            opened, again = catchup.sweep_invoices(
                desk(), account, every=timedelta(days=1), pause=timedelta(minutes=50)
            )
        except GatewayError as error:
            log.warning("sweep_invoices", account=account, error=str(error))
        else:
            log.info("sweep_invoices", account=account, opened=opened, read_again=again)


@celery_app.task(name="dunning.audit")  # type: ignore[untyped-decorator]
def check() -> None:
    """Look whether what must always be true is true, and raise an alert; once a day, of the many times beat asks."""
    if not jobs.begin(app.engine(), "audit"):
        return
    broken = [each for each in audit.examine(app.engine(), app.policy(), app.now()) if not each.ok]
    for each in broken:
        log.error("audit", statement=each.statement, rows=each.rows, advice=each.advice)
    jobs.done(app.engine(), "audit", {"broken": [each.statement for each in broken]})


@celery_app.task(name="dunning.clean_up")  # type: ignore[untyped-decorator]
def clean_up() -> None:
    """Delete what is not needed any more; once a day, of the many times beat asks."""
    if not jobs.begin(app.engine(), "clean_up"):
        return
    settings = load_settings()
    gone = retention.clean_up(app.engine(), timedelta(days=settings.keep_events_days))
    if settings.keep_history_days is not None:
        gone["history"] = retention.forget(app.engine(), app.now() - timedelta(days=settings.keep_history_days))
    jobs.done(app.engine(), "clean_up", gone)
    log.info("clean_up", **gone)


@task_prerun.connect  # type: ignore[untyped-decorator]
def name_work(sender: Any, args: Any, **_given: Any) -> None:
    """A task begins: every line of its thread until its end tells what it is about, also what Celery says of it."""
    clear_contextvars()
    if (name := ABOUT.get(sender.name)) and args:
        bind_contextvars(**{name: args[0]})


@task_postrun.connect  # type: ignore[untyped-decorator]
def forget_work(**_given: Any) -> None:
    """A task has ended: the next one of its thread is about something else."""
    clear_contextvars()


@task_success.connect  # type: ignore[untyped-decorator]
def note_success(sender: Any, **_given: Any) -> None:
    """A task was done: that is this worker's heartbeat."""
    watch.did(app.engine(), "worker", sender.name)


@task_failure.connect  # type: ignore[untyped-decorator]
def keep_failure(sender: Any, exception: BaseException, args: Any, **_given: Any) -> None:
    """A task ended in an error that nobody expected: it is kept for a person, with what it was about."""
    replay.note_failure(app.engine(), sender.name, args[0] if args else None, exception)


@worker_ready.connect  # type: ignore[untyped-decorator]
def catch_up_first(**_given: Any) -> None:
    """A worker has started: find out at once what happened while none was there."""
    celery_app.send_task("dunning.catch_up")
