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
from decimal import Decimal
from email.message import EmailMessage
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Row, Select, and_, case, func, or_, select, update

from worker.cases import record
from worker.failpoints import failpoint
from worker.models import OPEN_STATES, attempts, cases, outbox
from worker.readings import is_intent
from worker.stripe_gateway import GatewayError, NoAccess, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

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
    smtp_url: str | None = field(default=None, repr=False)

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
        return self.case.state in OPEN_STATES and self.case.ended is None


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    items = _take(desk, message_id, hint)
    if not items:
        return False
    try:
        errors = _carry_out(desk, mailbox, items)
    except Exception as error:
        why = str(error) if isinstance(error, GatewayError) else type(error).__name__
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
    told = ((item, _linked(desk, item.case, reading)) for item, reading in read if reading.ended is None)
    left = {item.row.id: (item.row.name, reading) for item, reading in told}
    if left:
        names, readings = zip(*left.values(), strict=True)
        other_card = any(item.other_card for item in items if item.row.id in left)
        mailbox.send(write(readings, names[0], mailbox.sender, key, other_card=other_card), key)
        failpoint("after_mail")
    return [None if item.row.id in left else OVER for item in items]


def _linked(desk: Desk, case: Row[Any], reading: Reading) -> Reading:
    """Have the notice lead to our own link, where there is one, instead of the provider's page."""
    if desk.links is None:
        return reading
    deadline = case.failed_at + timedelta(days=desk.policy.deadline_days)
    return replace(reading, link=desk.links.to_pay(case.id, deadline))


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


def write(readings: Sequence[Reading], name: str, sender: str, key: str, *, other_card: bool = False) -> EmailMessage:
    """Return one notice about one or several invoices of a customer as a message.

    Its words never say more of the refusal than that the payment failed.
    """
    if readings[0].email is None:
        msg = "the customer has no e-mail address"
        raise LookupError(msg)
    text = _templates().get_template(f"{name}.txt.j2")
    words = {**_words(readings), "other_card": other_card}
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
    """Return what the templates may use: ``amount`` tells all of them in a row, ``payments`` has each with its link.

    ``subscription``: all of them are for one; a payment intent without an invoice is for none.
    """
    amounts = [money(each.amount_minor, each.currency) for each in readings]
    *others, last = amounts
    brands = {each.card.brand for each in readings}
    return {
        "amount": f"{', '.join(others)} and {last}" if others else last,
        "payments": [{"amount": a, "link": each.link} for a, each in zip(amounts, readings, strict=True)],
        "several": bool(others),
        "subscription": not any(is_intent(each.payment_id) for each in readings),
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
