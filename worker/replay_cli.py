"""Commands that handle something again: stored events, and jobs that failed."""

from __future__ import annotations

from datetime import datetime
from itertools import chain
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from schedules.steps import utc_text
from worker import app, replay
from worker.case_cli import sum_up, told
from worker.celery_app import celery_app
from worker.clock import machine_now
from worker.installation import as_json, installation, instant_named, show
from worker.models import events


def _since(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    return instant_named(value, machine_now()) if value else None


@click.command("replay")
@click.option("--event", "event_ids", multiple=True, help="This stored event; may be repeated.")
@click.option("--failed", is_flag=True, help="Every event that was given up, and every failed job.")
@click.option("--type", "kind", help="Every stored event of this type.")
@click.option("--since", callback=_since, help="Every event that reached us since then: 30d, 2h, or an ISO time.")
@click.option("--task", "job_ids", multiple=True, type=int, help="This failed job of `dunning job list`; may repeat.")
@click.option("--limit", type=click.IntRange(1), help="At most so many events.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def replay_command(  # noqa: PLR0913 - one argument for each option
    *,
    event_ids: tuple[str, ...],
    failed: bool,
    kind: str | None,
    since: datetime | None,
    job_ids: tuple[int, ...],
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Handle stored events or failed jobs again. Nothing is charged by an event, and no job charges twice."""
    if sum(map(bool, (event_ids, failed, kind, since, job_ids))) != 1:
        msg = "name --event, --failed, --type, --since or --task: one of them"
        raise click.UsageError(msg)
    with installation():
        with app.engine().connect() as db:
            wanted = list(event_ids) or _events(db, failed=failed, kind=kind, since=since, limit=limit)
            jobs = list(job_ids) or ([job.id for job in replay.failed_jobs(db)] if failed else [])
        if not dry_run and not yes and (kind or since or failed):
            click.confirm(f"handle {len(wanted)} events and {len(jobs)} jobs again?", abort=True, err=True)
        again = replay.replay_events(app.engine(), wanted, dry=dry_run)
        done = replay.replay_jobs(app.engine(), jobs, app.now(), celery_app.send_task, dry=dry_run)
        verdicts = list(told(chain(again, done), quiet=as_json))
    sum_up(verdicts, dry=dry_run, as_json=as_json)


def _events(db: Connection, *, failed: bool, kind: str | None, since: datetime | None, limit: int | None) -> list[str]:
    if failed:
        return replay.chosen(db, limit, *replay.GIVEN_UP)
    if kind:
        return replay.chosen(db, limit, events.c.type == kind)
    return replay.chosen(db, limit, events.c.received_at >= since) if since else []


@click.group()
def job() -> None:
    """Jobs that ended in an error which nobody expected."""


@job.command("list")
@as_json
def job_list(as_json: bool) -> None:
    """List the failed jobs: what each was about, its error, how often and since when."""
    with installation(), app.engine().connect() as db:
        found = [_job(row) for row in replay.failed_jobs(db)]
    if as_json:
        show(found)
        return
    table = Table("job", "task", "about", "error", "times", "first", "last", box=None)
    for one in found:
        table.add_row(*(str("" if value is None else value) for value in one.values()))
    Console().print(table if found else "No job has failed.")


def _job(row: Any) -> dict[str, Any]:
    instants = {"first_at": utc_text(row.first_at), "last_at": utc_text(row.last_at)}
    return {"id": row.id, "task": row.task, "about": row.row_id, "error": row.error, "count": row.count, **instants}


@job.command("drop")
@click.argument("ids", type=int, nargs=-1, required=True)
@as_json
def job_drop(ids: tuple[int, ...], as_json: bool) -> None:
    """Take failed jobs off the list without doing them again."""
    with installation(), app.engine().begin() as db:
        gone = {job_id: replay.take(db, job_id) is not None for job_id in ids}
    verdicts = [
        replay.Verdict(str(job_id), done, "dropped" if done else "no such failed job") for job_id, done in gone.items()
    ]
    sum_up(list(told(verdicts, quiet=as_json)), dry=False, as_json=as_json)
