"""Is nobody written to who does not want it, or whose address sends mail back, and is everybody else?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from schedules import Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    LOST,
    START,
    add_case,
    add_notice,
    at_once,
    everything,
    mail_in,
    one,
    opened,
    payment,
    sql,
    the_case,
    told,
)
from tests.worker.postbox import claimed, deliver, mailbox, smtp, waiting
from worker import notices
from worker.suppressions import (
    BOUNCED,
    BY_HAND,
    COMPLAINED,
    OPTED_OUT,
    REASONS,
    Customer,
    digest,
    lift,
    refusal,
    suppress,
)

Run = Callable[..., CompletedProcess[str]]
ADA, BOB = Customer("cus_1", None), Customer("cus_2", None)
OPTIONAL = replace(Policy.default(), optional=("first",))
ADDRESS = "canary@customer.example"


def note(engine: Engine, why: str, address: str | None = None, customer: Customer = ADA) -> bool:
    """Note that a customer is not written to; True when it was not known."""
    with engine.begin() as db:
        return suppress(db, customer, why, START, digest(db, address) if address else None)


def refused(
    engine: Engine,
    notice: str = "first",
    address: str | None = ADDRESS,
    customer: Customer = ADA,
    policy: Policy = OPTIONAL,
) -> str | None:
    """Ask why a notice is not to be said; without an address it goes by another channel than mail."""
    with engine.begin() as db:
        return refusal(db, customer, notice, digest(db, address) if address else None, policy)


def of(street: Bench, **customer: Any) -> Bench:
    """Have the bank show a customer with the canary's address."""
    street.shown["customer"] = {"email": ADDRESS, **customer}
    return street


# The rules


@pytest.mark.parametrize("address", [ADDRESS, None], ids=["by mail", "by another channel"])
def test_whoever_opted_out_gets_the_necessary_notices_only(engine: Engine, address: str | None) -> None:
    """On every channel; which ones are necessary is the policy's to say."""
    note(engine, OPTED_OUT)
    assert refused(engine, "first", address) == REASONS[OPTED_OUT]
    assert refused(engine, "last_chance", address) is None
    assert refused(engine, "first", address, policy=replace(OPTIONAL, optional=())) is None


@pytest.mark.parametrize("address", [ADDRESS, None], ids=["by mail", "by another channel"])
def test_whom_a_person_named_gets_nothing(engine: Engine, address: str | None) -> None:
    """No notice, on no channel."""
    note(engine, BY_HAND)
    assert {refused(engine, name, address) for name in ("first", "last_chance", "ended")} == {REASONS[BY_HAND]}


@pytest.mark.parametrize("why", [BOUNCED, COMPLAINED])
def test_an_address_that_sends_mail_back_gets_none(engine: Engine, why: str) -> None:
    """Whoever's it is; other channels and another address of the same customer are free."""
    note(engine, why, ADDRESS)
    assert refused(engine, "last_chance") == REASONS[why]
    assert refused(engine, "last_chance", " CANARY@Customer.example ") == REASONS[why]
    assert refused(engine, customer=BOB) == f"{REASONS[why]}, noted of cus_1"
    assert (refused(engine, address="mended@customer.example"), refused(engine, address=None)) == (None, None)


def test_a_choice_is_one_customers_of_one_account(engine: Engine) -> None:
    """The same id at another connected account is somebody else."""
    note(engine, BY_HAND)
    assert refused(engine, customer=BOB) is None
    assert refused(engine, customer=Customer("cus_1", "acct_1")) is None


@pytest.mark.parametrize(("why", "address"), [(OPTED_OUT, None), (BOUNCED, ADDRESS)])
def test_what_is_known_is_noted_once(engine: Engine, why: str, address: str | None) -> None:
    """Eight times at once, and once more."""
    assert sorted(at_once([lambda: note(engine, why, address)] * 8)) == [False] * 7 + [True]
    assert note(engine, why, address) is False
    assert one(engine, "SELECT count(*) FROM suppressions") == 1


def test_what_is_lifted_is_lifted_for_all_who_share_the_address(engine: Engine) -> None:
    """An address takes mail or does not; what another customer chose stays."""
    for customer in (ADA, BOB):
        note(engine, BOUNCED, ADDRESS, customer)
        note(engine, OPTED_OUT, customer=customer)
    with engine.begin() as db:
        assert lift(db, ADA) == [BOUNCED, OPTED_OUT]
        assert lift(db, ADA) == []
    assert (refused(engine), refused(engine, customer=BOB)) == (None, REASONS[OPTED_OUT])


