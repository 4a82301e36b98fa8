"""What becomes of a notice when the mail server refuses, hangs, hangs up or is away? It arrives once, or is told of."""

from __future__ import annotations

import os
import ssl
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import DAY, HOUR, LOST, START, one, opened, payment, sql, told
from tests.worker.postbox import CUT, SILENCE, TAKEN_AND_CUT, claimed, deliver, mailbox, smtp, waiting
from worker import notices
from worker.mail import Mailbox, addressed
from worker.models import UNCERTAIN
from worker.notices import MOST_TRIES
from worker.smtp import NoMailServer, NotTaken, PerhapsTaken, server
from worker.wording import Letter

ERROR = "SELECT error FROM outbox"
SOON = timedelta(minutes=15)


def many(serve: Serve, number: int) -> Bench:
    """Return a bank with so many customers, each of whom has a first notice to get."""
    failed = [payment(n, decline=LOST) for n in range(1, number + 1)]
    street = serve(Scripted(failed))
    for each in failed:
        opened(street.engine, each)
    street.work(START)
    return street


def row(engine: Engine) -> Any:
    """Return the only message of the outbox."""
    [found] = sql(engine, "SELECT due_at, delivered_at, error, tries, lease_token FROM outbox")
    return found


def send(box: Mailbox, key: str = "k", **changes: Any) -> None:
    """Send one message by a mailbox, past every table."""
    letter = Letter(subject="s", text=changes.pop("text", "t\n"), html="<p>t</p>", tag="en")
    box.send(addressed(box, letter, changes.pop("address", "ada@customer.example"), key), key, **changes)


# Refusals


@pytest.mark.parametrize("at", ["RCPT", "DATA"])
def test_a_notice_that_is_greylisted_is_taken_later(serve: Serve, tmp_path: Path, at: str) -> None:
    """451 first: nothing was delivered. Minutes later it is offered again, once, under the same Message-ID."""
    street = waiting(serve)
    with smtp(*["451 4.7.1 greylisted"] * (at == "DATA"), RCPT=["451 4.7.1 greylisted"] * (at == "RCPT")) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        left = row(street.engine)
        assert START < left.due_at < START + HOUR
        assert (left.delivered_at, left.lease_token, "451 4.7.1" in left.error) == (None, None, True)
        assert deliver(street, mailbox(tmp_path, url)) == []
        assert deliver(street, mailbox(tmp_path, url), left.due_at) == [True]
    assert box.ids == ["<in_1-first@shop.example>"]
    assert row(street.engine).error is None


@pytest.mark.parametrize(
    ("stages", "error"),
    [
        ({"RCPT": ["550 5.1.1 ada@customer.example is unknown"]}, "the recipient was refused (550 5.1.1)"),
        ({"DATA": ["554 looks like spam to ada@customer.example"]}, "the message was refused (554)"),
    ],
)
def test_a_notice_that_is_refused_for_good_is_not_repeated(
    serve: Serve, tmp_path: Path, stages: dict[str, list[str]], error: str
) -> None:
    """The history tells the code, and neither the address nor the words of the server."""
    street = waiting(serve)
    with smtp(*stages.get("DATA", ()), RCPT=stages.get("RCPT", ())) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        assert deliver(street, mailbox(tmp_path, url), START + 9 * DAY) == []
    left = row(street.engine)
    assert (box.taken, left.due_at, left.delivered_at) == ([], None, None)
    detail = one(street.engine, "SELECT detail FROM history WHERE what = 'not_delivered'")
    assert left.error == detail["error"]
    assert left.error.endswith(error)
    assert "customer.example" not in str(detail)


@pytest.mark.parametrize(
    ("at", "answer", "for_good", "bounced"),
    [
        ("RCPT", "550 no such user", True, True),
        ("RCPT", "550 5.1.1 no such user", True, True),
        ("RCPT", "553 5.1.3 bad address", True, True),
        ("RCPT", "550 5.4.1 no such recipient", True, True),
        ("RCPT", "552 5.2.2 mailbox full", True, False),
        ("RCPT", "550 5.3.2 not accepting mail", True, False),
        ("RCPT", "450 4.1.1 perhaps unknown", False, False),
        ("RCPT", "421 shutting down", False, False),
        ("DATA", "550 5.1.1 no such user", True, True),
        ("DATA", "550 5.7.1 spam", True, False),
        ("DATA", "550 5.1.8 your domain", True, False),
        ("DATA", "452 4.3.1 disk full", False, False),
    ],
)
def test_each_refusal_is_told_apart(tmp_path: Path, at: str, answer: str, *, for_good: bool, bounced: bool) -> None:
    """For good or for now; and whether it is the address that is dead, or something else."""
    box = smtp(*[answer] * (at == "DATA"), RCPT=[answer] * (at == "RCPT"))
    with box as (_, url), pytest.raises(NotTaken) as refused:
        send(mailbox(tmp_path, url))
    assert (refused.value.for_good, refused.value.bounced) == (for_good, bounced)


