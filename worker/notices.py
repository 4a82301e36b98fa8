"""What is said to the customer, and how does it leave? Outbox rows, delivered later and once.

The address is read from the provider at the moment of sending and is never stored or logged. One notice may name
several invoices of a customer; those whose case has ended meanwhile are left out, and without any it is dropped. A
notice that may or may not have been delivered is shown, not repeated.
"""

from __future__ import annotations

import smtplib
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from email.message import EmailMessage
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Row, and_, case, func, or_, select, update

from worker.cases import record
from worker.models import OPEN_STATES, cases, outbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.charging import Desk
    from worker.readings import Reading

MOST_TRIES = 8
UNCERTAIN = "uncertain: handed over once, perhaps delivered"
OVER = "the case has ended"
OBSERVED = "observe mode sends nothing"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where messages go: an SMTP server, or a folder that keeps each one as an .eml file."""

    sender: str
    folder: Path
    smtp_url: str | None = None

    def send(self, message: EmailMessage, key: str) -> None:
        """Hand one message over; raise ``OSError`` or ``smtplib.SMTPException`` when it was not taken."""
        if self.smtp_url is None:
            self._keep(message, key)
            return
        with _smtp(self.smtp_url) as server:
            server.send_message(message)

    def _keep(self, message: EmailMessage, key: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{key}.part"
        part.write_bytes(message.as_bytes())
        part.replace(self.folder / f"{key}.eml")


@contextmanager
def _smtp(url: str) -> Iterator[smtplib.SMTP]:
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or (465 if parts.scheme == "smtps" else 25)
    secure = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(host, port, timeout=30, context=secure)
        if parts.scheme == "smtps"
        else smtplib.SMTP(host, port, timeout=30)
    )
    with server:
        if parts.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=secure)
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        yield server


@dataclass(frozen=True, slots=True)
class Item:
    """One invoice that a message is about: its row of the outbox, and its case as it was when the message was taken."""

    row: Row[Any]
    case: Row[Any]

    @property
    def is_open(self) -> bool:
        """Whether there is still something to say, as far as we know."""
        return self.case.state in OPEN_STATES and self.case.ended is None


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    items = _take(desk, message_id, hint)
    if not items:
        return False
    try:
        errors = _carry_out(desk, mailbox, items)
    except Exception as error:
        _settle(desk, items, [type(error).__name__] * len(items), again=True)
        raise
    _settle(desk, items, errors, again=False)
    return None in errors


def _take(desk: Desk, message_id: int, hint: UUID) -> list[Item]:
    """Use up the hint, and return the message with all that was merged into it, the message itself first.

    A second delivery of the same hint finds another token, and nothing.
    """
    silent = or_(outbox.c.error.is_(None), outbox.c.error == UNCERTAIN)  # whoever took it before was not heard of again
    doubt = case((and_(outbox.c.tries > 0, silent), UNCERTAIN))
    own = {"lease_token": func.gen_random_uuid(), "tries": outbox.c.tries + 1, "error": doubt}
    mine = outbox.c.id == message_id, outbox.c.lease_token == hint, outbox.c.due_at.is_not(None)
    with desk.engine.begin() as db:
        if db.execute(update(outbox).where(*mine).values(**own)).rowcount != 1:
            return []
        together = or_(outbox.c.id == message_id, outbox.c.merged_into == message_id)
        rows = db.execute(select(outbox).where(together).order_by(outbox.c.id)).all()
        about = select(cases).where(cases.c.id.in_([row.case_id for row in rows]))
        found = {row.id: row for row in db.execute(about)}
    return [Item(row, found[row.case_id]) for row in rows]


def _carry_out(desk: Desk, mailbox: Mailbox, items: list[Item]) -> list[str | None]:
    """Do what the message is for; return for each item why it was not to be done, or None."""
    message, case = items[0].row, items[0].case
    if not desk.live:
        return [OBSERVED] * len(items)
    key = f"{case.payment_id}-{message.name}"
    if message.kind == "ending":
        desk.gateway.end(message.name, case.payment_id, case.subscription_id, f"dunning-end-{key}", case.account)
        return [None]
    if message.error == UNCERTAIN and mailbox.smtp_url is not None and any(item.is_open for item in items):
        return [UNCERTAIN] * len(items)
    return _hand_over(desk, mailbox, items, key)


def _hand_over(desk: Desk, mailbox: Mailbox, items: list[Item], key: str) -> list[str | None]:
    """Send the notice for the items of which the provider says that something is left to say, if there are any."""
    read = ((item, desk.gateway.read(item.case.payment_id, item.case.account)) for item in items if item.is_open)
    left = {item.row.id: (item.row.name, reading) for item, reading in read if reading.ended is None}
    if left:
        names, readings = zip(*left.values(), strict=True)
        mailbox.send(write(readings, names[0], mailbox.sender, key), key)
    return [None if item.row.id in left else OVER for item in items]


def _settle(desk: Desk, items: list[Item], errors: list[str | None], *, again: bool) -> None:
    """Write down that the message left, will be tried again, or will not leave; for each item in its own history."""
    message = items[0].row
    later = desk.now + timedelta(minutes=2**message.tries) if again and message.tries < MOST_TRIES else None
    mine = outbox.c.id == message.id, outbox.c.lease_token == message.lease_token
    free = {"lease_token": None, "lease_until": None, "due_at": later}
    with desk.engine.begin() as db:
        if db.execute(update(outbox).where(*mine).values(**free)).rowcount != 1:
            return
        # In the order in which everybody locks cases: a line of history waits for who has locked its case.
        for item, error in sorted(zip(items, errors, strict=True), key=lambda pair: int(pair[0].case.id)):
            done = {"error": error, "delivered_at": desk.now if error is None else None}
            db.execute(update(outbox).where(outbox.c.id == item.row.id).values(**done))
            told = {"kind": item.row.kind, "name": item.row.name, "error": error}
            record(db, item.case.id, desk.now, "delivered" if error is None else "not_delivered", told)


def write(readings: Sequence[Reading], name: str, sender: str, key: str) -> EmailMessage:
    """Return one notice about one or several invoices of a customer as a message.

    Its words never say more of the refusal than that the payment failed.
    """
    if readings[0].email is None:
        msg = "the customer has no e-mail address"
        raise LookupError(msg)
    text = _templates().get_template(f"{name}.txt.j2")
    words = _words(readings)
    module = text.make_module(words)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, readings[0].email, module.subject.strip()  # type: ignore[attr-defined]
    mail["Message-ID"] = f"<{key}@dunning>"
    for reading in readings:
        mail["X-Dunning-Payment"] = reading.payment_id
    mail["X-Dunning-Notice"] = name
    mail.set_content(text.render(words).strip() + "\n")
    return mail


def _words(readings: Sequence[Reading]) -> dict[str, Any]:
    """Return what the templates may use: ``amount`` tells all of them in a row, ``payments`` has each with its link."""
    amounts = [money(each.amount_minor, each.currency) for each in readings]
    *others, last = amounts
    brands = {each.card.brand for each in readings}
    return {
        "amount": f"{', '.join(others)} and {last}" if others else last,
        "payments": [{"amount": a, "link": each.link} for a, each in zip(amounts, readings, strict=True)],
        "several": bool(others),
        "brand": brands.pop() if len(brands) == 1 else None,
    }


@lru_cache(maxsize=1)
def _templates() -> Environment:
    # Plain text only: there is nothing to escape.
    return Environment(loader=PackageLoader("worker", "templates"), undefined=StrictUndefined, autoescape=False)  # noqa: S701


def money(amount_minor: int, currency: str, locale: str = "en") -> str:
    """Return an amount of minor units as people write it; a yen has no minor unit, a dinar has a thousand."""
    digits = get_currency_precision(currency.upper())
    return format_currency(Decimal(amount_minor).scaleb(-digits), currency.upper(), locale=locale)
