"""Commands about messages: what waits, what was given up, and try that again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import and_, or_, select, update
from sqlalchemy import case as either

from schedules.steps import utc_text
from worker import app
from worker.cases import record
from worker.installation import as_json, installation, show
from worker.models import UNCERTAIN, cases
from worker.models import outbox as messages
from worker.notices import LAST_WORDS, MEANT, OVER

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

WAITS, PERHAPS, DEAD = "waiting", "uncertain", "dead"
DONE = "done"
ABOUT = ("id", "case_id", "payment_id", "subscription_id")
SHOWN = (*ABOUT, "kind", "name", "channel", "state", "tries", "due_at", "error")
# Of those that are merged into another message that one tells.
STATE = either(
    (messages.c.due_at.is_not(None), WAITS),
    (or_(messages.c.delivered_at.is_not(None), messages.c.merged_into.is_not(None)), None),
    (messages.c.error == UNCERTAIN, PERHAPS),
    (and_(*(messages.c.error.not_like(f"{each}%") for each in MEANT)), DEAD),
)
FOUND = select(messages, cases.c.payment_id, cases.c.closed_at, STATE.label("state")).outerjoin(cases)


@click.group("outbox")
def outbox() -> None:
    """What is told to customers and to your own systems."""


@outbox.command("list")
@click.option("--dead", is_flag=True, help="Only what was given up.")
@as_json
def outbox_list(*, dead: bool, as_json: bool) -> None:
    """List what waits, what was given up, and what has perhaps been delivered; the next due first."""
    wanted = FOUND.where(STATE == DEAD if dead else STATE.is_not(None))
    with installation(), app.engine().connect() as db:
        found = db.execute(wanted.order_by(messages.c.due_at.nulls_last(), messages.c.id)).all()
    told = [{**{name: getattr(row, name) for name in SHOWN}, "due_at": _text(row.due_at)} for row in found]
    if as_json:
        show(told)
        return
    table = Table(*SHOWN, box=None)
    for each in told:
        table.add_row(*("" if each[name] is None else str(each[name]) for name in SHOWN))
    Console().print(table if told else "No messages.")


def _text(at: datetime | None) -> str | None:
    return utc_text(at) if at else None


@outbox.command("retry")
@click.argument("ids", nargs=-1, type=click.IntRange(1, 2**63 - 1))
@click.option("--dead", is_flag=True, help="Everything that was given up.")
@click.option("--even-if-delivered", is_flag=True, help="Also what is uncertain: the customer may get it twice.")
@as_json
def outbox_retry(*, ids: tuple[int, ...], dead: bool, even_if_delivered: bool, as_json: bool) -> None:
    """Try messages again, now: those of these numbers, or --dead ones. Says for each what became of it."""
    if bool(ids) == dead:
        msg = "name messages, or take all that are --dead"
        raise click.UsageError(msg)
    with installation():
        if dead:
            with app.engine().connect() as db:
                ids = tuple(db.execute(FOUND.where(STATE == DEAD).order_by(messages.c.id)).scalars())
        told = []
        for each in ids:
            with app.engine().begin() as db:
                told.append({"id": each, "verdict": _retry(db, each, app.now(), even_if_delivered=even_if_delivered)})
    if as_json:
        show(told)
    else:
        click.echo("\n".join(f"{each['id']}: {each['verdict']}" for each in told) or "Nothing was given up.")
    if any(each["verdict"] != DONE for each in told):
        raise click.exceptions.Exit(1)


def _retry(db: Connection, message_id: int, now: datetime, *, even_if_delivered: bool) -> str:
    """Make a message due as if it had never been tried; return what was done."""
    row = db.execute(FOUND.where(messages.c.id == message_id).with_for_update(of=messages)).one_or_none()
    if row is None:
        return "skipped: there is no such message"
    if why := _objection(row, even_if_delivered=even_if_delivered):
        return f"skipped: {why}"
    fresh = {"due_at": now, "tries": 0, "error": None}
    db.execute(update(messages).where(messages.c.id == message_id).values(**fresh))
    if row.case_id is not None:
        record(db, row.case_id, now, "retried", {"kind": row.kind, "name": row.name, "channel": row.channel})
    return DONE


def _objection(row: Row[Any], *, even_if_delivered: bool) -> str | None:
    """Return why a message is not tried again, or None."""
    over = row.kind == "notice" and row.name not in LAST_WORDS and row.closed_at is not None
    perhaps = "it was perhaps delivered; with --even-if-delivered the customer may get it twice"
    objections = (
        (row.merged_into is not None, f"it is a part of message {row.merged_into}"),
        (row.delivered_at is not None, "it was delivered"),
        (row.lease_token is not None, "somebody is delivering it"),
        (row.state is None, row.error),
        (row.state == WAITS and row.error is None, f"it waits for its turn at {_text(row.due_at)}"),
        (over, OVER),
        (row.state == PERHAPS and not even_if_delivered, perhaps),
    )
    return next((why for holds, why in objections if holds), None)
