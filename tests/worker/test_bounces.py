"""Is a mail that came back heard of, whoever reports it and however, and nothing else believed?"""

from __future__ import annotations

import hmac
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import Engine
from standardwebhooks import Webhook

from tests.gateway.wire import served
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    LOST,
    START,
    add_case,
    add_notice,
    everything,
    one,
    opened,
    payment,
    sql,
    told,
)
from tests.worker.postbox import deliver, mailbox, waiting
from worker import standard_webhooks
from worker.app import make_engine
from worker.bounces import ERRORS, REFUSED, BadReport, Report, from_mail, note
from worker.clock import machine_now, set_clock
from worker.models import UNCERTAIN
from worker.settings import Settings, load_settings
from worker.suppressions import BOUNCED, COMPLAINED, REASONS
from worker.web.bodies import LARGEST_BODY
from worker.web.webhooks import make_web

Run = Callable[..., CompletedProcess[str]]
OURS = "<in_1-first@shop.example>"
ADDRESS = "canary@customer.example"

# As Postfix writes it, shortened.
NOTIFICATION = """\
Return-Path: <>
From: MAILER-DAEMON@mx.example (Mail Delivery System)
To: billing@shop.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="3F2C6A.1768230000/mx.example"
Message-Id: <20260112150000.3F2C6A@mx.example>

This is a MIME-encapsulated message.

--3F2C6A.1768230000/mx.example
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--3F2C6A.1768230000/mx.example
Content-Description: Delivery report
Content-Type: {report}

Reporting-MTA: dns; mx.example
X-Postfix-Queue-ID: 3F2C6A
Arrival-Date: Mon, 12 Jan 2026 15:00:00 +0000 (UTC)

Final-Recipient: rfc822; canary@customer.example
Original-Recipient: rfc822;canary@customer.example
Action: {action}
Status: {status}
Remote-MTA: dns; mx.customer.example
Diagnostic-Code: smtp; 550 5.1.1 <canary@customer.example>: Recipient address
    rejected: User unknown

--3F2C6A.1768230000/mx.example
Content-Description: Undelivered Message
Content-Type: {copy}

Return-Path: <billing@shop.example>
From: Shop <billing@shop.example>
To: canary@customer.example
Subject: Your payment of $19.99 did not go through
Message-ID: {message_id}

--3F2C6A.1768230000/mx.example--
"""


def notification(
    action: str = "failed",
    status: str = "5.1.1",
    report: str = "message/delivery-status",
    copy: str = "message/rfc822",
    message_id: str = OURS,
) -> bytes:
    """Return a notification as a mail server sends it."""
    return NOTIFICATION.format(action=action, status=status, report=report, copy=copy, message_id=message_id).encode()


def heard(engine: Engine, outcome: str, message_id: str = OURS) -> bool:
    """Report what became of a mail, two days after it left."""
    with engine.begin() as db:
        return note(db, Report(message_id, outcome), START + 2 * DAY)


def delivered(serve: Serve, folder: Path) -> Bench:
    """Return a bank whose customer got the first notice."""
    street = waiting(serve)
    street.shown["customer"] = {"email": ADDRESS}
    assert deliver(street, mailbox(folder)) == [True]
    return street


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    """Return what became of each message, as far as we know."""
    return [tuple(row) for row in sql(engine, "SELECT name, delivered_at, error FROM outbox ORDER BY id")]


def suppressed(engine: Engine) -> list[str]:
    """Return why somebody is not written to."""
    return [row.why for row in sql(engine, "SELECT why FROM suppressions ORDER BY id")]


# Notifications of mail servers


