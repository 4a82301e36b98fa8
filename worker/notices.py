"""What is said to the customer, and how does it leave? Outbox rows, delivered later and once.

The address is read from the provider at the moment of sending and is never stored or logged. One notice may name
several invoices of a customer; those whose case has ended meanwhile are left out, and without any it is dropped. A
notice that may or may not have been delivered is shown, not repeated.
"""

from __future__ import annotations

import smtplib
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from sqlalchemy import Row, Select, and_, case, func, or_, select, update

from schedules.places import place_of
from worker.cases import record
from worker.failpoints import failpoint
from worker.models import OPEN_STATES, attempts, cases, outbox
from worker.stripe_gateway import GatewayError, NoAccess, Unavailable
from worker.wording import Bill, Letter, Letterhead, compose
from worker.words import NotWritten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from schedules import Policy
    from worker.charging import Desk
    from worker.readings import Reading

MOST_TRIES = 8
UNCERTAIN = "uncertain: handed over once, perhaps delivered"
OVER = "the case has ended"
OBSERVED = "observe mode sends nothing"
# Notices about a case that is over: its state, and what the provider has to show for them to be true.
LAST_WORDS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "ended": ("lost", ("canceled", "lapsed")),
    "paused": ("lost", (None,)),
    "thanks": ("recovered", ("paid",)),
}


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


@dataclass(frozen=True, slots=True)
class Item:
    """One invoice that a message is about: its row of the outbox, and its case as it was when the message was taken.

    ``other_card``: a card was tried that the customer had not chosen for it.
    """

    row: Row[Any]
    case: Row[Any]
    other_card: bool = False

    @property
    def is_open(self) -> bool:
        """Whether there is still something to say, as far as we know."""
        if self.row.name in LAST_WORDS:
            return bool(self.case.state == LAST_WORDS[self.row.name][0])
        return self.case.state in OPEN_STATES and self.case.ended is None

    def is_true(self, reading: Reading) -> bool:
        """Whether the provider shows what the notice says; raise ``NotWritten`` when that is still to come."""
        if self.row.name == "ended" and reading.ended is None:
            msg = "the subscription has not ended yet"
            raise NotWritten(msg)
        shows: tuple[str | None, ...] = LAST_WORDS[self.row.name][1] if self.row.name in LAST_WORDS else (None,)
        return reading.ended in shows


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    items = _take(desk, message_id, hint)
    if not items:
        return False
    try:
        errors = _carry_out(desk, mailbox, items)
    except Exception as error:
        why = str(error) if isinstance(error, GatewayError | NotWritten) else type(error).__name__
        _settle(desk, items, [why] * len(items), _later(desk, items[0].row.tries, error))
        raise
    _settle(desk, items, errors)
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
        others = set(db.execute(_with_another_card(list(found))).scalars())
        failpoint("before_mail_commit")
    cases_of = [(row, found[row.case_id]) for row in rows]
    return [Item(row, case, case.id in others and case.card_entered_at is None) for row, case in cases_of]


def _with_another_card(found: list[int]) -> Select[tuple[int]]:
    """Return the query for the cases of which an attempt named another method than the one charged by itself."""
    tried = select(attempts.c.case_id).join(cases, cases.c.id == attempts.c.case_id)
    other = attempts.c.pay_with.is_not(None), attempts.c.pay_with.is_distinct_from(cases.c.method_id)
    return tried.where(cases.c.id.in_(found), *other)


def _carry_out(desk: Desk, mailbox: Mailbox, items: list[Item]) -> list[str | None]:
    """Do what the message is for; return for each item why it was not to be done, or None."""
    message, case = items[0].row, items[0].case
    if not desk.live:
        return [OBSERVED] * len(items)
    key = f"{case.payment_id}-{message.name}"
    if message.kind == "card":
        desk.gateway.prefer(message.name, case.subscription_id, case.account)
        return [None]
    if message.kind == "ending":
        desk.gateway.end(message.name, case.payment_id, case.subscription_id, f"dunning-end-{key}", case.account)
        return [None]
    if message.error == UNCERTAIN and mailbox.smtp_url is not None and any(item.is_open for item in items):
        return [UNCERTAIN] * len(items)
    return _hand_over(desk, mailbox, items, key)


def _hand_over(desk: Desk, mailbox: Mailbox, items: list[Item], key: str) -> list[str | None]:
    """Send the notice for the items of which the provider says that something is left to say, if there are any."""
    read = ((item, desk.gateway.read(item.case.payment_id, item.case.account)) for item in items if item.is_open)
    left = {item.row.id: (item, reading) for item, reading in read if item.is_true(reading)}
    if left:
        told = [bill_of(desk, item.case, reading, other_card=item.other_card) for item, reading in left.values()]
        name = next(item.row.name for item, _ in left.values())
        mailbox.send(write(mailbox, name, told, desk.policy, key), key)
        failpoint("after_mail")
    return [None if item.row.id in left else OVER for item in items]


def bill_of(desk: Desk, case: Row[Any], reading: Reading, *, other_card: bool = False) -> Bill:
    """Return what a notice tells of a case. It leads to our own link, where there is one, else to the provider's page.

    The last day to pay is the last whole one before the deadline; days are those of the customer's own calendar. Of an
    invoice that is over nothing remains, so the case tells the amount.
    """
    deadline = case.failed_at + timedelta(days=desk.policy.deadline_days)
    [zone, *_] = place_of(case.card.get("country"), case.time_zone or reading.time_zone).zones
    charged = case.due_at if case.step is not None and case.step["step"] == "charge" else None
    link = desk.links.to_pay(case.id, deadline) if desk.links else reading.link
    amount = reading.amount_minor if reading.ended is None else case.amount_minor
    return Bill(
        reading=replace(reading, link=link, amount_minor=amount),
        locale=reading.locale or case.locale,
        next_charge=charged.astimezone(zone).date() if charged else None,
        pay_by=max(deadline - timedelta(days=1), desk.now).astimezone(zone).date(),
        other_card=other_card,
    )


def _later(desk: Desk, tries: int, error: Exception) -> datetime | None:
    """Return when a message is tried again, in the end never; while nothing can be asked it is no fault of its own."""
    if tries >= MOST_TRIES and not isinstance(error, NoAccess | Unavailable):
        return None
    return desk.now + timedelta(minutes=2 ** min(tries, MOST_TRIES))


def _settle(desk: Desk, items: list[Item], errors: list[str | None], later: datetime | None = None) -> None:
    """Write down that the message left, will be tried again, or will not leave; for each item in its own history."""
    message = items[0].row
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
