"""What became of a mail that was handed over? Reports of mail servers and mail services, about one Message-ID.

A mail server writes a message of its own (RFC 3464), a service calls a webhook. Whoever reports, the mail is found by
its Message-ID alone: no report has to hold an address, and none that it holds is kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, message_from_string
from email.message import Message
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from worker.cases import record
from worker.models import UNCERTAIN, cases, outbox, subscriptions
from worker.suppressions import BOUNCED, COMPLAINED, REASONS, Customer, suppress

DELIVERED, DELAYED, REFUSED = "delivered", "delayed", "refused"
EVENTS = {"mail.bounced": BOUNCED, "mail.complained": COMPLAINED, "mail.delivered": DELIVERED}
ARRIVED = ("delivered", "relayed", "expanded")
STATUSES = ("message/delivery-status", "message/global-delivery-status")  # the latter of RFC 6533
# Codes of RFC 3463 that tell nothing of the address: our sender, their system, the protocol, the content, their trust.
NOT_THE_ADDRESS = re.compile(r"5\.(1\.[78]|[3567]\.\d)")
MESSAGE_ID = re.compile(r"<?([^\s<>@]{1,300})@[^\s<>@]{1,300}>?")
ERRORS = {BOUNCED: REASONS[BOUNCED], REFUSED: "the customer's mail server sent it back, not for the address"}


class BadReport(ValueError):
    """What was given is no report about a mail; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one mail: ``bounced``, ``complained``, ``refused``, ``delayed`` or ``delivered``."""

    message_id: str
    outcome: str


def from_mail(raw: bytes) -> Report:
    """Return what a delivery status notification says; raise ``BadReport`` naming what it lacks."""
    mail = message_from_bytes(raw)
    parts = list(mail.walk())
    status = next((part for part in parts if part.get_content_type() in STATUSES), None)
    if mail.get_content_type() != "multipart/report" or status is None:
        msg = "this is no delivery status notification: expected multipart/report with message/delivery-status"
        raise BadReport(msg)
    outcomes = [outcome for outcome in map(_outcome, _blocks(status)) if outcome]
    if not outcomes:
        msg = "the message/delivery-status has no Action with a Status that tells what became of the mail"
        raise BadReport(msg)
    message_id = next((str(each["Message-ID"]) for each in map(_headers, parts[1:]) if each["Message-ID"]), None)
    if message_id is None:
        msg = "the Message-ID of our mail is missing: the report holds no copy of it, nor of its headers"
        raise BadReport(msg)
    # Of several recipients the worst: our mails have one, but an alias may have made more of it.
    return Report(message_id.strip(), min(outcomes, key=(BOUNCED, REFUSED, DELAYED, DELIVERED).index))


def _blocks(status: Message) -> list[Message]:
    """Return the fields about the mail, and those about each recipient."""
    text = status.as_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    return [message_from_string(block) for block in re.split(r"\n(?:[ \t]*\n)+", text)]


def _outcome(fields: Message) -> str | None:
    """Return what became of one recipient's mail; None when the fields do not tell."""
    action, status = (str(fields.get(name, "")).strip().lower() for name in ("Action", "Status"))
    if action in ARRIVED:
        return DELIVERED
    if action == "delayed" or (action == "failed" and status.startswith("4.")):
        return DELAYED
    if action == "failed" and status.startswith("5."):
        return REFUSED if NOT_THE_ADDRESS.match(status) else BOUNCED
    return None


def _headers(part: Message) -> Message:
    """Return the headers of a part, or those that it holds as a text."""
    if part.get_content_type() != "text/rfc822-headers":
        return part
    content = part.get_payload(decode=True)
    return message_from_bytes(content if isinstance(content, bytes) else b"")


def from_webhook(body: bytes) -> Report | None:
    """Return what a mail service says; None when that is of no interest. Raises ``BadReport``."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        msg = "the body is not JSON"
        raise BadReport(msg) from None
    kind, data = (value.get("type"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(kind, str):
        msg = "type: expected a text"
        raise BadReport(msg)
    if kind not in EVENTS:
        return None
    message_id = data.get("message_id") if isinstance(data, dict) else None
    if not isinstance(message_id, str):
        msg = "data.message_id: expected a text"
        raise BadReport(msg)
    return Report(message_id.strip(), EVENTS[kind])


def note(db: Connection, report: Report, now: datetime) -> bool:
    """Write down what became of a mail; a repeated report changes nothing. False: no notice of ours has this id."""
    rows = _of_mail(db, report.message_id)
    if not rows:
        return False
    if report.outcome in ERRORS:
        _settle(db, [row for row in rows if row.delivered_at or row.error == UNCERTAIN], ERRORS[report.outcome], now)
    if report.outcome == DELIVERED:
        _settle(db, [row for row in rows if row.error == UNCERTAIN], None, now)
    if report.outcome in (BOUNCED, COMPLAINED):
        _suppress(db, rows, report.outcome, now)
    return True


def came_back(db: Connection, message_id: int, now: datetime) -> None:
    """Note that the address takes no mail to which a message of the outbox was to go."""
    _suppress(db, _told(db, message_id), BOUNCED, now)


def _suppress(db: Connection, rows: list[Row[Any]], why: str, now: datetime) -> None:
    address = next((row.sent_to for row in rows if row.sent_to), None)
    if address is not None and suppress(db, Customer.of(rows[0]), why, now, address):
        for row in rows:
            _record(db, row, now, why, {"name": row.name})


def _of_mail(db: Connection, message_id: str) -> list[Row[Any]]:
    """Return what a mail told, one row for each case; its own row is locked, as by whoever delivers it."""
    found = MESSAGE_ID.fullmatch(message_id)
    if found is None or not message_id.isprintable():
        return []
    payment_id, _, name = found[1].partition("-")
    message = outbox.c.kind == "notice", outbox.c.channel == "mail", outbox.c.name == name
    about = func.coalesce(cases.c.payment_id, outbox.c.subscription_id) == payment_id
    mine = select(outbox.c.id).outerjoin(cases).where(*message, about)
    own = db.execute(mine.with_for_update(of=outbox)).scalar()
    return [] if own is None else _told(db, own)


def _told(db: Connection, message_id: int) -> list[Row[Any]]:
    """Return a message and what was merged into it, in the order in which everybody locks cases."""
    together = or_(outbox.c.id == message_id, outbox.c.merged_into == message_id)
    account = func.coalesce(cases.c.account, subscriptions.c.account).label("account")
    found = select(outbox, account).outerjoin(cases).outerjoin(subscriptions)
    return list(db.execute(found.where(together).order_by(outbox.c.case_id)))


def _settle(db: Connection, rows: list[Row[Any]], error: str | None, now: datetime) -> None:
    """Correct what was thought of a mail that a worker is done with."""
    for row in (row for row in rows if row.lease_token is None):
        known = {"delivered_at": now if error is None else None, "error": error}
        db.execute(update(outbox).where(outbox.c.id == row.id).values(known))
        told = {"kind": row.kind, "name": row.name, "channel": row.channel, "error": error}
        _record(db, row, now, "delivered" if error is None else "not_delivered", told)


def _record(db: Connection, row: Row[Any], now: datetime, what: str, detail: dict[str, Any]) -> None:
    """Append a line to the history of the case, if the message was about one."""
    if row.case_id is not None:
        record(db, row.case_id, now, what, detail)
