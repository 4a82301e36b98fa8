"""Commands that show what customers are told: look at a notice, and send oneself one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import func, select

from worker import app, suppression_cli, tasks
from worker.installation import as_json, installation, show
from worker.mail import addressed
from worker.models import cases, outbox
from worker.notices import bill_of
from worker.settings import load_settings
from worker.smtp import MailError
from worker.wording import Bill, Letter, Letterhead, compose, sample

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

FIRST = "first"
locale_option = click.option("--locale", help="Language, such as de or pt-BR. Default: the customer's own.")
notice_option = click.option("--notice", "name", help="Which one: first, reminder, … Default: the next of the case.")


@click.group()
def notice() -> None:
    """What customers are told."""


for operation in suppression_cli.COMMANDS:
    notice.add_command(operation)


@notice.command()
@click.option("--case", "case_id", help="The number or the payment id of a case, read anew from the provider.")
@click.option("--sample", "of_nobody", is_flag=True, help="A payment of nobody.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the HTML and the text file.")
@notice_option
@locale_option
@as_json
def preview(  # noqa: PLR0913 - one argument for each option
    *, case_id: str | None, of_nobody: bool, out: Path | None, name: str | None, locale: str | None, as_json: bool
) -> None:
    """Show a notice as the customer would get it: its text, or HTML and text as files."""
    if (case_id is None) != of_nobody:
        msg = "name a --case, or take a --sample"
        raise click.UsageError(msg)
    if case_id is None:
        name, bills = name or FIRST, sample(app.now().date(), name or FIRST)
    else:
        name, bills = _of_case(case_id, name)
    letter = _letter(name, bills, locale)
    files = _kept(out, name, letter) if out else []
    if as_json:
        told = {"notice": name, "locale": letter.tag, "subject": letter.subject}
        show({**told, "files": files} if out else {**told, "text": letter.text, "html": letter.html})
    else:
        click.echo("\n".join(files) if out else f"{letter.subject}\n\n{letter.text}", nl=bool(out))


def _of_case(case_id: str, name: str | None) -> tuple[str, tuple[Bill, ...]]:
    """Return the notice that is next, unless another one is named, and what it would tell now."""
    wanted = cases.c.id == int(case_id) if re.fullmatch("[0-9]{1,18}", case_id) else cases.c.payment_id == case_id
    with installation():
        with app.engine().connect() as db:
            row = db.execute(select(cases).where(wanted)).one_or_none()
            if row is None:
                msg = f"no case {case_id}"
                raise click.ClickException(msg)
            name = name or _next(db, row)
        desk = tasks.desk()
        return name, (bill_of(desk, row, desk.gateway.read(row.payment_id, row.account)),)


def _next(db: Connection, row: Row[Any]) -> str:
    """Return the notice that is planned, else the one of the ladder that has not been said."""
    if row.step and row.step["step"] == "contact":
        return str(row.step["notice"])
    said = select(func.count()).where(outbox.c.case_id == row.id, outbox.c.kind == "notice")
    rungs = [rung.notice for rung in app.policy().ladder][db.execute(said).scalar_one() :]
    return rungs[0] if rungs else FIRST


def _letter(name: str, bills: tuple[Bill, ...], locale: str | None) -> Letter:
    return compose(name, bills, app.policy(), Letterhead.from_settings(load_settings()), locale)


def _kept(folder: Path, name: str, letter: Letter) -> list[str]:
    """Write both forms of a letter into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.{letter.tag}.html": letter.html, f"{name}.{letter.tag}.txt": letter.text}
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [str(folder / file) for file in files]


@notice.command("send-test")
@click.argument("address")
@notice_option
@locale_option
@as_json
def send_test(address: str, name: str | None, locale: str | None, *, as_json: bool) -> None:
    """Send a sample to ADDRESS by the configured mailbox, in observe mode too."""
    name, now, box = name or FIRST, app.now(), tasks.mailbox()
    letter = _letter(name, sample(now.date(), name), locale)
    key = f"test-{name}-{now:%Y%m%dT%H%M%S%f}"
    try:
        box.send(addressed(box, letter, address, key), key)
    except ValueError:
        msg = f"{address!r} is no e-mail address"
        raise click.BadParameter(msg) from None
    except MailError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        msg = f"the message could not be kept: {type(error).__name__}"
        raise click.ClickException(msg) from None
    where = None if box.smtp_url else str(box.folder / f"{key}.eml")
    told = {"notice": name, "locale": letter.tag, "kept": where}
    show(told) if as_json else click.echo(f"kept in {where}" if where else "handed over to the mail server")
