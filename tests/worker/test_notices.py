"""Does a message reach the customer once, with the right words, and never after the case has ended?"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from schedules import FailedPayment, Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    FUNDS,
    HOUR,
    LOST,
    START,
    add_notice,
    at_once,
    everything,
    mail_in,
    one,
    opened,
    payment,
    reading,
    sql,
    text_of,
    the_case,
    told,
    until,
)
from tests.worker.postbox import claimed, deliver, mailbox, smtp, waiting
from worker import charging, notices
from worker.cases import lock
from worker.locales import money
from worker.mail import Mailbox, write
from worker.models import UNCERTAIN
from worker.readings import Reading
from worker.report import make_report
from worker.stripe_gateway import Paid
from worker.wording import Bill, Letterhead
from worker.words import NotWritten

ADDRESS = "@customer.example"


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
    assert mail["Message-ID"] == "<in_1-first@shop.example>"
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


def test_a_notice_that_cannot_be_written_waits_until_it_can(serve: Serve, tmp_path: Path) -> None:
    """A template was broken while the worker ran: the history names file and line, and once mended it is sent."""
    street, template = waiting(serve), tmp_path / "own" / "notice.txt.j2"
    template.parent.mkdir()
    template.write_text("{{ amuont }}")
    box = replace(mailbox(tmp_path), letterhead=Letterhead(templates=template.parent))
    assert deliver(street, box) == [False]
    detail = one(street.engine, "SELECT detail FROM history WHERE what = 'not_delivered'")
    assert detail["error"] == f"{template}, line 1: UndefinedError: 'amuont' is undefined"
    template.write_text("{{ subject }}")
    os.utime(template, (0, 0))
    again = one(street.engine, "SELECT due_at FROM outbox")
    assert START < again < START + HOUR
    assert deliver(street, box, again) == [True]
    assert text_of(mail_in(tmp_path / "notices" / "in_1-first.eml")) == "Your payment of $19.99 did not go through\n"


def test_a_notice_goes_out_under_the_merchants_name(serve: Serve, tmp_path: Path) -> None:
    """As the sender's name, with the address for answers, in the customer's language."""
    street = waiting(serve)
    sql(street.engine, "UPDATE cases SET locale = 'de-AT'")
    street.shown["customer"] = {"preferred_locales": ["ja-JP", "en"]}
    shop = Letterhead("Ümit's Shop, Inc.", reply_to="Help <help@shop.example>")
    assert deliver(street, replace(mailbox(tmp_path), letterhead=shop)) == [True]
    mail = mail_in(tmp_path / "notices" / "in_1-first.eml")
    [sender] = mail["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (shop.name, "billing@shop.example")
    assert (mail["Reply-To"], mail["Content-Language"]) == (shop.reply_to, "ja")
    assert mail.get_content_type() == "multipart/alternative"
    assert [each.get_content_type() for each in mail.iter_parts()] == ["text/plain", "text/html"]


def test_a_notice_tells_the_next_charge_and_the_last_day_in_the_customers_calendar(
    serve: Serve, tmp_path: Path
) -> None:
    """The last day is a whole one: whoever pays on its evening is in time."""
    street = waiting(serve)
    at = START + DAY + timedelta(hours=12, minutes=30)  # 22:30 in New York, the next day already in UTC
    sql(street.engine, 'UPDATE cases SET step = \'{"step": "charge"}\', due_at = :at, time_zone = NULL', at=at)
    afternoon = START + timedelta(hours=5)  # without a zone of the customer: day in the whole country
    assert deliver(street, mailbox(tmp_path), afternoon) == [True]
    lines = text_of(mail_in(tmp_path / "notices" / "in_1-first.eml")).splitlines()
    assert "Next attempt: January 13, 2026" in lines
    assert "Please pay by: February 8, 2026" in lines
    assert "For: 1 month of Practice Shop" in lines


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
    sql(street.engine, "UPDATE outbox SET tries = 1, error = :uncertain", uncertain=UNCERTAIN)
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

        def send(self, message: EmailMessage, key: str, begin: Callable[[], object] = lambda: None) -> None:
            """Hand over, then hang."""
            super().send(message, key, begin)
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


def test_an_ending_whose_worker_was_never_heard_of_again_is_carried_out(serve: Serve, tmp_path: Path) -> None:
    """Unlike a message it can be done twice without harm, so the next worker does it, mail server or not."""
    street = waiting(serve)
    sql(street.engine, "DELETE FROM outbox")
    sql(street.engine, "UPDATE cases SET state = 'lost', closed_at = due_at, due_at = NULL")
    add_notice(street.engine, 1, kind="ending", name="pause")
    claimed(street.engine)
    sql(street.engine, "UPDATE outbox SET tries = 1, lease_until = now() - interval '1 s'")
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [True]
    assert (street.summary["writes"], box.asked) == (1, 0)


# One message for several invoices of a customer


SOON = replace(Policy.default(), silent_days=1, payday_reach_days=0)
SECOND = payment(2, customer_id="cus_1", failed_at=START + 3 * HOUR, amount_minor=500, currency="eur")
SPOKEN = START + DAY
IN_FLIGHT = (
    "INSERT INTO attempts (case_id, payment_id, number, idempotency_key, state, at, card, amount_minor, currency)"
    " VALUES (2, 'in_2', 1, 'k', 'unknown', now(), '{}', 500, 'eur')"
)


def silent(serve: Serve, *others: FailedPayment, refusals: int = 0, policy: Policy = SOON, **settings: Any) -> Bench:
    """Return a bank with a case for each of some failed renewals; the first one's notice is the first that is due."""
    failed = [payment(), *others]
    street = serve(Scripted(failed, [FUNDS] * refusals), policy=policy, **settings)
    for each in failed:
        opened(street.engine, each, each.failed_at)
    for each in sorted(failed, key=lambda each: each.failed_at):
        street.work(each.failed_at)
    return street


