"""Can a customer choose fewer messages with one click, and does nobody else choose for them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import Engine

from schedules import Policy
from tests.gateway.wire import served
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import DAY, LOST, START, add_notice, everything, mail_in, one, opened, payment, sql, text_of
from tests.worker.builders import told as told_of
from tests.worker.postbox import claimed, mailbox, smtp
from worker import notices
from worker.app import make_engine
from worker.clock import set_clock
from worker.links import TO_OPT_OUT, BadLink, Links, OldLink
from worker.mail import Mailbox
from worker.settings import Settings, load_settings
from worker.suppressions import REASONS
from worker.web.webhooks import make_web
from worker.wording import Letterhead
from worker.words import read_words

SECRET = "canary" * 6
LINKS = Links("https://pay.shop.example", (SECRET.encode(),))
Ask = Callable[..., requests.Response]


def token_of(case_id: int = 1, links: Links = LINKS) -> str:
    """Return what stands in the link after the last slash."""
    return links.to_opt_out(case_id, START).rpartition("/")[2]


@pytest.fixture
def ask(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Return a function that opens a link of the first case, in a browser or as a mail program."""
    opened(engine)
    monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
    load_settings.cache_clear()
    with ExitStack() as stack:
        running: dict[int, str] = {}

        def open_link(
            method: str = "GET", token: str | None = None, now: Any = START, database: Engine = engine, **more: Any
        ) -> requests.Response:
            set_clock(tmp_path / "clock", now)
            if id(database) not in running:
                chosen: dict[str, Any] = {"public_url": LINKS.base, "link_secret": (SecretStr(SECRET),)}
                shop = Settings(mail_from="Ada's Shop <billing@shop.example>", **chosen)
                running[id(database)] = stack.enter_context(served(make_web(shop, database)))
            address = f"{running[id(database)]}/unsubscribe/{token_of() if token is None else token}"
            return requests.request(method, address, allow_redirects=False, timeout=20, **more)

        yield open_link


def chosen(engine: Engine) -> list[tuple[Any, ...]]:
    """Return who wants fewer messages, and since when."""
    return [tuple(row) for row in sql(engine, "SELECT customer_id, account, why, at FROM suppressions")]


# Tokens


def test_a_link_opens_its_own_case_for_more_than_a_year() -> None:
    """Whoever cleans up a mailbox after twelve months is heard."""
    assert LINKS.case_of(token_of(7), START + 370 * DAY, TO_OPT_OUT) == 7
    with pytest.raises(OldLink):
        LINKS.case_of(token_of(7), START + 400 * DAY, TO_OPT_OUT)


def test_no_link_is_good_for_another_purpose() -> None:
    """Who may choose fewer messages may not pay, and the other way round, though one secret signs both."""
    to_pay = LINKS.to_pay(1, START + DAY).rpartition("/")[2]
    for token, purpose in ((token_of(), b"dunning pay link\n"), (to_pay, TO_OPT_OUT)):
        with pytest.raises(BadLink):
            LINKS.case_of(token, START, purpose)


# Pages


def test_a_mail_program_opts_out_with_one_request(ask: Ask, engine: Engine) -> None:
    """As RFC 8058 has it: a POST without cookies, answered 200 at once; the history tells it."""
    answer = ask("POST", data={"List-Unsubscribe": "One-Click"}, now=START + DAY)
    assert (answer.status_code, dict(answer.cookies)) == (200, {})
    assert chosen(engine) == [("cus_1", None, "opted_out", START + DAY)]
    assert told_of(engine)[-1] == "opted_out"
    assert "only the necessary messages" in answer.text


def test_a_form_of_several_parts_is_taken_as_well(ask: Ask, engine: Engine) -> None:
    """The RFC allows both encodings; what is in the body does not matter."""
    assert ask("POST", files={"List-Unsubscribe": (None, "One-Click")}).status_code == 200
    assert len(chosen(engine)) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_the_page_changes_nothing(ask: Ask, engine: Engine, method: str) -> None:
    """Mail scanners open every link."""
    before = everything(engine)
    assert [ask(method).status_code for _ in range(2)] == [200, 200]
    assert everything(engine) == before