@pytest.mark.parametrize(
    ("at", "answer"),
    [
        ("MAIL", "451 4.3.0 queue full"),
        ("MAIL", "550 5.1.8 unknown sender"),
        ("RCPT", "553 5.7.1 not your sender address"),
        ("RCPT", "554 5.7.1 relay access denied"),
        ("RCPT", "530 5.7.0 log in first"),
        ("RCPT", "550 5.1.8 sender domain unknown"),
    ],
)
def test_a_refusal_of_ourselves_is_no_fault_of_the_message(serve: Serve, tmp_path: Path, at: str, answer: str) -> None:
    """However often it happens, no try is used up, and the history tells it once; then the notice leaves."""
    street, times = waiting(serve), MOST_TRIES + 2
    now = START
    with smtp(MAIL=[answer] * times * (at == "MAIL"), RCPT=[answer] * times * (at == "RCPT")) as (box, url):
        for _ in range(times):
            assert deliver(street, mailbox(tmp_path, url), now) == [False]
            now = START + HOUR  # at night it would only wait
            sql(street.engine, "UPDATE outbox SET due_at = :now", now=now)
        assert row(street.engine).tries == 0
        assert told(street.engine).count("not_delivered") == 1
        assert deliver(street, mailbox(tmp_path, url), now) == [True]
    assert len(box.taken) == 1


def by_day(serve: Serve, box: Mailbox) -> tuple[Bench, list[datetime]]:
    """Return a bank, and every instant at which its one notice was tried until it was given up."""
    street, instants = waiting(serve), list[datetime]()
    while (due := one(street.engine, "SELECT due_at FROM outbox")) is not None:
        before = one(street.engine, "SELECT tries FROM outbox")
        deliver(street, box, due)
        instants += [due] * (one(street.engine, "SELECT tries FROM outbox") > before)
    return street, instants


def test_a_notice_is_tried_for_more_than_a_day_and_a_half(serve: Serve, tmp_path: Path) -> None:
    """After twelve refusals with growing waits it stays for a person, with its error, and the case goes on."""
    with smtp(*["451 later"] * 99) as (box, url):
        street, instants = by_day(serve, mailbox(tmp_path, url))
    assert (box.asked, len(instants)) == (MOST_TRIES, MOST_TRIES)
    assert instants[-1] - instants[0] > 1.5 * DAY
    assert instants[1] - instants[0] < SOON
    assert row(street.engine).error == "the message was refused (451)"
    assert one(street.engine, "SELECT closed_at FROM cases") is None


# The mail server is away


def test_a_mail_server_that_is_away_for_days_loses_no_notice(serve: Serve, tmp_path: Path) -> None:
    """No connection at all: for three days it is asked again, and then the notice leaves."""
    street = waiting(serve)
    with smtp() as (_, url):
        pass
    now = START
    while now < START + 3 * DAY:
        deliver(street, mailbox(tmp_path, url), now)
        now = row(street.engine).due_at
    assert "cannot be reached" in one(street.engine, ERROR)
    assert told(street.engine).count("not_delivered") == 1
    with smtp() as (box, url):
        while not deliver(street, mailbox(tmp_path, url), now)[0]:
            now = row(street.engine).due_at
    assert len(box.taken) == 1


def test_nothing_is_asked_of_the_provider_while_nothing_can_be_sent(serve: Serve, tmp_path: Path) -> None:
    """Many notices wait: they cost the provider no request each time."""
    street = waiting(serve)
    street.control("access", {"revoked": True})
    assert deliver(street, mailbox(tmp_path, "smtp://127.0.0.1:9")) == [False]
    assert "mail server" in one(street.engine, ERROR)


