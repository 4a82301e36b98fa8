"""How does a message reach the mail server, and on which side is it when something breaks?

A connection that has carried a message is kept for the next one. ``DATA`` is done in two moves, because the loss of a
connection means one thing before the content leaves (nobody has it: try again) and another one after (nobody knows).
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from queue import Empty, LifoQueue
from urllib.parse import unquote, urlsplit

IDLE_SECONDS = 60.0  # servers hang up after some minutes, and no one is told
PATIENCE = 4  # an answer to the content takes longest: who gives up early does not know what became of it
STATUS = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}\b")
LOGIN = frozenset({530, 534, 535, 538})
NO_SUCH_ADDRESS = frozenset({550, 551, 553})
OUR_SENDER = ("5.1.7", "5.1.8")
NOT_THE_ADDRESS = ("5.3.", "5.5.", "5.6.", "5.7.")  # their system, the protocol, the content, their trust


class MailError(Exception):
    """A message did not leave, or perhaps. The text may be stored: no address, and no word of the server's."""


class NoMailServer(MailError):
    """Nothing can be sent at present: it is out of reach, or refuses our login or our sender. No message's fault."""


class NotTaken(MailError):
    """This message was not taken. ``for_good``: it never will be; ``bounced``: nobody has this address."""

    def __init__(self, why: str, *, for_good: bool = False, bounced: bool = False) -> None:
        super().__init__(why)
        self.for_good, self.bounced = for_good, bounced


class PerhapsTaken(MailError):
    """The content left and no answer came: the message may have been taken."""