def speaking(serve: Serve, *others: FailedPayment, **settings: Any) -> Bench:
    """Return such a bank at the instant at which the first notice was put into the outbox."""
    street = silent(serve, *others, **settings)
    assert street.work(SPOKEN) >= 1
    return street


def told_of(folder: Path) -> list[list[str]]:
    """Return the invoices that each kept message names."""
    files = sorted((folder / "notices").glob("*.eml"))
    return [message_from_bytes(file.read_bytes()).get_all("X-Dunning-Payment", []) for file in files]


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    """Return case, notice and result of each row of the outbox."""
    return [tuple(row) for row in sql(engine, "SELECT case_id, name, delivered_at, error FROM outbox ORDER BY id")]


def test_two_invoices_of_one_customer_are_told_in_one_message(serve: Serve, tmp_path: Path) -> None:
    """Both amounts, each in its currency, with both links; both cases count it, and the report counts one message."""
    street = speaking(serve, SECOND)
    assert deliver(street, mailbox(tmp_path), SPOKEN) == [True]
    [file] = (tmp_path / "notices").iterdir()
    mail = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert mail.get_all("X-Dunning-Payment") == ["in_1", "in_2"]
    lines = text_of(mail).splitlines()
    for amount, link in (
        ("$19.99", "https://invoice.stripe.example/i/1"),
        ("€5.00", "https://invoice.stripe.example/i/2"),
    ):
        assert lines.index(f"Amount: {amount}") < lines.index(link)
    assert rows(street.engine) == [(1, "first", SPOKEN, None), (2, "first", SPOKEN, None)]
    assert (told(street.engine, 1)[-1], told(street.engine, 2)[-1]) == ("delivered", "delivered")
    assert the_case(street.engine, 2).state == "contacting"
    with street.engine.connect() as db:
        assert make_report(db, START).total.notices == 1
    assert deliver(street, mailbox(tmp_path), SPOKEN + DAY) == []


def test_a_case_that_joins_a_message_tells_so_in_its_history(serve: Serve) -> None:
    """Whoever asks why it was told early finds with which invoice."""
    street = speaking(serve, SECOND)
    detail = one(street.engine, "SELECT detail FROM history WHERE case_id = 2 AND what = 'merged'")
    assert detail == {"notice": "first", "into": "in_1"}
    assert "merged" not in told(street.engine, 1)