@pytest.mark.parametrize("copy", ["message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"])
@pytest.mark.parametrize("report", ["message/delivery-status", "message/global-delivery-status"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_notification_names_our_mail_however_it_is_written(report: str, copy: str, end: bytes) -> None:
    """With the whole message or its headers, in ASCII or beyond it, with either end of line; never its own id."""
    raw = notification(report=report, copy=copy).replace(b"\n", end)
    assert from_mail(raw) == Report(OURS, BOUNCED)


@pytest.mark.parametrize(
    ("action", "status", "outcome"),
    [
        ("failed", "5.1.1", "bounced"),
        ("Failed", "5.0.0", "bounced"),
        ("failed", "5.2.1 (disabled)", "bounced"),
        ("failed", "5.4.4", "bounced"),
        ("failed", "5.1.8", "refused"),
        ("failed", "5.7.1", "refused"),
        ("failed", "5.3.4", "refused"),
        ("failed", "4.4.1", "delayed"),
        ("delayed", "4.4.1", "delayed"),
        ("delivered", "2.0.0", "delivered"),
        ("relayed", "2.0.0", "delivered"),
    ],
)
def test_only_a_permanent_failure_of_the_address_is_a_bounce(action: str, status: str, outcome: str) -> None:
    """A full queue passes; a refusal of our sender or of our words says nothing of the customer's address."""
    assert from_mail(notification(action, status)).outcome == outcome


def test_of_several_recipients_the_worst_counts() -> None:
    """An alias that leads to two mailboxes, one of them dead."""
    second = b"\nFinal-Recipient: rfc822; b@customer.example\nAction: failed\nStatus: 5.1.1\n\n--3F2C6A.1768230000"
    raw = notification("delivered", "2.0.0").replace(b"User unknown\n\n--3F2C6A.1768230000", b"User unknown\n" + second)
    assert from_mail(raw).outcome == "bounced"


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (b"", "delivery status notification"),
        (b"From: ada@customer.example\nSubject: Re: Your payment\n\nI have paid!\n", "delivery status notification"),
        (b"\xff\x00" * 500, "delivery status notification"),
        (notification(report="text/plain"), "delivery status notification"),
        (notification().replace(b"multipart/report", b"multipart/mixed"), "delivery status notification"),
        (notification(action="exploded"), "Action"),
        (notification(status="unknown"), "Status"),
        (notification().replace(b"Action: failed\n", b""), "Action"),
        (notification().replace(b"Message-ID: ", b"X-Id: "), "Message-ID"),
        (notification(copy="text/plain"), "Message-ID"),
        (notification().partition(b"Message-ID: ")[0], "Message-ID"),
    ],
)
def test_what_is_no_notification_is_told_with_what_it_lacks(raw: bytes, missing: str) -> None:
    """An answer of a customer, a cut message, noise: none of them suppresses anybody."""
    with pytest.raises(BadReport, match=missing):
        from_mail(raw)


# What becomes of the notice


def test_a_bounce_is_noted_once_and_the_notice_is_not_delivered_any_more(serve: Serve, tmp_path: Path) -> None:
    """The customer has not read it, so no payment is credited to it; a repeated report changes nothing."""
    street = delivered(serve, tmp_path)
    assert heard(street.engine, BOUNCED)
    assert rows(street.engine) == [("first", None, REASONS[BOUNCED])]
    assert suppressed(street.engine) == [BOUNCED]
    assert told(street.engine)[-2:] == ["not_delivered", "bounced"]
    before = everything(street.engine)
    assert heard(street.engine, BOUNCED)
    assert everything(street.engine) == before
    add_notice(street.engine, 1, name="last_chance")
    assert deliver(street, mailbox(tmp_path)) == [False]


def test_a_complaint_keeps_the_notice_delivered(serve: Serve, tmp_path: Path) -> None:
    """It was read, if not with joy; no more mail goes to that address."""
    street = delivered(serve, tmp_path)
    assert heard(street.engine, COMPLAINED)
    assert (rows(street.engine), suppressed(street.engine)) == ([("first", START, None)], [COMPLAINED])
    assert told(street.engine)[-1] == "complained"


def test_a_refusal_of_our_message_suppresses_nobody(serve: Serve, tmp_path: Path) -> None:
    """It was not delivered, and a person sees why."""
    street = delivered(serve, tmp_path)
    assert heard(street.engine, REFUSED)
    assert (rows(street.engine), suppressed(street.engine)) == ([("first", None, ERRORS[REFUSED])], [])


def test_a_delay_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    """The mail server goes on trying."""
    street = delivered(serve, tmp_path)
    before = everything(street.engine)
    assert heard(street.engine, "delayed")
    assert everything(street.engine) == before