class Server:
    """One mail server as this process sees it: ready connections, and until when it is left alone after a failure."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = urlsplit(url), seconds
        self._ready: LifoQueue[tuple[float, smtplib.SMTP]] = LifoQueue()
        self._away = (0.0, "")

    def reach(self) -> None:
        """Have a connection ready, logged in; raise ``NoMailServer`` where that fails."""
        self._ready.put((time.monotonic(), self._connection()))

    def send(self, sender: str, recipient: str, content: bytes, begin: Callable[[], object]) -> None:
        """Send one message, and call ``begin`` just before it leaves; raise ``MailError``.

        When ``begin`` raises, nothing has left.
        """
        line = self._connection()
        try:
            _announce(line, sender, recipient)
            begin()
            _hand_over(line, content, PATIENCE * self._seconds)
        except BaseException:
            line.close()
            raise
        self._ready.put((time.monotonic(), line))

    def _connection(self) -> smtplib.SMTP:
        """Return a connection that nobody else uses: one that was kept and still answers, else a new one."""
        with suppress(Empty):
            while True:
                since, line = self._ready.get_nowait()
                if time.monotonic() - since < IDLE_SECONDS and _answers(line):
                    return line
                line.close()
        until, why = self._away
        if time.monotonic() < until:  # many messages wait for one server: they need not find out one by one
            raise NoMailServer(why)
        try:
            return self._connect()
        except (OSError, ValueError) as error:  # the latter: a password beyond ASCII
            self._away = time.monotonic() + self._seconds, _why(error)
            raise NoMailServer(_why(error)) from None

    def _connect(self) -> smtplib.SMTP:
        url, secure = self._url, ssl.create_default_context()
        host, port = url.hostname or "localhost", url.port or (465 if url.scheme == "smtps" else 25)
        line = (
            smtplib.SMTP_SSL(host, port, timeout=self._seconds, context=secure)
            if url.scheme == "smtps"
            else smtplib.SMTP(host, port, timeout=self._seconds)
        )
        try:
            line.ehlo_or_helo_if_needed()  # before it the server's offers are unknown
            if url.scheme == "smtp" and line.has_extn("starttls"):
                line.starttls(context=secure)
                line.ehlo()  # what was said before is void
            if url.username:
                line.login(unquote(url.username), unquote(url.password or ""))
        except BaseException:
            line.close()
            raise
        return line


@cache
def server(url: str, seconds: float) -> Server:
    """Return the one of this process."""
    return Server(url, seconds)


os.register_at_fork(after_in_child=server.cache_clear)  # a connection belongs to the process that made it


def _answers(line: smtplib.SMTP) -> bool:
    """Say whether a kept connection is there, and forget what was said on it."""
    try:
        return line.rset()[0] == 250  # noqa: PLR2004 - as RFC 5321 numbers it
    except OSError:
        return False


def _announce(line: smtplib.SMTP, sender: str, recipient: str) -> None:
    """Say from whom to whom, up to the point at which the server waits for the content."""
    utf8 = not (sender + recipient).isascii()
    if utf8 and not line.has_extn("smtputf8"):
        msg = "the mail server takes no address with letters beyond ASCII"
        raise NotTaken(msg, for_good=True)
    try:
        code, text = line.mail(sender, ("SMTPUTF8", "BODY=8BITMIME") if utf8 else ())
        if not _fine(code):
            msg = f"the mail server refused our sender ({_shown(code, text)})"
            raise NoMailServer(msg)
        code, text = line.rcpt(recipient)
        if not _fine(code):
            raise _refused_recipient(code, text)
        code, text = line.docmd("data")
        if code != 354:  # noqa: PLR2004
            raise _refused_content(code, text)
    except OSError as error:
        msg = f"the mail server was lost before it had the message: {type(error).__name__}"
        raise NotTaken(msg) from None


def _hand_over(line: smtplib.SMTP, content: bytes, seconds: float) -> None:
    """Send the content and hear what became of it; an answer that means nothing is none."""
    try:
        _wait(line, seconds)
        line.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        code, text = line.getreply()
        _wait(line, line.timeout)
    except OSError as error:
        msg = f"the mail server was lost after it had the message: {type(error).__name__}"
        raise PerhapsTaken(msg) from None
    if not (_fine(code) or 400 <= code < 600):  # noqa: PLR2004
        msg = f"the mail server gave no sensible answer ({code})"
        raise PerhapsTaken(msg)
    if not _fine(code):
        raise _refused_content(code, text)


def _wait(line: smtplib.SMTP, seconds: float) -> None:
    """Give each answer of the server that much time."""
    if line.sock is not None:
        line.sock.settimeout(seconds)


def _fine(code: int) -> bool:
    return 200 <= code < 300  # noqa: PLR2004


def _refused_recipient(code: int, text: bytes) -> MailError:
    """Return what a refusal at RCPT means: many servers tell there what they have against the sender."""
    status = _status(text)
    if code in LOGIN or status.startswith("5.7.") or status in OUR_SENDER:
        return NoMailServer(f"the mail server refused our login or sender ({_shown(code, text)})")
    dead = status.startswith("5.1.") or (code in NO_SUCH_ADDRESS and not status.startswith(NOT_THE_ADDRESS))
    return NotTaken(f"the recipient was refused ({_shown(code, text)})", for_good=_for_good(code), bounced=dead)


def _refused_content(code: int, text: bytes) -> NotTaken:
    dead = _status(text).startswith("5.1.") and _status(text) not in OUR_SENDER
    return NotTaken(f"the message was refused ({_shown(code, text)})", for_good=_for_good(code), bounced=dead)


def _for_good(code: int) -> bool:
    return code >= 500  # noqa: PLR2004


def _shown(code: int, text: bytes) -> str:
    """Return the numbers of an answer, without its words: these may quote the address."""
    return f"{code} {_status(text)}".strip()


def _status(text: bytes) -> str:
    """Return the code of RFC 3463 with which an answer begins, or nothing."""
    found = STATUS.match(text)
    return found[0].decode("ascii") if found else ""


def _why(error: Exception) -> str:
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"the mail server refused user or password of DUNNING_SMTP_URL ({error.smtp_code})"
        case smtplib.SMTPResponseException():
            return f"the mail server of DUNNING_SMTP_URL sent us away ({error.smtp_code})"
        case _:
            return f"the mail server of DUNNING_SMTP_URL cannot be reached or offers no login: {type(error).__name__}"
