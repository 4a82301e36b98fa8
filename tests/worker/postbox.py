"""A real SMTP server (aiosmtpd) that answers as it is told, and what is delivered to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from socket import create_server
from typing import Any
from uuid import UUID

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from sqlalchemy import Engine

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import LOST, START, one, opened, payment
from worker import notices
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.smtp import MailError
from worker.words import NotWritten

logging.getLogger("mail.log").setLevel(logging.ERROR)  # the server's own log holds the addresses that it was given
CUT, SILENCE, TAKEN_AND_CUT = "cut", "silence", "250 taken, but nobody hears of it"


@dataclass
class Postbox:
    """The server's side: the messages that it took, and what it says next to each command, by its name."""

    script: dict[str, list[str]] = field(default_factory=dict)
    password: str | None = None
    taken: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    asked: int = 0
    connections: list[SMTP] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Return the Message-ID of each message that was taken."""
        return [str(message_from_bytes(content)["Message-ID"]) for content in self.taken]

    async def handle_MAIL(self, server: SMTP, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        """Hear who sends."""
        envelope.mail_from = address
        return await self._say("MAIL", server)

    async def handle_RCPT(self, server: SMTP, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        """Hear who is to get it."""
        answer = await self._say("RCPT", server)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Take the content, unless it is said otherwise."""
        self.asked += 1
        if (self.script.get("DATA") or ["250"])[0].startswith("250"):
            self.taken.append(envelope.content)
            self.recipients += envelope.rcpt_tos
        return await self._say("DATA", server)

    async def _say(self, command: str, server: SMTP) -> str:
        waiting = self.script.get(command)
        answer = waiting.pop(0) if waiting else "250 fine"
        if answer == SILENCE:
            await asyncio.Event().wait()
        if answer in {CUT, TAKEN_AND_CUT}:
            abort(server)
        return answer

    def authenticate(self, *given: Any) -> AuthResult:
        """Let in whoever knows the password."""
        return AuthResult(success=given[-1].password.decode() == self.password, handled=False)


def abort(connection: SMTP) -> None:
    """End a connection without a word, if it is there."""
    if isinstance(connection.transport, asyncio.WriteTransport):
        connection.transport.abort()


class Server(Controller):
    """Runs a postbox in a thread."""

    def factory(self) -> SMTP:
        """Return the protocol of one connection; the postbox counts it."""
        found: SMTP = super().factory()  # type: ignore[no-untyped-call]
        self.handler.connections.append(found)
        return found

    def hang_up(self) -> None:
        """End every connection: clients may keep one for their next message, and a closing server waits for them."""
        for each in self.handler.connections:
            self.loop.call_soon_threadsafe(abort, each)


@contextmanager
def smtp(*answers: str, port: int = 0, **more: Any) -> Iterator[tuple[Postbox, str]]:
    """Run an SMTP server that answers messages like this; give its postbox and its address.

    ``MAIL`` and ``RCPT`` are the answers to these commands, ``password`` is what it asks for; other arguments are
    aiosmtpd's.
    """
    script = {"DATA": list(answers)} | {name: list(more.pop(name, ())) for name in ("MAIL", "RCPT")}
    box = Postbox(script, more.pop("password", None))
    if box.password is not None:
        more |= {"authenticator": box.authenticate, "auth_require_tls": False}
    with create_server(("127.0.0.1", port)) as found:  # the controller cannot choose a port by itself
        port = found.getsockname()[1]
    server = Server(box, hostname="127.0.0.1", port=port, **more)
    server.start()
    box.connections.clear()  # the controller's own
    try:
        yield box, f"smtp://127.0.0.1:{port}"
    finally:
        server.hang_up()
        server.stop()


def mailbox(folder: Path, smtp_url: str | None = None, seconds: float = 30) -> Mailbox:
    """Return a mailbox."""
    return Mailbox("billing@shop.example", folder / "notices", smtp_url, seconds=seconds)


def waiting(serve: Serve, **settings: Any) -> Bench:
    """Return a bank with one case that has a first notice to send."""
    street = serve(Scripted([payment(decline=LOST)]), **settings)
    opened(street.engine, payment(decline=LOST))
    street.work(START)
    assert one(street.engine, "SELECT due_at FROM outbox WHERE name = 'first'") == START
    return street


def claimed(engine: Engine, now: Any = START) -> list[tuple[int, str]]:
    """Lease the messages that are due."""
    with engine.begin() as db:
        return claim_due(db, outbox, now, 10, 180)


def deliver(street: Bench, box: Mailbox, now: Any = START) -> list[bool]:
    """Claim the due messages and deliver them; what fails counts as not delivered."""
    done = []
    for number, token in claimed(street.engine, now):
        try:
            done.append(notices.deliver(street.desk(now), box, number, UUID(token)))
        except (MailError, NotWritten):
            done.append(False)
    return done