@pytest.mark.parametrize(
    ("outcome", "became"),
    [("delivered", (START + 2 * DAY, None)), (BOUNCED, (None, REASONS[BOUNCED])), (COMPLAINED, (None, UNCERTAIN))],
)
def test_a_report_settles_what_was_uncertain(
    serve: Serve, tmp_path: Path, outcome: str, became: tuple[Any, ...]
) -> None:
    """A mail of which a mail server tells has left; a report of delivery changes nothing about any other."""
    street = delivered(serve, tmp_path)
    sql(street.engine, "UPDATE outbox SET delivered_at = NULL, error = :error", error=UNCERTAIN)
    assert heard(street.engine, outcome)
    assert rows(street.engine) == [("first", *became)]
    settled = everything(street.engine)
    assert heard(street.engine, "delivered") is True
    assert (everything(street.engine) == settled) == (outcome != COMPLAINED)


def test_a_mail_that_is_being_delivered_at_this_moment_is_its_workers_to_settle(serve: Serve, tmp_path: Path) -> None:
    """The address is noted at once."""
    street = delivered(serve, tmp_path)
    lease = "lease_token = gen_random_uuid(), lease_until = now()"
    sql(street.engine, f"UPDATE outbox SET delivered_at = NULL, error = :error, {lease}", error=UNCERTAIN)  # noqa: S608
    assert heard(street.engine, BOUNCED)
    assert (rows(street.engine), suppressed(street.engine)) == ([("first", None, UNCERTAIN)], [BOUNCED])


def test_a_bounce_of_a_message_about_several_invoices_is_told_in_each_history(serve: Serve, tmp_path: Path) -> None:
    """What was left out of it is as it was."""
    failed = [payment(number, customer_id="cus_1", decline=LOST) for number in (1, 2, 3)]
    street = serve(Scripted(failed))
    numbers = [opened(street.engine, each) for each in failed]
    first = add_notice(street.engine, numbers[0])
    for number in numbers[1:]:
        add_notice(street.engine, number, merged_into=first, due_at=None)
    sql(street.engine, "UPDATE cases SET ended = 'paid' WHERE id = :id", id=numbers[2])
    assert deliver(street, mailbox(tmp_path)) == [True]
    assert heard(street.engine, BOUNCED)
    assert [row[2] for row in rows(street.engine)] == [REASONS[BOUNCED]] * 2 + ["the case has ended"]
    assert [told(street.engine, number)[-1] for number in numbers] == ["bounced"] * 3
    assert suppressed(street.engine) == [BOUNCED]


@pytest.mark.parametrize(
    "message_id",
    [
        "<in_2-first@shop.example>",
        "<in_1-reminder@shop.example>",
        "<in_1@shop.example>",
        "<test-first-20260112T150000@shop.example>",
        "<20260112150000.3F2C6A@mx.example>",
        "<in_1-first>",
        "in_1-first",
        "",
        "<in_1-first\0@shop.example>",
        "<in_1-first\ud800@shop.example>",
        f"<{'x' * 5000}@shop.example>",
    ],
)
def test_a_mail_that_is_not_ours_is_nobodys(serve: Serve, tmp_path: Path, message_id: str) -> None:
    """Mail services report on everything that they send."""
    street = delivered(serve, tmp_path)
    before = everything(street.engine)
    assert heard(street.engine, BOUNCED, message_id) is False
    assert everything(street.engine) == before


def test_a_notice_that_left_before_addresses_were_noted_is_marked_only(engine: Engine) -> None:
    """Nobody knows to which address it went."""
    add_notice(engine, add_case(engine), due_at=None, delivered_at=START)
    assert heard(engine, BOUNCED)
    assert (rows(engine), suppressed(engine)) == ([("first", None, REASONS[BOUNCED])], [])


# The command


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (notification(), "bounced\n"),
        (notification("delayed", "4.4.1"), "delayed\n"),
        (notification(message_id="<x@y.example>"), "bounced, ignored: no notice of ours has this Message-ID\n"),
    ],
)
def test_a_notification_is_taken_from_a_pipe(run: Run, engine: Engine, raw: bytes, said: str) -> None:
    """As a mail server feeds it; what is late or not ours is said, and no error."""
    add_notice(engine, add_case(engine), due_at=None, delivered_at=START)
    done = run("notice", "bounced", "-", given=raw)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert (rows(engine)[0][1] is None) == (said == "bounced\n")
    assert "canary" not in everything(engine)