def test_merged_cases_climb_their_ladders_together(serve: Serve) -> None:
    """Each says its own four notices, in four messages, and no two of these within the cool-down."""
    street = speaking(serve, SECOND, refusals=99)
    while (due := one(street.engine, "SELECT min(due_at) FROM cases")) is not None:
        street.work(due)
    ladder = [rung.notice for rung in SOON.ladder]
    for case_id in (1, 2):
        said = sql(street.engine, "SELECT name FROM outbox WHERE case_id = :id ORDER BY at", id=case_id)
        assert [row.name for row in said] == ladder
    messages = sql(street.engine, "SELECT at FROM outbox WHERE merged_into IS NULL ORDER BY at")
    assert len(messages) == len(ladder)
    assert all(later.at - earlier.at >= 2 * DAY for earlier, later in pairwise(messages))


def test_a_case_that_is_far_from_its_notice_is_left_alone(serve: Serve) -> None:
    """Only what the cool-down would put off is drawn into the message; another notice comes in its own time."""
    third = payment(3, customer_id="cus_1", failed_at=START + 20 * HOUR)
    street = silent(serve, SECOND, third, policy=replace(SOON, cooldown_hours=12))
    before = the_case(street.engine, 3)
    assert before.due_at >= SPOKEN + 12 * HOUR
    street.work(SPOKEN)
    assert [row[0] for row in rows(street.engine)] == [1, 2]
    assert the_case(street.engine, 3) == before


@pytest.mark.parametrize(
    "unlike",
    [
        "UPDATE cases SET customer_id = 'cus_2' WHERE id = 2",
        "UPDATE cases SET account = 'acct_2' WHERE id = 2",
        'UPDATE cases SET paused = true, step = \'{"step": "wait"}\' WHERE id = 2',
        "UPDATE cases SET state = 'recovered', closed_at = now(), due_at = NULL, step = NULL WHERE id = 2",
        IN_FLIGHT,
    ],
    ids=["another customer", "another account", "paused", "ended", "perhaps paid at this moment"],
)
def test_what_is_no_case_of_the_customer_waiting_to_speak_is_untouched(serve: Serve, unlike: str) -> None:
    """Neither its row nor its history changes."""
    street = silent(serve, SECOND)
    sql(street.engine, unlike)
    before, lines = the_case(street.engine, 2), told(street.engine, 2)
    street.work(SPOKEN)
    assert [row[0] for row in rows(street.engine)] == [1]
    assert (the_case(street.engine, 2), told(street.engine, 2)) == (before, lines)


def test_a_case_that_another_worker_has_locked_is_left_to_its_own_time(serve: Serve) -> None:
    """Nobody waits for it: the message leaves without it, and the cool-down holds for what it says later."""
    street = silent(serve, SECOND)
    with street.engine.begin() as other:
        before = the_case(street.engine, 2)
        lock(other, 2)
        street.work(SPOKEN)
        assert [row[0] for row in rows(street.engine)] == [1]
    assert the_case(street.engine, 2) == before
    street.work(before.due_at)
    assert the_case(street.engine, 2).due_at >= SPOKEN + 2 * DAY
    street.go_on(2)
    assert one(street.engine, "SELECT at FROM outbox WHERE case_id = 2") >= SPOKEN + 2 * DAY


@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked meanwhile"])
def test_two_workers_that_are_about_to_speak_at_one_instant_send_one_message(serve: Serve, *, locked: bool) -> None:
    """Both have decided to speak: the second finds that it was spoken for, or that the cool-down has begun."""
    street = silent(serve, replace(SECOND, failed_at=START))
    desk, due = street.desk(SPOKEN), sorted(street.claim(SPOKEN))
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    with ThreadPoolExecutor(2) as pool, street.engine.connect() as somebody:
        with street.engine.begin() as speaker:
            speaker.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('cus_1', 0))"))
            for waiting, (number, token) in enumerate(due, start=1):
                pool.submit(charging.work, desk, number, token)
                until(partial(lambda count: bool(one(street.engine, waits) == count), waiting))
            if locked:
                lock(somebody, 2)
        until(lambda: bool(rows(street.engine)))
    message, *merged = rows(street.engine)
    assert message[:2] == (1, "first")
    assert [row[:2] for row in merged] == ([] if locked else [(2, "first")])
    assert one(street.engine, "SELECT count(*) FROM outbox WHERE due_at IS NOT NULL") == 1
    assert sql(street.engine, "SELECT id FROM cases WHERE due_at < :end", end=SPOKEN + 2 * DAY) == []


