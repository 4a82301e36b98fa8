"""The ways in from the queue: each task reads the clock once and calls one function."""

from __future__ import annotations

import gc
import time
from collections import Counter
from datetime import timedelta
from functools import lru_cache
from math import ceil
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore
from celery.signals import task_failure, task_postrun, task_prerun, task_success, worker_ready
from sqlalchemy import Engine
from structlog.contextvars import bind_contextvars, clear_contextvars

from worker import app, audit, catchup, charging, jobs, leavers, notices, prevention, replay, retention, sweep, watch
from worker.calls import Calls
from worker.celery_app import celery_app
from worker.desk import Desk
from worker.hooks import HookError, Hooks
from worker.ingest import Counts
from worker.links import Links
from worker.logs import log
from worker.mail import Mailbox
from worker.risk import nightly
from worker.settings import load_settings
from worker.smtp import MailError
from worker.stripe_gateway import GatewayError
from worker.subscriptions import Counts as Counted
from worker.words import NotWritten

# What the first argument of a task is the number of.
ABOUT = {"dunning.work": "case_id", "dunning.deliver": "message_id", "dunning.tell": "message_id"}

TICKING, SOON = BoundedSemaphore(2), BoundedSemaphore(1)
APART = 0.1  # seconds
TOGETHER = 50  # cases at most in one message, and while few are due no more than leave so many messages for all workers
SPREAD = 12


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
        calls=calls(),
    )


@lru_cache(maxsize=1)
def calls() -> Calls:
    """Return the threads of this process in which the provider is asked."""
    return Calls(celery_app.conf.worker_concurrency)


def mailbox() -> Mailbox:
    """Return where this installation's notices go."""
    return Mailbox.from_settings(load_settings())


@celery_app.task(name="dunning.tick")  # type: ignore[untyped-decorator]  # celery has no types
def tick() -> None:
    """Find what is due and send hints; beat calls it every few seconds.

    Of the threads of a process two do so at a time: many events that wait leave the others to the cases.
    """
    if not _ticked():
        raise Ignore


def _ticked() -> bool:
    if not TICKING.acquire(blocking=False):
        return False
    try:
        while _swept().events == sweep.EVENTS:
            pass
    finally:
        TICKING.release()
    return True


def _swept() -> sweep.Swept:
    due: list[tuple[int, str]] = []
    found = sweep.tick(desk(), lambda task, *hint: due.append(hint) if task == work.name else send(task, *hint))
    for few in bundles(due, full=found.full):
        celery_app.send_task(work_each.name, args=(few,))
    if found.events or found.cases or found.messages:
        log.info("tick", events=found.events, cases=found.cases, messages=found.messages)
    return found


def bundles(hints: list[tuple[int, str]], *, full: bool) -> list[list[tuple[int, str]]]:
    """Return the hints of one tick as they travel: a message for a few of them, one each while there are few."""
    size = TOGETHER if full else min(TOGETHER, max(1, ceil(len(hints) / SPREAD)))
    return [hints[begin : begin + size] for begin in range(0, len(hints), size)]


def send(task: str, row_id: int, token: str) -> None:
    """Send one hint to the workers: an id and the token of its lease."""
    celery_app.send_task(task, args=(row_id, token))


@celery_app.task(name="dunning.work")  # type: ignore[untyped-decorator]
def work(case_id: int, token: str) -> None:
    """Do what is due about one case: so messages of earlier versions ask, and tests."""
    work_each([(case_id, token)])


@celery_app.task(name="dunning.work_each")  # type: ignore[untyped-decorator]
def work_each(hints: list[tuple[int, str]]) -> None:
    """Do what is due about several cases. An error that nobody expected is kept, and the others go on.

    Who was given as many as may travel together has made room for as many: it looks for them at once.
    """
    for case_id, done in charging.work_each(desk(), [(case_id, UUID(token)) for case_id, token in hints]).items():
        if isinstance(done, GatewayError):
            log.warning("work", case_id=case_id, error=str(done))
        elif isinstance(done, Exception):
            log.error("work", case_id=case_id, exc_info=done)
            replay.note_failure(app.engine(), work.name, case_id, done)
        else:
            log.info("work", case_id=case_id, done=done)
    if len(hints) >= TOGETHER and SOON.acquire(blocking=False):  # or somebody else is about to look
        try:
            time.sleep(APART)  # so it is worth the look, which passes over all that is under way
        finally:
            SOON.release()
        _ticked()


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


@celery_app.task(name="dunning.risk")  # type: ignore[untyped-decorator]
def risk() -> None:
    """Read the subscriptions and score them; once a day, of the many times beat asks."""
    if not jobs.begin(app.engine(), "risk"):
        return
    counts, scored = Counted(), 0
    try:
        model = nightly.model_of(load_settings().risk_model)
        for scored in nightly.read_and_score(app.engine(), app.gateway(), app.now(), model, counts):  # noqa: B007
            pass
    except GatewayError as error:
        log.warning("risk", error=str(error))
        return
    told = {"read": counts.read, "scored": scored, "gone": len(counts.gone), "rejected": len(counts.rejected)}
    jobs.done(app.engine(), "risk", told)
    log.info("risk", **told)


@celery_app.task(name="dunning.prevent")  # type: ignore[untyped-decorator]
def prevent() -> None:
    """Help those whom the next charge may lose, once after each scoring; beat asks every hour."""
    with app.engine().connect() as db:
        scored, helped = jobs.last(db, "risk"), jobs.last(db, "prevent")
    stale = scored is None or (helped is not None and helped.done_at > scored.done_at)
    if stale or not jobs.begin(app.engine(), "prevent"):
        return
    try:
        done = Counter(each.act for each in prevention.prevent(desk()))
    except GatewayError as error:
        log.warning("prevent", error=str(error))
        return
    told = {**done, **leavers.announce(desk())}
    jobs.done(app.engine(), "prevent", told)
    log.info("prevent", **told)


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
    pulse(app.engine()).did(sender.name)


@lru_cache(maxsize=1)
def pulse(engine: Engine) -> watch.Pulse:
    """Return what remembers the heartbeats of this process."""
    return watch.Pulse(engine, "worker")


@task_failure.connect  # type: ignore[untyped-decorator]
def keep_failure(sender: Any, exception: BaseException, args: Any, **_given: Any) -> None:
    """A task ended in an error that nobody expected: it is kept for a person, with what it was about."""
    replay.note_failure(app.engine(), sender.name, args[0] if sender.name in ABOUT and args else None, exception)


@worker_ready.connect  # type: ignore[untyped-decorator]
def catch_up_first(**_given: Any) -> None:
    """A worker has started: find out at once what happened while none was there.

    What is loaded by now stays: nobody has to look through it again and again for what can be thrown away.
    """
    gc.collect()
    gc.freeze()
    celery_app.send_task("dunning.catch_up")
