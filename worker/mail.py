"""How does a letter become a message, and how does that leave? By SMTP, or into a folder."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schedules import Policy
from worker.wording import Bill, Letter, Letterhead, compose
from worker.words import NotWritten


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where messages go: an SMTP server, or a folder that keeps each one as an .eml file."""

    sender: str
    folder: Path
    smtp_url: str | None = field(default=None, repr=False)
    letterhead: Letterhead = field(default_factory=Letterhead)

    def send(self, message: EmailMessage, key: str) -> None:
        """Hand one message over; raise ``OSError`` or ``smtplib.SMTPException`` when it was not taken."""
        if self.smtp_url is None:
            self._keep(message, key)
            return
        with _smtp(self.smtp_url) as server:
            server.send_message(message)

    def _keep(self, message: EmailMessage, key: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the one place with addresses of customers
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


def write(mailbox: Mailbox, name: str, bills: Sequence[Bill], policy: Policy, key: str) -> EmailMessage:
    """Return one notice about one or several payments of a customer as a message; raise ``NotWritten`` if it cannot."""
    address = bills[0].reading.email
    if address is None:
        msg = "the customer has no e-mail address"
        raise NotWritten(msg)
    mail = addressed(mailbox, compose(name, bills, policy, mailbox.letterhead), address, key)
    for bill in bills:
        mail["X-Dunning-Payment"] = bill.reading.payment_id
    mail["X-Dunning-Notice"] = name
    return mail


def addressed(mailbox: Mailbox, letter: Letter, address: str, key: str) -> EmailMessage:
    """Return a letter as a message to somebody, in plain text and in HTML."""
    mail, shop = EmailMessage(), mailbox.letterhead
    mail["From"] = Address(shop.name, addr_spec=parseaddr(mailbox.sender)[1]) if shop.name else mailbox.sender
    mail["To"], mail["Subject"], mail["Message-ID"] = address, letter.subject, f"<{key}@dunning>"
    if shop.reply_to:
        mail["Reply-To"] = shop.reply_to
    mail.set_content(letter.text)
    mail.add_alternative(letter.html, subtype="html")
    mail["Content-Language"] = letter.tag  # what was set before belongs to the text alone
    return mail