def test_a_claimed_case_joins_the_message_and_its_worker_says_nothing_more(serve: Serve) -> None:
    """The lease stays with its owner, who decides anew."""
    street = silent(serve, replace(SECOND, failed_at=START))
    desk, due = street.desk(SPOKEN), street.claim(SPOKEN)
    for number, token in due:
        charging.work(desk, number, token)
    assert {row[:2] for row in rows(street.engine)} == {(1, "first"), (2, "first")}
    assert one(street.engine, "SELECT count(*) FROM outbox WHERE due_at IS NOT NULL") == 1
    assert sql(street.engine, "SELECT id FROM cases WHERE lease_token IS NOT NULL") == []


@pytest.mark.parametrize(("paid", "left"), [(1, 2), (2, 1)], ids=["the first is paid", "the merged one is paid"])
@pytest.mark.parametrize("known", [True, False], ids=["we know it", "only the provider knows it"])
def test_an_invoice_paid_before_the_delivery_is_left_out(
    serve: Serve, tmp_path: Path, *, known: bool, paid: int, left: int
) -> None:
    """The other one is told all the same, and each row says what became of it."""
    street = speaking(serve, SECOND)
    if known:
        sql(street.engine, "UPDATE cases SET ended = 'paid' WHERE id = :id", id=paid)
    else:
        assert street.desk(SPOKEN).gateway.pay(f"in_{paid}", "by hand") == Paid()
    assert deliver(street, mailbox(tmp_path), SPOKEN) == [True]
    assert told_of(tmp_path) == [[f"in_{left}"]]
    results = {(paid, "first", None, "the case has ended"), (left, "first", SPOKEN, None)}
    assert set(rows(street.engine)) == results
    assert (told(street.engine, paid)[-1], told(street.engine, left)[-1]) == ("not_delivered", "delivered")
    with street.engine.connect() as db:
        assert make_report(db, START).total.notices == 1
    assert deliver(street, mailbox(tmp_path), SPOKEN + DAY) == []


def test_a_message_about_nothing_but_paid_invoices_is_dropped(serve: Serve, tmp_path: Path) -> None:
    """Nothing is left to say."""
    street = speaking(serve, SECOND)
    street.shown["invoice"] = {"status": "paid"}
    assert deliver(street, mailbox(tmp_path), SPOKEN) == [False]
    assert not (tmp_path / "notices").exists()
    assert {row[2:] for row in rows(street.engine)} == {(None, "the case has ended")}


def test_a_refused_message_about_two_invoices_is_tried_again_as_a_whole(serve: Serve, tmp_path: Path) -> None:
    """Minutes later, once; until then both cases tell the error."""
    street = speaking(serve, SECOND)
    with smtp("451 later") as (box, url):
        assert deliver(street, mailbox(tmp_path, url), SPOKEN) == [False]
        assert {row[2:] for row in rows(street.engine)} == {(None, "the message was refused (451)")}
        [row] = sql(street.engine, "SELECT due_at FROM outbox WHERE due_at IS NOT NULL")
        assert deliver(street, mailbox(tmp_path, url), row.due_at) == [True]
    [taken] = box.taken
    assert message_from_bytes(taken).get_all("X-Dunning-Payment") == ["in_1", "in_2"]
    assert {each[2:] for each in rows(street.engine)} == {(row.due_at, None)}


def test_an_uncertain_message_is_uncertain_for_all_its_invoices(serve: Serve, tmp_path: Path) -> None:
    """It may have left, so neither is told a second time."""
    street = speaking(serve, SECOND)
    sql(street.engine, "UPDATE outbox SET error = :uncertain WHERE merged_into IS NULL", uncertain=UNCERTAIN)
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url), SPOKEN) == [False]
    assert box.asked == 0
    assert {row[2:] for row in rows(street.engine)} == {(None, UNCERTAIN)}