def test_what_is_no_notification_is_one_line_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    """Also from a file; nothing of it is shown."""
    file = tmp_path / "answer.eml"
    file.write_bytes(b"From: canary@customer.example\n\nI have paid!\n")
    done = run("notice", "bounced", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: this is no delivery status notification")
    assert "canary" not in done.stderr


def test_a_machine_is_told_what_became_of_a_notification(run: Run) -> None:
    """As JSON."""
    done = run("notice", "bounced", "-", "--json", given=notification())
    assert json.loads(done.stdout) == {"outcome": "bounced", "ours": False}


# The webhook

SECRET, NEXT = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"c", b"n"))


def made(engine: Engine, *secrets: str) -> Any:
    """Return the web application of an installation with these secrets."""
    chosen: dict[str, Any] = {"mail_webhook_secret": tuple(SecretStr(each) for each in secrets)}
    return make_web(Settings(**chosen), engine)


@pytest.fixture
def service(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Return a function that reports as a mail service does, two days after the notice left; it gives the status."""
    set_clock(tmp_path / "clock", START + 2 * DAY)
    monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
    load_settings.cache_clear()
    with served(made(engine, SECRET, NEXT)) as url:

        def send(body: bytes, secret: str = SECRET, ahead: int = 0, **headers: str) -> int:
            at = machine_now() + ahead * (DAY / 86400)
            signed = standard_webhooks.sign([secret], "msg_1", at, body)
            return requests.post(f"{url}/webhooks/mail", body, headers={**signed, **headers}, timeout=20).status_code

        yield send


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that gives what was logged, in whichever form this process logs."""
    return lambda: caplog.text + "".join(capfd.readouterr())


def event(kind: str = "mail.bounced", message_id: Any = OURS) -> bytes:
    """Return a report as a mail service sends it."""
    return json.dumps({"type": kind, "data": {"message_id": message_id, "to": ADDRESS}}).encode()


@pytest.mark.parametrize("secret", [SECRET, NEXT])
@pytest.mark.parametrize("message_id", [OURS, OURS.strip("<>")])
def test_a_mail_service_tells_of_a_bounce(
    service: Callable[..., int], serve: Serve, tmp_path: Path, secret: str, message_id: str
) -> None:
    """Signed with either secret during a roll; with the brackets of the header or without."""
    engine = delivered(serve, tmp_path).engine
    assert [service(event(message_id=message_id), secret) for _ in range(2)] == [200, 200]
    assert (rows(engine), suppressed(engine)) == ([("first", None, REASONS[BOUNCED])], [BOUNCED])
    assert one(engine, "SELECT at FROM suppressions") == START + 2 * DAY


@pytest.mark.parametrize("kind", ["mail.complained", "mail.delivered", "mail.opened"])
def test_a_mail_service_tells_of_all_else(
    service: Callable[..., int], engine: Engine, serve: Serve, tmp_path: Path, kind: str
) -> None:
    """Complaints count, other news does not; nothing is an error."""
    delivered(serve, tmp_path)
    assert service(event(kind)) == 200
    assert suppressed(engine) == (["complained"] if kind == "mail.complained" else [])
    assert service(event(kind, "<other@shop.example>")) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1" * 5000,
        b'"mail.bounced"',
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"type": 1}',
        b'{"type": "mail.bounced"}',
        b'{"type": "mail.bounced", "data": []}',
        event(message_id=None),
        event(message_id=7),
    ],
    ids=range(13),
)
def test_a_report_that_is_none_is_refused(service: Callable[..., int], engine: Engine, body: bytes) -> None:
    """Signed or not, it is answered 400 and changes nothing."""
    before = everything(engine)
    assert service(body) == 400
    assert everything(engine) == before


@pytest.mark.parametrize("message_id", ["", "\0", "<\0@x>", "\ud800", "x" * 100_000, "<in_1-first\0@shop.example>"])
def test_a_strange_message_id_is_not_ours(service: Callable[..., int], message_id: str) -> None:
    """It reaches no database."""
    assert service(event(message_id=message_id)) == 200


