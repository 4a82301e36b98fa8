"""Can an operator see what a customer would be told, and get one of it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Scripted, Serve
from tests.worker.builders import LOST, START, mail_in, opened, payment, text_of, the_case
from tests.worker.builders import told as told_of
from tests.worker.postbox import smtp
from worker.clock import set_clock

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def notice(commands: Run, tmp_path: Path) -> Run:
    """Return a function that runs a command about notices at the start, without a database."""
    set_clock(tmp_path / "clock", START)
    places = {"DUNNING_CLOCK_FILE": str(tmp_path / "clock"), "DUNNING_HOME": str(tmp_path / "home")}
    return lambda *arguments, **more: commands("notice", *arguments, **{**places, **more})


def test_a_sample_is_printed_in_any_language(notice: Run) -> None:
    """Subject and text, without a database and without a key."""
    done = notice("preview", "--sample", "--notice", "last_chance", "--locale", "de-AT")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Letzte Erinnerung: Ihre Zahlung über")
    assert "Bitte zahlen bis: 26. Jänner 2026" in done.stdout.splitlines()


def test_both_forms_are_written_into_a_folder(notice: Run, tmp_path: Path) -> None:
    """Their paths are printed; they are what --json holds without a folder."""
    done = notice("preview", "--sample", "--locale", "nl", "--out", str(tmp_path / "new" / "out"))
    html, text = (tmp_path / "new" / "out" / f"first.nl.{kind}" for kind in ("html", "txt"))
    assert done.stdout.splitlines() == [str(html), str(text)]
    told = json.loads(notice("preview", "--sample", "--locale", "nl", "--json").stdout)
    assert (html.read_text(encoding="utf-8"), text.read_text(encoding="utf-8")) == (told["html"], told["text"])
    assert (told["notice"], told["locale"]) == ("first", "nl")


@pytest.mark.parametrize("name", ["1", "in_1"])
def test_a_case_is_shown_as_its_customer_would_read_it(run: Run, engine: Engine, serve: Serve, name: str) -> None:
    """The notice that is next, with what the provider shows now, in the customer's language; nothing is written."""
    street = serve(Scripted([payment(decline=LOST, locale="fr-CA")]))
    opened(engine, payment(decline=LOST))
    street.work(START)
    before = the_case(engine), told_of(engine)
    bank = {"DUNNING_STRIPE_API_KEY": "sk_test_1", "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{street.port}"}
    told = json.loads(run("notice", "preview", "--case", name, "--json", **bank).stdout)
    assert (told["notice"], told["locale"]) == ("reminder", "fr")
    assert "Rappel\N{NO-BREAK SPACE}: votre paiement de 19,99" in told["subject"]
    assert "customer.example" not in json.dumps(told)
    assert (the_case(engine), told_of(engine)) == before
    assert street.summary["writes"] == 0


def test_a_case_that_is_not_there_is_told(run: Run) -> None:
    """In one line."""
    assert run("notice", "preview", "--case", "in_2").stderr == "Error: no case in_2\n"


@pytest.mark.parametrize("arguments", [(), ("--sample", "--case", "1")])
def test_a_preview_is_of_a_case_or_of_a_sample(notice: Run, arguments: tuple[str, ...]) -> None:
    """Not of both and not of nothing."""
    done = notice("preview", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "name a --case, or take a --sample" in done.stderr


def test_an_unknown_notice_is_told(notice: Run) -> None:
    """In one line."""
    done = notice("preview", "--sample", "--notice", "nudge")
    assert (done.returncode, done.stderr) == (1, "Error: no language has words for a notice named nudge\n")


def test_a_test_message_is_kept_where_there_is_no_mail_server(notice: Run) -> None:
    """As a notice would be; the command says where."""
    done = notice("send-test", "ada@shop.example", "--notice", "authentication", "--locale", "es", "--json")
    mail = mail_in(Path(json.loads(done.stdout)["kept"]))
    assert (mail["To"], mail["Subject"]) == ("ada@shop.example", "Confirme, por favor, su pago de 19,99\xa0US$")
    assert "Confirmar el pago:" in text_of(mail)


def test_a_test_message_is_sent_by_the_mail_server(notice: Run, tmp_path: Path) -> None:
    """To the address alone, under the merchant's name."""
    with smtp() as (box, url):
        done = notice("send-test", "ada@shop.example", DUNNING_SMTP_URL=url, DUNNING_MERCHANT_NAME="Ada's Shop")
    assert done.stdout == "handed over to the mail server\n"
    assert box.recipients == ["ada@shop.example"]
    assert b"From: Ada's Shop <billing@localhost>" in box.taken[0]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [("550 no", "the message was refused (550)"), (None, "cannot be reached")],
)
def test_a_mail_server_that_does_not_take_it_is_told(notice: Run, answer: str | None, told: str) -> None:
    """In one line without the address of the server, which may hold a password."""
    with smtp(answer or "") as (_, url):
        server = url if answer else "smtp://user:canary@127.0.0.1:9"
        done = notice("send-test", "ada@shop.example", DUNNING_SMTP_URL=server)
    assert done.returncode == 1
    assert told in done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_what_is_no_address_is_refused(notice: Run) -> None:
    """It might name a second recipient."""
    done = notice("send-test", "ada@shop.example\nBcc: all@shop.example")
    assert done.returncode == 2
    assert "is no e-mail address" in done.stderr


@pytest.mark.parametrize("role", ["worker", "up"])
def test_nobody_who_writes_starts_with_words_that_cannot_be_used(run: Run, tmp_path: Path, role: str) -> None:
    """One line names file and place."""
    (tmp_path / "notice.txt.j2").write_text("{{ amuont }}")
    done = run(role, DUNNING_STRIPE_API_KEY="sk_test_1", DUNNING_TEMPLATES=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"Error: {tmp_path}/notice.txt.j2, line 1: UndefinedError: 'amuont' is undefined\n"
