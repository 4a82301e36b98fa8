"""Does a message reach the customer once, with the right words, and never after the case has ended?"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path
from socket import create_server
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import Engine

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    HOUR,
    LOST,
    START,
    add_notice,
    at_once,
    everything,
    one,
    opened,
    payment,
    sql,
    the_case,
    told,
    until,
)
from worker import notices
from worker.leases import claim_due
from worker.models import outbox
from worker.notices import Mailbox, money, write
from worker.readings import Reading

ADDRESS = "@customer.example"


@dataclass
class Postbox:
    """An SMTP server's side: what it took, and how it answers the next messages."""

    answers: list[str] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    hold: Event = field(default_factory=Event)
    asked: int = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Answer as told; without an answer, take the message."""
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer.startswith("250"):
            self.taken.append(envelope.content)
            self.recipients += envelope.rcpt_tos
        return answer


@contextmanager
def smtp(*answers: str) -> Iterator[tuple[Postbox, str]]:
    """Run an SMTP server; give what it takes and its address."""
    box = Postbox(list(answers))
    with create_server(("127.0.0.1", 0)) as found:  # the controller cannot choose a port by itself
        port = found.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield box, f"smtp://127.0.0.1:{port}"
    finally:
        server.stop()


def mailbox(folder: Path, smtp_url: str | None = None) -> Mailbox:
    """Return a mailbox."""
    return Mailbox("billing@shop.example", folder / "notices", smtp_url)


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
        except (smtplib.SMTPException, OSError):
            done.append(False)
    return done


def test_a_notice_is_kept_as_a_file(serve: Serve, tmp_path: Path) -> None:
    """Without an SMTP server each message is one .eml file that a mail program opens."""
    street = waiting(serve)
    assert deliver(street, mailbox(tmp_path)) == [True]
    [file] = (tmp_path / "notices").iterdir()
    mail = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert file.name == "in_1-first.eml"
    assert (mail["From"], mail["X-Dunning-Payment"], mail["X-Dunning-Notice"]) == (
        "billing@shop.example",
        "in_1",
        "first",
    )
    assert mail["To"].endswith(ADDRESS)
    assert mail["Message-ID"] == "<in_1-first@dunning>"
    assert told(street.engine)[-1] == "delivered"
    assert deliver(street, mailbox(tmp_path), START + DAY) == []


def test_a_notice_is_sent_by_smtp(serve: Serve, tmp_path: Path) -> None:
    """The server takes it once, for the customer's address, and the row says when it left."""
    street = waiting(serve)
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [True]
        assert deliver(street, mailbox(tmp_path, url), START + DAY) == []
    assert len(box.taken) == 1
    assert [address.partition("@")[2] for address in box.recipients] == ["customer.example"]
    assert one(street.engine, "SELECT delivered_at FROM outbox") == START


@pytest.mark.parametrize("answer", ["451 later", "550 no such mailbox"])
def test_a_refused_notice_is_tried_again_later(serve: Serve, tmp_path: Path, answer: str) -> None:
    """The server said no, so nothing was delivered: minutes later it is offered again, once."""
    street = waiting(serve)
    with smtp(answer) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        [row] = sql(street.engine, "SELECT due_at, error, delivered_at, lease_token FROM outbox")
        assert START < row.due_at < START + HOUR
        assert (row.error, row.delivered_at, row.lease_token) == ("SMTPDataError", None, None)
        assert deliver(street, mailbox(tmp_path, url), START) == []
        assert deliver(street, mailbox(tmp_path, url), row.due_at) == [True]
    assert len(box.taken) == 1


def test_a_notice_that_nobody_takes_is_given_up(serve: Serve, tmp_path: Path) -> None:
    """After eight refusals it stays for a person, with its error, and the case goes on."""
    street = waiting(serve)
    now = START
    with smtp(*["550 no"] * 20) as (box, url):
        while (due := one(street.engine, "SELECT due_at FROM outbox")) is not None:
            now = due
            deliver(street, mailbox(tmp_path, url), now)
    assert (box.asked, one(street.engine, "SELECT error FROM outbox")) == (8, "SMTPDataError")