def signature_of(secret: str) -> str:
    """Return a signature over another body."""
    return standard_webhooks.sign([secret], "msg_1", machine_now(), b"{}")["webhook-signature"]


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,AAAA v1a,AAAA nonsense"},
        {"webhook-signature": signature_of(SECRET)},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-id": "x" * 300},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "9" * 300},
        {"webhook-timestamp": "²"},
        {"webhook-timestamp": str(int(time.time()) + 1)},
    ],
    ids=range(11),
)
def test_a_forged_or_changed_report_is_refused(
    service: Callable[..., int], engine: Engine, serve: Serve, tmp_path: Path, headers: dict[str, str]
) -> None:
    """Id, time, body and secret are all signed."""
    delivered(serve, tmp_path)
    encoded: Any = {name: value.encode("latin-1") for name, value in headers.items()}
    assert service(event(), **encoded) == 400
    assert suppressed(engine) == []


@pytest.mark.parametrize(("ahead", "status"), [(-290, 200), (-310, 400), (290, 200), (310, 400)])
def test_a_report_from_another_time_is_refused(service: Callable[..., int], ahead: int, status: int) -> None:
    """Five minutes either way; what was heard once cannot be said again next week."""
    assert service(event(), ahead=ahead) == status


def test_a_strangers_secret_signs_nothing(service: Callable[..., int]) -> None:
    """Nor does the key without its prefix, read otherwise."""
    assert service(event(), f"whsec_{b64encode(b'x' * 32).decode()}") == 400


def test_a_report_of_any_size_is_answered(service: Callable[..., int]) -> None:
    """What is too large is refused before it is verified."""
    assert service(b"x" * (LARGEST_BODY + 1)) == 413


def test_only_a_constant_time_comparison_decides_about_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures our answers learns nothing about a signature."""
    now = machine_now()
    forged = {**standard_webhooks.sign([SECRET], "msg_1", now, b""), "webhook-signature": "v1,AAAA"}
    with pytest.raises(standard_webhooks.BadSignature, match="does not fit"):
        standard_webhooks.verify([SECRET], forged, b"", now)
    monkeypatch.setattr(hmac, "compare_digest", lambda _one, _other: True)
    standard_webhooks.verify([SECRET], forged, b"", now)


def test_others_who_keep_to_the_standard_are_understood() -> None:
    """Its own library signs, and we verify."""
    now, body = machine_now(), event()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": f"v1a,AAAA {Webhook(SECRET).sign('msg_1', now, body.decode())}",
    }
    standard_webhooks.verify([NEXT, SECRET], headers, body, now)
    with pytest.raises(standard_webhooks.BadSignature):
        standard_webhooks.verify([NEXT], headers, body, now)


def test_without_a_secret_there_is_no_such_address(engine: Engine) -> None:
    """It is as unknown as any other."""
    with served(made(engine)) as url:
        assert requests.post(f"{url}/webhooks/mail", event(), timeout=20).status_code == 404


def test_a_database_that_is_away_is_told_so_that_the_service_tries_again() -> None:
    """503, and nothing of the error."""
    nowhere = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    body = event()
    signed = standard_webhooks.sign([SECRET], "msg_1", machine_now(), body)
    with served(made(nowhere, SECRET)) as url:
        answer = requests.post(f"{url}/webhooks/mail", body, headers=signed, timeout=20)
    nowhere.dispose()
    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text


def test_a_report_leaves_no_address_in_database_or_logs(
    service: Callable[..., int], serve: Serve, tmp_path: Path, logged: Callable[[], str]
) -> None:
    """Noted, ignored and refused."""
    engine = delivered(serve, tmp_path).engine
    for body in (event(), event(kind=ADDRESS), event(message_id=ADDRESS), event(message_id=None)):
        service(body)
    assert suppressed(engine) == [BOUNCED]
    found = logged()
    assert "mail webhook" in found
    assert "canary" not in everything(engine) + found


def test_a_report_and_a_delivery_about_the_same_message_wait_for_each_other(serve: Serve, tmp_path: Path) -> None:
    """Both lock the message's own row first, so neither ends the other."""
    street = delivered(serve, tmp_path)
    with street.engine.begin() as delivery:
        delivery.exec_driver_sql("SELECT * FROM outbox FOR UPDATE")
        report = threading.Thread(target=heard, args=(street.engine, BOUNCED))
        report.start()
        delivery.exec_driver_sql("SELECT * FROM cases FOR UPDATE")
    report.join(20)
    assert suppressed(street.engine) == [BOUNCED]
