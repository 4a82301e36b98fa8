"""How does a letter become a message, and how does that leave? By SMTP, or into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, default
from email.policy import Policy as MailPolicy
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Self

from schedules import Policy
from worker.clock import machine_now
from worker.smtp import server
from worker.wording import Bill, Letter, Letterhead, compose
from worker.words import NotWritten

if TYPE_CHECKING:
    from worker.settings import Settings


class OneLine(UnstructuredHeader, BaseHeader):
    """A header of one long word, which would be encoded when it is folded, so that programs do not recognise it."""

    def fold(self, *, policy: MailPolicy) -> str:
        """Return the header as it is."""
        return f"{self.name}: {self}{policy.linesep}"


HEADERS = HeaderRegistry()
HEADERS.map_to_type("list-unsubscribe", OneLine)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where messages go: an SMTP server, or a folder that keeps each one as an .eml file.

    ``seconds`` is how long each answer of the server is waited for, and how long it is left alone after a failure.
    """

    sender: str
    folder: Path
    smtp_url: str | None = field(default=None, repr=False)
    letterhead: Letterhead = field(default_factory=Letterhead)
    seconds: float = 30

    @classmethod
    def from_settings(cls, settings: Settings, seconds: float = 30) -> Self:
        """Return the mailbox of an installation."""
        url = settings.smtp_url.get_secret_value() if settings.smtp_url else None
        return cls(settings.mail_from, settings.home / "notices", url, Letterhead.from_settings(settings), seconds)

    def reach(self) -> None:
        """Raise ``NoMailServer`` when nothing can be sent at present; else a connection is ready."""
        if self.smtp_url is not None:
            server(self.smtp_url, self.seconds).reach()

    def send(self, message: EmailMessage, key: str, begin: Callable[[], object] = lambda: None) -> None:
        """Hand one message over; call ``begin`` just before it leaves by SMTP. Raises ``MailError``."""
        if self.smtp_url is None:
            self._keep(message, key)
            return
        message["Date"] = machine_now()
        [sender], [recipient] = message["From"].addresses, message["To"].addresses
        ends = sender.addr_spec, recipient.addr_spec
        content = message.as_bytes(policy=SMTP if "".join(ends).isascii() else SMTPUTF8)
        server(self.smtp_url, self.seconds).send(*ends, content, begin)

    def _keep(self, message: EmailMessage, key: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the one place with addresses of customers
        part = self.folder / f"{key}.part"
        part.write_bytes(message.as_bytes())
        part.replace(self.folder / f"{key}.eml")


def write(mailbox: Mailbox, name: str, bills: Sequence[Bill], policy: Policy, key: str) -> EmailMessage:
    """Return one notice about one or several payments of a customer as a message; raise ``NotWritten`` if it cannot."""
    address = bills[0].reading.email
    if address is None:
        msg = "the customer has no e-mail address"
        raise NotWritten(msg)
    letter = compose(name, bills, policy, mailbox.letterhead)
    mail = addressed(mailbox, letter, address, key)
    if letter.opt_out:
        mail["List-Unsubscribe"], mail["List-Unsubscribe-Post"] = f"<{letter.opt_out}>", "List-Unsubscribe=One-Click"
    for bill in bills:
        mail["X-Dunning-Payment"] = bill.reading.payment_id
    mail["X-Dunning-Notice"] = name
    return mail


def addressed(mailbox: Mailbox, letter: Letter, address: str, key: str) -> EmailMessage:
    """Return a letter as a message to somebody, in plain text and in HTML."""
    mail, shop = EmailMessage(default.clone(header_factory=HEADERS)), mailbox.letterhead
    mail["From"] = Address(shop.name, addr_spec=parseaddr(mailbox.sender)[1]) if shop.name else mailbox.sender
    domain = parseaddr(mailbox.sender)[1].rpartition("@")[2]
    mail["To"], mail["Subject"], mail["Message-ID"] = address, letter.subject, f"<{key}@{domain}>"
    if shop.reply_to:
        mail["Reply-To"] = shop.reply_to
    mail.set_content(letter.text)
    mail.add_alternative(letter.html, subtype="html")
    mail["Content-Language"] = letter.tag  # what was set before belongs to the text alone
    return mail