def test_a_server_that_is_away_loses_no_notice(serve: Serve, tmp_path: Path) -> None:
    """No connection at all is no delivery either."""
    street = waiting(serve)
    assert deliver(street, mailbox(tmp_path, "smtp://127.0.0.1:9")) == [False]
    with smtp() as (box, url):
        deliver(street, mailbox(tmp_path, url), START + HOUR)
    assert len(box.taken) == 1


def test_five_deliveries_of_one_hint_send_one_message(serve: Serve, tmp_path: Path) -> None:
    """A hint is used once, however often the broker delivers it."""
    street = waiting(serve)
    [(number, token)] = claimed(street.engine)
    desk = street.desk(START)
    with smtp() as (box, url):
        done = at_once([lambda: notices.deliver(desk, mailbox(tmp_path, url), number, UUID(token))] * 5)
    assert (sorted(done), len(box.taken)) == ([False] * 4 + [True], 1)


def test_a_notice_of_an_ended_case_is_dropped(serve: Serve, tmp_path: Path) -> None:
    """The customer paid between the plan and the sending: nothing is said any more."""
    street = waiting(serve)
    sql(street.engine, "UPDATE cases SET state = 'recovered', closed_at = due_at, due_at = NULL")
    assert deliver(street, mailbox(tmp_path)) == [False]
    assert not (tmp_path / "notices").exists()
    assert one(street.engine, "SELECT error FROM outbox WHERE due_at IS NULL") == "the case has ended"


def test_a_notice_is_dropped_when_the_provider_says_paid(serve: Serve, tmp_path: Path) -> None:
    """No event has come yet, but the reading at the moment of sending knows."""
    street = waiting(serve)
    street.shown["invoice"] = {"status": "paid"}
    assert deliver(street, mailbox(tmp_path)) == [False]
    assert not (tmp_path / "notices").exists()


def test_observe_mode_sends_nothing(serve: Serve, tmp_path: Path) -> None:
    """Neither by mail nor into the folder, and it is written down why."""
    street = waiting(serve, live=False)
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
    assert (box.asked, (tmp_path / "notices").exists()) == (0, False)
    assert one(street.engine, "SELECT error FROM outbox") == "observe mode sends nothing"


def test_an_uncertain_delivery_is_shown_and_not_repeated(serve: Serve, tmp_path: Path) -> None:
    """A worker took the message and was never heard of again: perhaps it left, so it does not leave twice."""
    street = waiting(serve)
    claimed(street.engine)
    sql(street.engine, "UPDATE outbox SET tries = 1, lease_until = now() - interval '1 s'")
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
    assert box.asked == 0
    assert one(street.engine, "SELECT error FROM outbox WHERE due_at IS NULL").startswith("uncertain")


@pytest.mark.parametrize("before", [(), ("451 later",)], ids=["first try", "second try"])
def test_a_worker_that_hangs_while_handing_over_is_not_repeated(
    serve: Serve, tmp_path: Path, before: tuple[str, ...]
) -> None:
    """Its lease runs out during the handing over: the successor does not send it a second time."""
    street = waiting(serve)
    held, sent = Event(), []

    class Slow(Mailbox):
        """Takes the message, and comes back late."""

        def send(self, message: EmailMessage, key: str) -> None:
            """Hand over, then hang."""
            super().send(message, key)
            sent.append(key)
            held.wait(20)

    now = START
    with smtp(*before) as (box, url), ThreadPoolExecutor(1) as pool:
        for _ in before:
            deliver(street, mailbox(tmp_path, url), now)
            now = one(street.engine, "SELECT due_at FROM outbox")
        first = pool.submit(deliver, street, Slow("billing@shop.example", tmp_path, url), now)
        until(lambda: bool(sent))
        sql(street.engine, "UPDATE outbox SET lease_until = now() - interval '1 s'")
        deliver(street, mailbox(tmp_path, url), now)
        held.set()
        first.result(20)
    assert len(box.taken) == 1


def test_the_address_is_in_no_table(serve: Serve, tmp_path: Path) -> None:
    """From the provider's own events to a delivered notice: no row anywhere holds the customer's address."""
    street = serve(Scripted([payment(decline=LOST)]))
    street.hear(START)
    with smtp("550 no such mailbox") as (box, url):
        while not box.taken:
            now = street.go_on()
            deliver(street, mailbox(tmp_path, url), now)
            deliver(street, mailbox(tmp_path, url), now + HOUR)
    assert ADDRESS in box.recipients[0]
    rows = everything(street.engine)
    assert "in_1" in rows
    assert ADDRESS not in rows


