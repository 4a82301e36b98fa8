"""What has failed that nobody expected, and how is it done again? Jobs and events with their errors, age and count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, select
from starlette.responses import Response

from worker import replay
from worker.celery_app import celery_app
from worker.inbox import MOST_TRIES
from worker.logs import log
from worker.models import events
from worker.repair import NUMBER
from worker.web.console.pages import Visit, Wrong, shown

MOST = 100


def view(visit: Visit) -> Response:
    """Show failed jobs, and events that were not handled because of an error."""
    return _page(visit)


def act(visit: Visit) -> Response:
    """Tell what handling something again would mean; do it once that was confirmed."""
    kind, name, sure = visit.form.get("kind", ""), visit.form.get("id", ""), visit.form.get("sure") == "yes"
    if kind == "event" and name.isprintable():
        [verdict] = replay.replay_events(visit.engine, [name], dry=not sure)
    elif kind == "job" and NUMBER.fullmatch(name):
        send = celery_app.send_task
        [verdict] = replay.replay_jobs(visit.engine, [int(name)], visit.now, send, dry=not sure)
    else:
        msg = "expected the id of an event, or the number of a job"
        raise Wrong(msg)
    if sure:
        log.info("console", act="replay", kind=kind, id=name, by=visit.who, done=verdict.done)
    return _page(visit, kind=kind, name=name, sure=sure, verdict=verdict)


def _page(visit: Visit, **acted: Any) -> Response:
    blank = {"kind": None, "name": "", "sure": False, "verdict": None}
    with visit.engine.connect() as db:
        jobs, (number, waiting) = replay.failed_jobs(db), _events(db)
    told = {"jobs": jobs[:MOST], "job_count": len(jobs), "events": waiting, "event_count": number}
    return shown(visit, "failed", {"most_tries": MOST_TRIES, **told, **blank, **acted})


def _events(db: Connection) -> tuple[int, list[Row[Any]]]:
    """Return how many events wait with an error, and the first of them."""
    failed = events.c.handled_at.is_(None), events.c.error.is_not(None)
    shown_ones = select(events.c.id, events.c.type, events.c.received_at, events.c.tries, events.c.error)
    number = db.execute(select(func.count()).select_from(events).where(*failed)).scalar_one()
    return number, list(db.execute(shown_ones.where(*failed).order_by(events.c.received_at, events.c.id).limit(MOST)))