def test_an_address_is_another_digest_in_another_installation(engine: Engine) -> None:
    """A list of addresses and their digests cannot be made once for all."""
    with engine.begin() as db:
        before = digest(db, ADDRESS)
        db.execute(text("UPDATE install SET id = gen_random_uuid()"))
        assert digest(db, ADDRESS) != before
    assert ADDRESS.partition("@")[0] not in before


# Delivery


@pytest.mark.parametrize(
    ("why", "address"), [(OPTED_OUT, None), (BY_HAND, None), (BOUNCED, ADDRESS), (COMPLAINED, ADDRESS)]
)
def test_who_is_not_to_be_written_to_is_not(serve: Serve, tmp_path: Path, why: str, address: str | None) -> None:
    """Nothing leaves, now or later; outbox and history say why, and the case climbs on as if it had been said."""
    street = of(waiting(serve, policy=OPTIONAL))
    note(street.engine, why, address)
    with smtp() as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        assert deliver(street, mailbox(tmp_path, url), START + DAY) == []
    assert box.asked == 0
    assert one(street.engine, "SELECT error FROM outbox WHERE due_at IS NULL AND sent_to IS NULL") == REASONS[why]
    detail = one(street.engine, "SELECT detail FROM history WHERE what = 'not_delivered'")
    assert (detail["name"], detail["error"]) == ("first", REASONS[why])
    while one(street.engine, "SELECT count(*) FROM outbox") == 1:
        street.go_on()
    assert one(street.engine, "SELECT name FROM outbox ORDER BY id DESC LIMIT 1") == "reminder"


def test_a_mended_address_is_written_to_again(serve: Serve, tmp_path: Path) -> None:
    """The bounce was the old address's."""
    street = of(waiting(serve), email="mended@customer.example")
    note(street.engine, BOUNCED, ADDRESS)
    assert deliver(street, mailbox(tmp_path)) == [True]
    assert mail_in(tmp_path / "notices" / "in_1-first.eml")["To"] == "mended@customer.example"


@pytest.mark.parametrize("unwanted", ["first", "last_chance"])
def test_what_is_not_wanted_is_left_out_of_a_message_about_several_invoices(
    serve: Serve, tmp_path: Path, unwanted: str
) -> None:
    """The other part goes, whichever of them the message was begun for."""
    second = payment(2, customer_id="cus_1", decline=LOST)
    street = serve(Scripted([payment(decline=LOST), second]), policy=replace(OPTIONAL, optional=(unwanted,)))
    numbers = [opened(street.engine, each) for each in (payment(decline=LOST), second)]
    message = add_notice(street.engine, numbers[0])
    add_notice(street.engine, numbers[1], name="last_chance", merged_into=message, due_at=None)
    note(street.engine, OPTED_OUT)
    assert deliver(street, mailbox(tmp_path)) == [True]
    [file] = (tmp_path / "notices").iterdir()
    left = "last_chance" if unwanted == "first" else "first"
    kept = mail_in(file)
    assert (file.name, kept["X-Dunning-Notice"]) == ("in_1-first.eml", left)
    assert kept.get_all("X-Dunning-Payment") == ["in_1" if left == "first" else "in_2"]
    errors = {row.name: (row.error, row.delivered_at) for row in sql(street.engine, "SELECT * FROM outbox")}
    assert errors == {unwanted: (REASONS[OPTED_OUT], None), left: (None, START)}


def test_a_notice_of_a_paused_case_is_not_sent(serve: Serve, tmp_path: Path) -> None:
    """A person took the case into their hands after the notice was planned."""
    street = waiting(serve)
    sql(street.engine, "UPDATE cases SET paused = true, state = 'paused'")
    assert deliver(street, mailbox(tmp_path)) == [False]
    assert not (tmp_path / "notices").exists()
    assert one(street.engine, "SELECT error FROM outbox WHERE due_at IS NULL") == notices.PAUSED


def test_a_recipient_whom_the_mail_server_refuses_for_good_is_not_written_to_again(
    serve: Serve, tmp_path: Path
) -> None:
    """That is a bounce at the door: one try, and no other notice to this address."""
    street = of(waiting(serve))
    with smtp(RCPT=["550 5.1.1 no such user"]) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        error = one(street.engine, "SELECT error FROM outbox WHERE due_at IS NULL")
        assert error == f"{REASONS[BOUNCED]}: the recipient was refused (550 5.1.1)"
        assert told(street.engine)[-2:] == ["bounced", "not_delivered"]
        add_notice(street.engine, 1, name="reminder")
        assert deliver(street, mailbox(tmp_path, url)) == [False]
        street.shown["customer"] = {"email": "mended@customer.example"}
        add_notice(street.engine, 1, name="last_chance")
        assert deliver(street, mailbox(tmp_path, url)) == [True]
    assert box.recipients == ["mended@customer.example"]


