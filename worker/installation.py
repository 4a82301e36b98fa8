"""What does a command work with? Database and broker, for as long as it runs; and how it answers machines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from worker import app, database
from worker.embedded import servers
from worker.settings import SettingsError, load_settings

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@contextmanager
def installation(*, migrate: bool | None = None, check: bool = True) -> Iterator[None]:
    """Provide database and broker for the time of a command, and see that the database has this version's shape.

    With neither address configured the embedded servers are used, and started when they are not running.
    """
    settings = load_settings()
    if settings.database_url and settings.broker_url:
        if migrate:
            database.upgrade(app.engine())
        if check:
            database.require_current(app.engine())
        yield
        return
    if settings.database_url or settings.broker_url:
        missing = "DUNNING_BROKER_URL" if settings.database_url else "DUNNING_DATABASE_URL"
        msg = f"{missing} is not set: name both servers, or neither to use the embedded ones"
        raise SettingsError(msg)
    with servers(settings.home) as found:
        os.environ["DUNNING_DATABASE_URL"], os.environ["DUNNING_BROKER_URL"] = found.database_url, found.broker_url
        load_settings.cache_clear()
        database.upgrade(app.engine())
        try:
            yield
        finally:
            app.engine().dispose()


def write(file: Path, text: str, option: str) -> None:
    """Write a file that an option asked for, or say why it cannot be written."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {file}: {error.strerror}"
        raise click.BadParameter(msg, param_hint=f"'{option}'") from None


def instant_named(text: str, now: datetime) -> datetime:
    """Return the instant that ``30d``, ``2h`` or an ISO time names; without an offset it is UTC."""
    try:
        if ago := re.fullmatch("([0-9]{1,4})([dh])", text):
            return now - timedelta(**{"days" if ago[2] == "d" else "hours": int(ago[1])})
        at = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} is no time: expected 30d, 2h or 2026-01-31T12:00"
        raise click.BadParameter(msg) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def show(value: Any) -> None:
    """Print one JSON value on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))