def test_a_wrong_password_is_told_and_waited_for(serve: Serve, tmp_path: Path) -> None:
    """The history names the setting and not its content; once the password is mended the notice leaves."""
    street = waiting(serve)
    with smtp(password="right") as (box, url):
        canary = url.replace("//", "//user:canary@")
        assert deliver(street, mailbox(tmp_path, canary)) == [False]
        assert one(street.engine, ERROR) == "the mail server refused user or password of DUNNING_SMTP_URL (535)"
        assert row(street.engine).tries == 0
        assert deliver(street, mailbox(tmp_path, url.replace("//", "//user:right@")), START + SOON) == [True]
    assert len(box.taken) == 1


def test_a_server_that_refuses_the_login_is_not_asked_for_each_notice(serve: Serve, tmp_path: Path) -> None:
    """Three notices, one login: a server locks accounts that guess."""
    street = many(serve, 3)
    with smtp(password="right") as (box, url):
        assert deliver(street, mailbox(tmp_path, url.replace("//", "//user:wrong@"))) == [False] * 3
    assert len(box.connections) == 1


def test_a_password_for_a_server_that_asks_for_none_is_told(tmp_path: Path) -> None:
    """It is the setting that is wrong."""
    with smtp() as (_, url), pytest.raises(NoMailServer, match="DUNNING_SMTP_URL cannot be reached or offers no login"):
        mailbox(tmp_path, url.replace("//", "//user:canary@")).reach()


# Connections that break


@pytest.mark.parametrize("at", ["MAIL", "RCPT"])
@pytest.mark.parametrize("how", [CUT, SILENCE])
def test_a_connection_lost_before_the_content_is_no_delivery(serve: Serve, tmp_path: Path, at: str, how: str) -> None:
    """The server hangs up, or says nothing: nobody has the message, so it is offered again."""
    street = waiting(serve)
    with smtp(MAIL=[how] * (at == "MAIL"), RCPT=[how] * (at == "RCPT")) as (box, url):
        patient = mailbox(tmp_path, url, seconds=0.5)
        assert deliver(street, patient) == [False]
        left = row(street.engine)
        assert left.error == "the mail server was lost before it had the message: SMTPServerDisconnected"
        assert deliver(street, patient, left.due_at) == [True]
    assert box.ids == ["<in_1-first@shop.example>"]


@pytest.mark.parametrize("how", [CUT, TAKEN_AND_CUT, SILENCE])
def test_a_connection_lost_after_the_content_is_uncertain(serve: Serve, tmp_path: Path, how: str) -> None:
    """Whether the server took it or not, nobody says: it is shown, and never repeated by itself."""
    street = waiting(serve)
    with smtp(how) as (box, url):
        patient = mailbox(tmp_path, url, seconds=0.2)
        assert deliver(street, patient) == [False]
        assert deliver(street, patient, START + 9 * DAY) == []
    left = row(street.engine)
    assert (box.asked, len(box.taken)) == (1, how == TAKEN_AND_CUT)
    assert (left.due_at, left.delivered_at, left.error) == (None, None, UNCERTAIN)
    assert told(street.engine)[-1] == "not_delivered"


def test_a_slow_server_is_waited_for_longest_after_the_content(tmp_path: Path) -> None:
    """It says what it is: an answer that nobody waited for."""
    with smtp(SILENCE) as (_, url), pytest.raises(PerhapsTaken, match="lost after it had the message"):
        send(mailbox(tmp_path, url, seconds=0.1))


def test_whoever_has_lost_the_message_does_not_send_it(serve: Serve, tmp_path: Path) -> None:
    """A worker that slept through its lease finds out just before the content leaves: nothing has left."""
    street = waiting(serve)
    [(number, token)] = claimed(street.engine)

    class Sleepy(Mailbox):
        """Is overtaken while it connects."""

        def reach(self) -> None:
            """Let somebody else take the message."""
            sql(street.engine, "UPDATE outbox SET lease_token = gen_random_uuid()")
            super().reach()

    with smtp() as (box, url):
        sleepy = Sleepy("billing@shop.example", tmp_path, url)
        assert not notices.deliver(street.desk(START), sleepy, number, UUID(token))
        assert box.asked == 0
        sql(street.engine, "UPDATE outbox SET lease_until = now() - interval '1 s'")
        assert deliver(street, mailbox(tmp_path, url)) == [True]
    assert len(box.taken) == 1