def test_a_mail_server_that_is_angry_with_us_blames_no_address(serve: Serve, tmp_path: Path) -> None:
    """Its refusal of our sender is no bounce: the notice waits, and nobody is suppressed."""
    street = of(waiting(serve))
    with smtp(RCPT=["550 5.7.1 we do not know you"]) as (_, url):
        assert deliver(street, mailbox(tmp_path, url)) == [False]
    assert one(street.engine, "SELECT count(*) FROM suppressions") == 0
    assert one(street.engine, "SELECT due_at FROM outbox") > START


def test_a_suppressed_address_is_in_no_table_and_no_log(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Delivered, bounced, refused: its digest is there, and nothing else of it."""
    street = of(waiting(serve))
    with smtp(RCPT=["250 fine", "550 5.1.1 no such user"]) as (box, url):
        assert deliver(street, mailbox(tmp_path, url)) == [True]
        for name in ("reminder", "last_chance"):
            add_notice(street.engine, 1, name=name)
            assert deliver(street, mailbox(tmp_path, url)) == [False]
    assert box.recipients == [ADDRESS]
    with street.engine.begin() as db:
        assert one(street.engine, "SELECT address FROM suppressions") == digest(db, ADDRESS)
    assert "canary" not in everything(street.engine) + caplog.text + "".join(capfd.readouterr())


# Commands


def test_a_person_names_somebody_and_takes_it_back(run: Run, engine: Engine) -> None:
    """Each command says what it did; what was lifted is named, and lifting nothing is an error."""
    add_case(engine)
    done = run("notice", "suppress", "cus_1")
    assert (done.returncode, done.stdout) == (0, "cus_1 is not written to\n")
    assert run("notice", "suppress", "cus_1").stdout == "cus_1 is not written to, as before\n"
    note(engine, OPTED_OUT)
    assert refused(engine, "last_chance") == REASONS[BY_HAND]
    lifted = run("notice", "unsuppress", "cus_1")
    assert (lifted.returncode, lifted.stdout) == (0, "cus_1 is written to again; lifted: by_hand, opted_out\n")
    again = run("notice", "unsuppress", "cus_1")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "cus_1 was written to all the time\n"
    assert refused(engine) is None


def test_a_customer_of_a_connected_account_is_named_with_it(run: Run, engine: Engine) -> None:
    """And a customer without a case is taken, and told: perhaps it is a slip of the pen."""
    told_of = run("notice", "suppress", "cus_1", "--account", "acct_1").stdout
    assert told_of == "cus_1 is not written to; there is no case of this customer so far\n"
    assert refused(engine, customer=Customer("cus_1", "acct_1")) == REASONS[BY_HAND]
    assert run("notice", "unsuppress", "cus_1", "--json").returncode == 1
    done = run("notice", "unsuppress", "cus_1", "--account", "acct_1", "--json")
    assert json.loads(done.stdout) == {"customer_id": "cus_1", "account": "acct_1", "lifted": ["by_hand"]}


def test_who_is_not_written_to_is_listed(run: Run, engine: Engine) -> None:
    """By customer, reason and day; of an address not even its digest."""
    assert run("notice", "suppressed").stdout == "Everybody is written to.\n"
    note(engine, BOUNCED, ADDRESS)
    note(engine, OPTED_OUT, customer=Customer("cus_2", "acct_2"))
    told_of = json.loads(run("notice", "suppressed", "--json").stdout)
    since = "2026-01-12T15:00:00Z"
    assert told_of == [
        {"customer_id": "cus_1", "account": None, "why": "bounced", "since": since},
        {"customer_id": "cus_2", "account": "acct_2", "why": "opted_out", "since": since},
    ]
    table = run("notice", "suppressed").stdout
    assert ["cus_2", "acct_2", "opted_out", since] in [line.split() for line in table.splitlines()]
    with engine.begin() as db:
        assert digest(db, ADDRESS) not in table


def test_a_case_is_as_open_as_before(serve: Serve, tmp_path: Path) -> None:
    """Not being written to is no end: charges go on as planned."""
    street = of(waiting(serve))
    before = the_case(street.engine)
    note(street.engine, BY_HAND)
    [(number, token)] = claimed(street.engine)
    assert not notices.deliver(street.desk(START), mailbox(tmp_path), number, UUID(token))
    assert the_case(street.engine) == before