def test_the_page_has_one_button_and_needs_no_script(ask: Ask) -> None:
    """It posts to its own address; nothing about the person is on it."""
    answer = ask()
    assert answer.text.count("<button>") == answer.text.count('<form method="post">') == 1
    assert "Yes, only when necessary" in answer.text
    assert "Ada&#39;s Shop" in answer.text
    for private in ("<script", "customer.example", "cus_1", "in_1", "19.99", "canary"):
        assert private not in answer.text


def test_a_second_time_is_fine(ask: Ask, engine: Engine) -> None:
    """The same kind words, and one line in the table and in the history."""
    first, second = ask("POST"), ask("POST", now=START + DAY)
    assert (second.status_code, second.text) == (200, first.text)
    assert chosen(engine) == [("cus_1", None, "opted_out", START)]
    assert told_of(engine).count("opted_out") == 1


def test_the_choice_outlives_the_case(ask: Ask, engine: Engine) -> None:
    """The link of a message about an ended case is as good; the choice is the customer's."""
    sql(engine, "UPDATE cases SET state = 'recovered', closed_at = now(), due_at = NULL, account = 'acct_1'")
    assert ask("POST").status_code == 200
    assert chosen(engine) == [("cus_1", "acct_1", "opted_out", START)]


@pytest.mark.parametrize("tag", sorted(read_words(None)))
def test_the_pages_speak_the_customers_language(ask: Ask, engine: Engine, tag: str) -> None:
    """Before the choice and after it."""
    sql(engine, "UPDATE cases SET locale = :tag", tag=tag)
    pages = read_words(None)[tag].texts["pages"]
    for method, name in (("GET", "unsubscribe"), ("POST", "unsubscribed")):
        answer = ask(method)
        assert f'<html lang="{tag}">' in answer.text
        assert all(text in answer.text for text in pages[name].values())