def test_a_delivery_and_an_event_about_the_same_cases_never_block_each_other(serve: Serve, tmp_path: Path) -> None:
    """The message is the second case's, the first one joined it: its result is written in the order of the cases."""
    street = silent(serve, replace(SECOND, failed_at=START - HOUR / 2))
    street.work(SPOKEN - HOUR / 2)
    assert [row[0] for row in rows(street.engine)] == [2, 1]
    waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as pool:
        with street.engine.begin() as event:
            lock(event, 1)
            delivery = pool.submit(deliver, street, mailbox(tmp_path), SPOKEN)
            until(lambda: bool(one(street.engine, waits)))
            lock(event, 2)
        assert delivery.result(20) == [True]
    assert {row[2:] for row in rows(street.engine)} == {(SPOKEN, None)}


def test_observe_mode_merges_and_sends_nothing(serve: Serve, tmp_path: Path) -> None:
    """Both rows say why."""
    street = speaking(serve, SECOND, live=False)
    assert deliver(street, mailbox(tmp_path), SPOKEN) == [False]
    assert rows(street.engine) == [(number, "first", None, notices.OBSERVED) for number in (1, 2)]


# The words


def written(notice: str, *shown: Reading) -> EmailMessage:
    """Return a notice about some payments as a message."""
    return write(mailbox(Path()), notice, [Bill(each) for each in shown], Policy.default(), "k")


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(1999, "usd", "$19.99"), (1999, "jpy", "¥1,999"), (1999, "kwd", "1.999"), (0, "eur", "€0.00")],
)
@pytest.mark.parametrize("notice", ["first", "reminder", "second_reminder", "last_chance"])
def test_every_notice_tells_amount_and_link(notice: str, amount: int, currency: str, shown: str) -> None:
    """In the minor units of the currency, in subject and text; with the link to pay; with nothing of the refusal."""
    mail = written(notice, reading(amount_minor=amount, currency=currency))
    assert shown in mail["Subject"]
    text = mail["Subject"] + text_of(mail)
    assert shown in text_of(mail)
    assert "https://invoice.stripe.example/i/1" in text.splitlines()
    for word in ("declin", "insufficient", "funds", "refus", "lost", "stolen", "fraud", "bank", "{{", "None"):
        assert word not in text.lower().replace("none", "None")


@pytest.mark.parametrize("notice", ["first", "reminder", "second_reminder", "last_chance"])
def test_a_notice_about_several_invoices_has_a_part_for_each(notice: str) -> None:
    """All amounts in a row, then one by one with their links; a missing link asks for an answer."""
    second, third = reading(payment_id="in_2", currency="jpy", link="https://x.example/2"), reading(link=None)
    mail = written(notice, reading(), second, third)
    assert "$19.99, ¥1,999, and $19.99" in mail["Subject"]
    lines = text_of(mail).splitlines()
    leads = [line for line in lines if line.startswith(("Amount:", "https:", "Please answer"))]
    assert leads == [
        "Amount: $19.99",
        "https://invoice.stripe.example/i/1",
        "Amount: ¥1,999",
        "https://x.example/2",
        "Amount: $19.99",
        "Please answer this message, and we will help you.",
    ]
    assert "None" not in text_of(mail)


@pytest.mark.parametrize("link", [None, "https://x.example/" + "a" * 300])
def test_a_notice_without_a_usual_link_is_still_sound(link: str | None) -> None:
    """A missing link is not written as None, and a long one is not broken."""
    text = text_of(written("first", reading(link=link)))
    assert "None" not in text
    assert link is None or link in text.splitlines()


def test_a_name_in_the_address_cannot_add_headers() -> None:
    """An address with a line break is refused, not sent to somebody else as well."""
    with pytest.raises(ValueError, match=r"(?i)header|linefeed|carriage"):
        written("first", reading(email="a@b.example\nBcc: all@b.example"))


def test_a_customer_without_an_address_is_an_error() -> None:
    """It is told, not silently counted as contacted."""
    with pytest.raises(NotWritten, match="no e-mail address"):
        written("first", reading(email=None))


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