@pytest.mark.parametrize("name", ["cancel", "mark_uncollectible"])
def test_an_ending_is_carried_out_once(serve: Serve, tmp_path: Path, name: str) -> None:
    """What the merchant wants done about a lost case is done at the provider, also after the case has ended."""
    street = waiting(serve)
    sql(street.engine, "DELETE FROM outbox")
    sql(street.engine, "UPDATE cases SET state = 'lost', closed_at = due_at, due_at = NULL")
    add_notice(street.engine, 1, kind="ending", name=name)
    assert deliver(street, mailbox(tmp_path)) == [True]
    reading = street.desk(START).gateway.read("in_1")
    assert reading.ended == ("canceled" if name == "cancel" else "voided")
    assert street.summary["writes"] == 1


def reading(**changes: Any) -> Reading:
    """What the provider shows when a notice is written."""
    blank = dict.fromkeys(("ended", "method_id", "decline", "charge_id"))
    failed = payment()
    shown = Reading(
        payment_id="in_1",
        customer_id="cus_1",
        amount_minor=1999,
        currency="usd",
        card=failed.card,
        charged=failed.card,
        in_flight=False,
        waits_for_customer=False,
        retried_by_provider=False,
        email="ada@customer.example",
        link="https://invoice.stripe.example/i/1",
        **blank,
    )
    return replace(shown, **changes)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(1999, "usd", "$19.99"), (1999, "jpy", "¥1,999"), (1999, "kwd", "1.999"), (0, "eur", "€0.00")],
)
@pytest.mark.parametrize("notice", ["first", "reminder", "second_reminder", "last_chance"])
def test_every_notice_tells_amount_and_link(notice: str, amount: int, currency: str, shown: str) -> None:
    """In the minor units of the currency, in subject or text; with the link to pay; with nothing of the refusal."""
    mail = write(reading(amount_minor=amount, currency=currency), notice, "in_1", "billing@shop.example", "k")
    text = mail["Subject"] + mail.get_content()
    assert shown in text
    assert "https://invoice.stripe.example/i/1" in text
    for word in ("declin", "insufficient", "funds", "refus", "lost", "stolen", "fraud", "bank", "{{", "None"):
        assert word not in text.lower().replace("none", "None")


@pytest.mark.parametrize("link", [None, "https://x.example/" + "a" * 300])
def test_a_notice_without_a_usual_link_is_still_sound(link: str | None) -> None:
    """A missing link is not written as None, and a long one is not broken."""
    text = write(reading(link=link), "first", "in_1", "billing@shop.example", "k").get_content()
    assert "None" not in text
    assert link is None or link in text.replace("=\n", "")


def test_a_name_in_the_address_cannot_add_headers() -> None:
    """An address with a line break is refused, not sent to somebody else as well."""
    with pytest.raises(ValueError, match=r"(?i)header|linefeed|carriage"):
        write(reading(email="a@b.example\nBcc: all@b.example"), "first", "in_1", "billing@shop.example", "k")


def test_a_customer_without_an_address_is_an_error() -> None:
    """It is told, not silently counted as contacted."""
    with pytest.raises(LookupError, match="no e-mail address"):
        write(reading(email=None), "first", "in_1", "billing@shop.example", "k")


def test_money_has_the_decimals_of_its_currency() -> None:
    """None for yen, two for dollars, three for dinars; negative never happens, large does."""
    assert [money(1234567, code).replace("\xa0", "") for code in ("jpy", "usd", "bhd")] == [
        "¥1,234,567",
        "$12,345.67",
        "BHD1,234.567",
    ]


def test_a_contact_is_planned_once_for_each_step(serve: Serve) -> None:
    """A never-class refusal leads to the four notices of the ladder, each once, no two within two days."""
    street = serve(Scripted([payment(decline=LOST)]))
    opened(street.engine, payment(decline=LOST))
    street.run()
    rows = sql(street.engine, "SELECT name, at FROM outbox ORDER BY at")
    assert [row.name for row in rows] == ["first", "reminder", "second_reminder", "last_chance"]
    assert all(later.at - earlier.at >= 2 * DAY for earlier, later in pairwise(rows))
    assert the_case(street.engine).state == "lost"
    assert rows[0].at == START