def broken() -> list[str]:
    """Return what may become of a token on its way, or in other hands."""
    stranger, token = replace(LINKS, secrets=(b"another" * 6,)), token_of()
    to_pay = LINKS.to_pay(1, START + DAY).rpartition("/")[2]
    return [token[:-1], token + "A", token[::-1], token_of(links=stranger), token_of(99), to_pay, "", "a/b", "%00"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_link_that_is_no_good_chooses_nothing(ask: Ask, engine: Engine, method: str) -> None:
    """Forged, cut, made for paying, or of no case: one page for all of them."""
    before = everything(engine)
    answers = [ask(method, token, headers={"Accept-Language": "fr-CA,en;q=0.5"}) for token in broken()]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert '<html lang="fr">' in answers[0].text
    assert everything(engine) == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_old_link_is_gone(ask: Ask, engine: Engine, method: str) -> None:
    """The page names the newest message."""
    answer = ask(method, now=START + 401 * DAY)
    assert (answer.status_code, "no longer valid" in answer.text) == (410, True)
    assert chosen(engine) == []


def test_a_database_that_does_not_answer_is_a_page_too(ask: Ask) -> None:
    """No mail program takes it for done."""
    nowhere = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    answer = ask("POST", database=nowhere)
    nowhere.dispose()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")


def test_every_answer_stays_out_of_caches_frames_and_referrers(ask: Ask) -> None:
    """As the pages for paying do."""
    for answer in (ask(), ask("POST"), ask(token="x")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_the_token_gets_into_no_log(
    ask: Ask, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads the logs chooses for nobody."""
    for token in (token_of(), token_of()[:-1]):
        ask("POST", token)
    logged = caplog.text + "".join(capfd.readouterr())
    assert "unsubscribe" in logged
    assert token_of()[:32] not in logged


# Notices


def sent(street: Bench, box: Mailbox, links: Links | None = LINKS, now: Any = START) -> list[EmailMessage]:
    """Deliver what is due; return what is in the folder then."""
    desk = replace(street.desk(now), links=links)
    for number, token in claimed(street.engine, now):
        notices.deliver(desk, box, number, UUID(token))
    return [mail_in(file) for file in sorted(box.folder.glob("*.eml"))]


def about(serve: Serve, *names: str, **settings: Any) -> Bench:
    """Return a bank with a case and these notices to send about it."""
    street = serve(Scripted([payment(decline=LOST)]), **settings)
    opened(street.engine, payment(decline=LOST))
    for name in names:
        add_notice(street.engine, 1, name=name)
    return street


def test_an_optional_notice_can_be_chosen_away(serve: Serve, tmp_path: Path) -> None:
    """By the headers of RFC 8058, whole and in one line, and by a line at the end of both forms."""
    street = about(serve, "reminder")
    [mail] = sent(street, mailbox(tmp_path))
    link = LINKS.to_opt_out(1, START)
    raw = (tmp_path / "notices" / "in_1-reminder.eml").read_text().splitlines()
    assert f"List-Unsubscribe: <{link}>" in raw
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in raw
    assert text_of(mail).rstrip().splitlines()[-2:] == ["Receive fewer of these messages:", link]
    html = text_of(mail, "html")
    assert html.index(f'<a href="{link}"') > html.index("Just answer this message")


def test_what_the_mail_server_gets_is_one_line_too(serve: Serve, tmp_path: Path) -> None:
    """A folded or encoded address is none."""
    with smtp() as (box, url):
        sent(about(serve, "reminder"), mailbox(tmp_path, url))
    assert f"\r\nList-Unsubscribe: <{LINKS.to_opt_out(1, START)}>\r\n".encode() in box.taken[0]


@pytest.mark.parametrize(
    ("name", "links", "optional"),
    [("last_chance", LINKS, ("reminder",)), ("reminder", LINKS, ()), ("reminder", None, ("reminder",))],
    ids=["necessary", "the merchant finds it necessary", "no links of ours"],
)
def test_a_necessary_notice_offers_no_such_thing(
    serve: Serve, tmp_path: Path, name: str, links: Links | None, optional: tuple[str, ...]
) -> None:
    """Nor one of an installation that could not hear the answer."""
    street = about(serve, name, policy=replace(Policy.default(), optional=optional))
    [mail] = sent(street, mailbox(tmp_path), links)
    assert (mail["List-Unsubscribe"], mail["List-Unsubscribe-Post"]) == (None, None)
    assert "unsubscribe" not in (text_of(mail) + text_of(mail, "html")).lower()


def test_one_click_is_heeded_by_the_next_notice(serve: Serve, ask: Ask, engine: Engine, tmp_path: Path) -> None:
    """The link of a sent message is followed; reminders end with it, the last chance does not."""
    street = serve(Scripted([payment(decline=LOST)]))
    add_notice(engine, 1, name="reminder")
    [mail] = sent(street, mailbox(tmp_path))
    link = mail["List-Unsubscribe"].strip("<>")
    assert ask("POST", link.rpartition("/")[2], data=mail["List-Unsubscribe-Post"]).status_code == 200
    for name in ("second_reminder", "last_chance"):
        add_notice(engine, 1, name=name)
    kept = sent(street, mailbox(tmp_path), now=START + timedelta(minutes=5))
    assert {each["X-Dunning-Notice"] for each in kept} == {"reminder", "last_chance"}
    error = one(engine, "SELECT error FROM outbox WHERE name = 'second_reminder'")
    assert error == REASONS["opted_out"]


def test_a_template_of_the_merchants_own_may_leave_the_line_out(serve: Serve, tmp_path: Path) -> None:
    """The headers stay: they are the message's, not the template's."""
    (tmp_path / "notice.txt.j2").write_text("{{ text }}")
    box = replace(mailbox(tmp_path), letterhead=Letterhead(templates=tmp_path))
    [mail] = sent(about(serve, "reminder"), box)
    assert "unsubscribe" not in text_of(mail)
    assert mail["List-Unsubscribe"] == f"<{LINKS.to_opt_out(1, START)}>"