def test_a_message_that_ends_its_workers_is_given_up(serve: Serve, tmp_path: Path) -> None:
    """Again and again it was taken, and nobody was heard of it, before a word of it had left."""
    street = waiting(serve)
    sql(street.engine, "UPDATE outbox SET tries = 99")
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
    assert (box.asked, one(street.engine, ERROR)) == (0, notices.GIVEN_UP)


# One connection for many messages


def test_several_messages_take_one_connection(serve: Serve, tmp_path: Path) -> None:
    """It is kept and used again."""
    street = many(serve, 4)
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [True] * 4
    assert (len(box.connections), sorted(box.ids)) == (1, [f"<in_{n}-first@shop.example>" for n in range(1, 5)])


def test_a_kept_connection_that_is_gone_costs_nothing(serve: Serve, tmp_path: Path) -> None:
    """The mail server was restarted between two messages: both leave at the first try."""
    street = many(serve, 2)
    [(first, token), (second, other)] = claimed(street.engine)
    with smtp() as (_, url):
        box = mailbox(tmp_path, url)
        assert notices.deliver(street.desk(START), box, first, UUID(token))
    with smtp(port=int(url.rpartition(":")[2])) as (postbox, _):
        assert notices.deliver(street.desk(START), box, second, UUID(other))
    assert postbox.ids == ["<in_2-first@shop.example>"]


def test_a_connection_is_dropped_after_an_error(serve: Serve, tmp_path: Path) -> None:
    """What one notice met on it is no trouble of the next: that one leaves, by another connection."""
    street = many(serve, 3)
    with smtp("451 later", RCPT=["250 fine", "550 5.1.1 unknown"]) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False, False, True]
    assert (len(box.connections), box.ids) == (3, ["<in_3-first@shop.example>"])


def test_an_idle_connection_is_not_relied_upon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers hang up on whoever says nothing for minutes."""
    with smtp() as (box, url):
        send(mailbox(tmp_path, url))
        monkeypatch.setattr("worker.smtp.IDLE_SECONDS", 0)
        send(mailbox(tmp_path, url))
    assert (len(box.connections), len(box.taken)) == (2, 2)


def test_a_connection_is_not_shared_over_a_fork(tmp_path: Path) -> None:
    """The child has none, and the parent's still works."""
    with smtp() as (box, url):
        here = mailbox(tmp_path, url)
        send(here)
        child = os.fork()
        if child == 0:
            os._exit(server.cache_info().currsize)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        send(here)
    assert (len(box.connections), len(box.taken)) == (1, 2)


# The message


def test_a_message_arrives_as_it_was_written(tmp_path: Path) -> None:
    """Lines that begin with a dot, letters beyond ASCII, a date, and an id of the sender's own domain."""
    with smtp() as (box, url):
        send(mailbox(tmp_path, url), text=".\n..\nÜmit\n")
    [content] = box.taken
    head, _, _ = content.partition(b"\r\n\r\n")
    assert b"Message-ID: <k@shop.example>" in head
    assert b"\r\nDate: " in head
    assert b"\r\n.\r\n..\r\n\xc3\x9cmit\r\n" in content


def test_an_address_beyond_ascii_needs_a_server_that_takes_it(tmp_path: Path) -> None:
    """With such a server it is sent; without one it is refused for good, and the address is not dead."""
    with smtp(enable_SMTPUTF8=True) as (box, url):
        send(mailbox(tmp_path, url), address="дана@customer.example")
    assert box.recipients == ["дана@customer.example"]
    with smtp(enable_SMTPUTF8=False) as (_, url), pytest.raises(NotTaken, match="beyond ASCII") as refused:
        send(mailbox(tmp_path, url), address="дана@customer.example")
    assert (refused.value.for_good, refused.value.bounced) == (True, False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Give a key and a certificate for this machine in one file."""
    file = tmp_path / "server.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", *kind, *name, "-keyout", str(tmp_path / "key.pem"), "-out", str(file)]
    subprocess.run(made, check=True, capture_output=True)
    return file


def test_what_is_sent_is_encrypted_where_the_server_offers_it(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STARTTLS, with a certificate that was verified; a server whose certificate nobody vouches for gets nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    with smtp(tls_context=context, require_starttls=True) as (box, url):
        with pytest.raises(NoMailServer, match="SSLCertVerificationError"):
            send(mailbox(tmp_path, url))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(mailbox(tmp_path, url, seconds=29))
    assert len(box.taken) == 1
