"""What is said to the customer, and how does it leave? Outbox rows, delivered later and once.

The address is read from the provider at the moment of sending and is never stored or logged. A notice whose case
has ended meanwhile is dropped. A delivery that may or may not have happened is shown, not repeated.
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
    from collections.abc import Iterator

    from worker.charging import Desk
    from worker.readings import Reading

MOST_TRIES = 8
UNCERTAIN = "uncertain: handed over once, perhaps delivered"


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


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    message, case = _take(desk, message_id, hint)
    if message is None:
        return False
    key = f"{case.payment_id}-{message.name}"
    try:
        unwanted = _unwanted(desk, mailbox, message, case) or _hand_over(desk, mailbox, message, case, key)
    except Exception as error:
        _settle(desk, message, case, f"{type(error).__name__}", again=True)
        raise
    _settle(desk, message, case, unwanted, again=False)
    return unwanted is None


def _take(desk: Desk, message_id: int, hint: UUID) -> tuple[Row[Any] | None, Any]:
    """Use up the hint; a second delivery of the same hint finds another token."""
    silent = or_(outbox.c.error.is_(None), outbox.c.error == UNCERTAIN)  # whoever took it before was not heard of again
    doubt = case((and_(outbox.c.tries > 0, silent), UNCERTAIN))
    own = {"lease_token": func.gen_random_uuid(), "tries": outbox.c.tries + 1, "error": doubt}
    mine = outbox.c.id == message_id, outbox.c.lease_token == hint, outbox.c.due_at.is_not(None)
    with desk.engine.begin() as db:
        message = db.execute(update(outbox).where(*mine).values(**own).returning(outbox)).one_or_none()
        found = None if message is None else db.execute(select(cases).where(cases.c.id == message.case_id)).one()
    return message, found


def _unwanted(desk: Desk, mailbox: Mailbox, message: Row[Any], case: Row[Any]) -> str | None:
    """Return why the message is not to be sent any more, or None."""
    if not desk.live:
        return "observe mode sends nothing"
    if message.kind == "notice" and (case.state not in OPEN_STATES or case.ended is not None):
        return "the case has ended"
    if message.error == UNCERTAIN and mailbox.smtp_url is not None:
        return UNCERTAIN
    return None


def _hand_over(desk: Desk, mailbox: Mailbox, message: Row[Any], case: Row[Any], key: str) -> str | None:
    """Carry the message out; return why not when the provider says that nothing is left to say."""
    if message.kind == "ending":
        desk.gateway.end(message.name, case.payment_id, case.subscription_id, f"dunning-end-{key}", case.account)
        return None
    reading = desk.gateway.read(case.payment_id, case.account)
    if reading.ended is not None:
        return "the case has ended"
    mailbox.send(write(reading, message.name, case.payment_id, mailbox.sender, key), key)
    return None


def _settle(desk: Desk, message: Row[Any], case: Row[Any], error: str | None, *, again: bool) -> None:
    """Write down that the message left, will be tried again, or will not leave."""
    values: dict[str, Any] = {"lease_token": None, "lease_until": None, "error": error, "due_at": None}
    if error is None:
        values["delivered_at"] = desk.now
    elif again and message.tries < MOST_TRIES:
        values["due_at"] = desk.now + timedelta(minutes=2**message.tries)
    told = {"kind": message.kind, "name": message.name, "error": error}
    with desk.engine.begin() as db:
        mine = outbox.c.id == message.id, outbox.c.lease_token == message.lease_token
        if db.execute(update(outbox).where(*mine).values(**values)).rowcount == 1:
            record(db, case.id, desk.now, "delivered" if error is None else "not_delivered", told)


def write(reading: Reading, name: str, payment_id: str, sender: str, key: str) -> EmailMessage:
    """Return one notice as a message; the words never say more of the refusal than that the payment failed."""
    if reading.email is None:
        msg = "the customer has no e-mail address"
        raise LookupError(msg)
    text = _templates().get_template(f"{name}.txt.j2")
    words = {"amount": money(reading.amount_minor, reading.currency), "link": reading.link, "brand": reading.card.brand}
    module = text.make_module(words)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, reading.email, module.subject.strip()  # type: ignore[attr-defined]
    mail["Message-ID"] = f"<{key}@dunning>"
    mail["X-Dunning-Payment"], mail["X-Dunning-Notice"] = payment_id, name
    mail.set_content(text.render(words).strip() + "\n")
    return mail


@lru_cache(maxsize=1)
def _templates() -> Environment:
    # Plain text only: there is nothing to escape.
    return Environment(loader=PackageLoader("worker", "templates"), undefined=StrictUndefined, autoescape=False)  # noqa: S701


def money(amount_minor: int, currency: str, locale: str = "en") -> str:
    """Return an amount of minor units as people write it; a yen has no minor unit, a dinar has a thousand."""
    digits = get_currency_precision(currency.upper())
    return format_currency(Decimal(amount_minor).scaleb(-digits), currency.upper(), locale=locale)
