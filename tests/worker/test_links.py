"""Does a signed link lead its one customer to the provider, and nobody else anywhere?"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import Engine, update

from schedules import Decline
from tests.gateway.wire import served
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    LOST,
    START,
    add_case,
    add_notice,
    event,
    everything,
    mail_in,
    opened,
    payment,
    text_of,
)
from worker import notices
from worker.app import make_engine
from worker.clock import set_clock
from worker.leases import claim_due
from worker.links import BadLink, Links, OldLink
from worker.mail import Mailbox
from worker.models import cases, outbox
from worker.settings import Settings, load_settings
from worker.stripe_gateway import Refused, StripeGateway
from worker.web.webhooks import make_web

SECRET, NEXT = "canary" * 6, "next-canary" * 4
DEADLINE = START + 28 * DAY
LINKS = Links("https://pay.shop.example", (SECRET.encode(),))
PROOF = Decline("authentication_required", None, None, None, "issuer_declined")
HOSTED = "https://invoice.stripe.example/i/1"
PORTAL = "https://billing.stripe.example/p/session/"


@dataclass
class Shop:
    """A merchant's installation: its bank, its pages, and the clock of both."""

    bank: Bench
    url: str
    clock: Path

    def at(self, now: datetime) -> None:
        """Step the clock."""
        self.bank.instant[0] = now
        set_clock(self.clock, now)

    def ask(self, method: str = "GET", token: str | None = None, case_id: int = 1) -> requests.Response:
        """Open a link as a browser would, without following where it leads."""
        address = f"{self.url}/pay/{token_of(case_id) if token is None else token}"
        return requests.request(method, address, allow_redirects=False, timeout=20)

    @property
    def requests(self) -> dict[str, int]:
        """Return how many requests the bank has had, by method."""
        found: dict[str, int] = self.bank.summary["requests"]
        return found


Open = Callable[..., Shop]


def token_of(case_id: int = 1, links: Links = LINKS, deadline: datetime = DEADLINE) -> str:
    """Return what stands in the link after the last slash."""
    return links.to_pay(case_id, deadline).rpartition("/")[2]


@pytest.fixture
def shop(engine: Engine, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return a function that opens an installation with one case, at the start."""
    with ExitStack() as stack:

        def start(world: Scripted | None = None, database: Engine = engine, **changes: Any) -> Shop:
            bank = serve(world)
            opened(engine, bank_payment(world))
            chosen: dict[str, Any] = {
                "public_url": LINKS.base,
                "link_secret": (SecretStr(SECRET), SecretStr(NEXT)),
                "mail_from": "Ada's Shop & Co <billing@shop.example>",
                "mode": "live",
                **changes,
            }
            web = make_web(Settings(**chosen), database, lambda: bank.desk(bank.instant[0]).gateway)
            monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
            load_settings.cache_clear()
            found = Shop(bank, stack.enter_context(served(web)), tmp_path / "clock")
            found.at(START)
            return found

        yield start


def bank_payment(world: Scripted | None) -> Any:
    """Return the renewal that failed in a world."""
    return (world or Scripted()).payments[0]


def change(engine: Engine, **values: Any) -> None:
    """Overwrite columns of the case."""
    with engine.begin() as db:
        db.execute(update(cases).values(**values))


# Tokens


def test_a_token_opens_its_own_case_until_its_last_second() -> None:
    """It gives the number back a second before, and is old from that second on."""
    until = DEADLINE + DAY
    token = LINKS.to_pay(2**40, DEADLINE, after=DAY).rpartition("/")[2]
    assert LINKS.case_of(token, until - DAY / 86400) == 2**40
    with pytest.raises(OldLink):
        LINKS.case_of(token, until)


def test_a_link_is_short_and_needs_no_quoting() -> None:
    """It survives being typed, copied and wrapped by a mail program."""
    token = token_of()
    assert len(token) == 64
    assert token.replace("-", "a").replace("_", "a").isalnum()


def test_every_changed_character_makes_a_token_worthless() -> None:
    """There is no second spelling, no other case and no later date to be had."""
    token = token_of()
    for place, letter in enumerate(token):
        other = token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :]
        with pytest.raises(BadLink):
            LINKS.case_of(other, START)


@pytest.mark.parametrize(
    "token", ["", "x", "é" * 64, "=" * 64, "A" * 64, "A" * 63, "A" * 65, " " * 64, "A" * 9999, "\0" * 64, "../" * 21]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever it is, it is a bad link and no other error."""
    with pytest.raises(BadLink):
        LINKS.case_of(token, START)
    with pytest.raises(BadLink):
        LINKS.case_of(token_of()[:32] + token, START)


def test_secrets_are_rolled_without_breaking_links_that_are_out() -> None:
    """The first of the list signs, all of it verify, and what is no longer in it opens nothing."""
    rolling = replace(LINKS, secrets=(NEXT.encode(), SECRET.encode()))
    rolled = replace(LINKS, secrets=(NEXT.encode(),))
    assert rolling.case_of(token_of(), START) == 1
    assert rolled.case_of(token_of(links=rolling), START) == 1
    with pytest.raises(BadLink):
        rolled.case_of(token_of(), START)
    with pytest.raises(BadLink):
        LINKS.case_of(token_of(links=rolled), START)


def test_links_do_not_show_their_secrets() -> None:
    """What is printed by accident opens nothing."""
    assert "canary" not in repr(LINKS)


@pytest.mark.parametrize("missing", ["public_url", "link_secret"])
def test_without_address_or_secret_there_are_no_links(missing: str) -> None:
    """Half of it is none of it."""
    both: dict[str, Any] = {"public_url": LINKS.base, "link_secret": (SecretStr(SECRET),)}
    assert Links.from_settings(Settings(**both)) == LINKS
    del both[missing]
    assert Links.from_settings(Settings(**both)) is None


# Pages


class Page(HTMLParser):
    """What a screen reader would find: tags in order, and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.words = list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Note a tag."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Note words; the style is none."""
        self.words += data if self.tags[-1:] != ["style"] else ""


def test_the_page_tells_shop_and_amount_and_has_one_button(shop: Open) -> None:
    """For a phone and for a screen reader: one heading, one button, no script; nothing about the person."""
    answer = shop().ask()
    page = Page(answer.text)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Ada's Shop & Co" in page.words
    assert "$19.99" in page.words
    assert [page.tags.count(tag) for tag in ("h1", "button", "form", "main", "title", "script")] == [1, 1, 1, 1, 1, 0]
    assert '<html lang="en">' in answer.text
    assert 'name="viewport"' in answer.text
    for private in ("customer.example", "cus_1", "in_1", "sub_1", "mastercard", "New_York", "canary", "@"):
        assert private not in answer.text


def test_the_pages_speak_the_customers_language_and_wear_the_merchants_colour(shop: Open, engine: Engine) -> None:
    """The case knows the language; where no case is known, the browser does. The style is the only one allowed."""
    street = shop(merchant_name="Åsa", merchant_colour="#ffd400")
    change(engine, locale="pt-PT")
    answer = street.ask()
    assert ('<html lang="pt-BR">' in answer.text, "19,99\xa0US$" in answer.text) == (True, True)
    assert "background: #ffd400; color: #000000" in answer.text
    assert "Åsa" in answer.text
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    headers = {"Accept-Language": "zh-HK,en;q=0.5"}
    thanks = requests.get(f"{street.url}/pay/thanks", headers=headers, timeout=20)
    assert "謝謝您" in thanks.text


def test_a_broken_template_of_the_merchants_own_keeps_no_customer_from_paying(
    shop: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Our page is shown instead, in the merchant's colour, and the log tells why."""
    (tmp_path / "page.html.j2").write_text("{{ tilte }}")
    answer = shop(templates=tmp_path, merchant_colour="#ffd400").ask()
    assert (answer.status_code, "Your payment of $19.99" in answer.text) == (200, True)
    assert "#ffd400" in answer.text
    assert "'tilte' is undefined" in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_a_link_changes_nothing_and_asks_nobody(shop: Open, engine: Engine, method: str) -> None:
    """A mail scanner that opens it twice finds a page; bank and database are as before."""
    street = shop()
    before, asked = everything(engine), street.requests
    assert [street.ask(method).status_code for _ in range(2)] == [200, 200]
    assert (everything(engine), street.requests) == (before, asked)


def test_the_button_leads_to_a_fresh_portal_session_each_time(shop: Open, engine: Engine) -> None:
    """The bank is asked for the session, nothing else there is written, and we write nothing either."""
    street = shop()
    before = everything(engine)
    answers = [street.ask("POST") for _ in range(2)]
    where = [answer.headers["Location"] for answer in answers]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert all(each.startswith(PORTAL) for each in where)
    assert where[0] != where[1]
    assert street.bank.summary["writes"] == 2
    assert street.bank.ledger == []
    assert everything(engine) == before


def test_observe_mode_leads_to_the_hosted_page_and_writes_nothing(shop: Open) -> None:
    """A portal session is a write."""
    street = shop(mode="observe")
    answer = street.ask("POST")
    assert (answer.status_code, answer.headers["Location"]) == (303, HOSTED)
    assert street.bank.summary["writes"] == 0


def test_a_portal_that_the_provider_refuses_leads_to_the_hosted_page(shop: Open, engine: Engine) -> None:
    """Here it knows no such customer; an account whose portal is not set up answers with the same kind of 400."""
    street = shop()
    change(engine, customer_id="cus_gone")
    answer = street.ask("POST")
    assert (answer.status_code, answer.headers["Location"]) == (303, HOSTED)


def test_a_bank_that_wants_to_see_the_customer_is_served_on_the_hosted_page(shop: Open) -> None:
    """Another card would not prove this payment."""
    answer = shop(Scripted([payment(decline=PROOF)])).ask("POST")
    assert answer.headers["Location"] == HOSTED


def test_with_neither_portal_nor_hosted_page_the_customer_is_asked_to_answer(shop: Open) -> None:
    """Kindly, and without a button that leads nowhere."""
    street = shop(mode="observe")
    street.bank.shown["invoice"] = {"hosted_invoice_url": None}
    answer = street.ask("POST")
    assert (answer.status_code, "Please answer our message" in answer.text) == (200, True)
    assert "<button" not in answer.text


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "ended",
    [{"ended": "paid"}, {"state": "recovered", "closed_at": START, "due_at": None}],
    ids=["not handled yet", "closed"],
)
def test_of_an_ended_case_nothing_is_due_any_more(shop: Open, engine: Engine, method: str, ended: Any) -> None:
    """No amount, no button, no request to the bank."""
    street = shop()
    change(engine, **ended)
    asked = street.requests
    answer = street.ask(method)
    assert (answer.status_code, "Nothing is due here any more" in answer.text) == (200, True)
    assert "<button" not in answer.text
    assert "19.99" not in answer.text
    assert street.requests == asked


def test_of_a_paid_case_the_card_can_be_changed_while_it_is_about_to_expire(shop: Open, engine: Engine) -> None:
    """The button leads to the portal; in observe mode, which makes no session, the customer is asked to answer."""
    old = {"exp_month": START.month, "exp_year": START.year}
    street = shop()
    change(engine, state="recovered", closed_at=START, due_at=None, card=old)
    shown, led = street.ask(), street.ask("POST")
    assert ("Your card expires soon" in shown.text, "Update the card</button>" in shown.text) == (True, True)
    assert (led.status_code, led.headers["Location"].startswith(PORTAL)) == (303, True)
    assert "Please answer our message" in shop(mode="observe").ask("POST").text


def test_an_invoice_paid_a_moment_ago_is_not_due_although_no_event_has_come(shop: Open) -> None:
    """The bank is read before the customer is sent there."""
    street = shop()
    street.bank.charge_elsewhere(START)
    answer = street.ask("POST")
    assert (answer.status_code, "Nothing is due here any more" in answer.text) == (200, True)


def broken(token: str) -> list[str]:
    """Return what may become of a token on its way, or in other hands."""
    stranger = replace(LINKS, secrets=(b"another" * 6,))
    return [token[:-1], token[:32], token + "A", token[::-1], token_of(links=stranger), token_of(99), "", "a/b", "%00"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_link_that_is_forged_cut_or_of_no_case_learns_nothing(shop: Open, method: str) -> None:
    """All of them get the same page, whatever was wrong."""
    street = shop()
    asked = street.requests
    answers = [street.ask(method, token) for token in broken(token_of())]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert "This link cannot be used" in answers[0].text
    assert "19.99" not in answers[0].text
    assert street.requests == asked


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_old_link_is_gone(shop: Open, method: str) -> None:
    """Some days after the deadline in business time; a day before, it still opens."""
    street = shop()
    street.at(DEADLINE + 13 * DAY)
    assert street.ask(method).status_code != 410
    street.at(DEADLINE + 14 * DAY)
    answer = street.ask(method)
    assert (answer.status_code, "no longer valid" in answer.text) == (410, True)
    assert "19.99" not in answer.text


def test_each_link_opens_its_own_case_only(shop: Open, engine: Engine) -> None:
    """Two cases of one customer: two amounts on two pages."""
    street = shop()
    second = add_case(engine, payment_id="in_2", amount_minor=500)
    assert ["$19.99" in street.ask(case_id=number).text for number in (1, second)] == [True, False]
    assert "$5.00" in street.ask(case_id=second).text


def test_every_answer_stays_out_of_caches_search_engines_frames_and_referrers(shop: Open) -> None:
    """Pages, errors and redirects alike; the policy allows the page's own style and nothing else."""
    street = shop()
    for answer in (street.ask(), street.ask("POST"), street.ask(token="x"), street.ask(token="thanks")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Robots-Tag"] == "noindex"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy


def test_a_customer_who_comes_back_is_thanked(shop: Open) -> None:
    """The provider is told an address without the token."""
    answer = shop().ask(token="thanks")
    assert (answer.status_code, "Thank you" in answer.text) == (200, True)


def test_other_methods_are_not_served(shop: Open) -> None:
    """A link is opened or followed."""
    assert {shop().ask(method).status_code for method in ("PUT", "DELETE")} == {405}


def test_a_provider_that_does_not_answer_is_tried_again_later(shop: Open) -> None:
    """The customer is told so, and programs are told when."""
    street = shop()
    street.bank.port = 9
    answer = street.ask("POST")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "try again" in answer.text


def test_a_database_that_does_not_answer_is_a_page_too(shop: Open) -> None:
    """No trace of it is shown."""
    nowhere = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    answer = shop(database=nowhere).ask()
    nowhere.dispose()
    assert (answer.status_code, "try again" in answer.text) == (503, True)


def test_an_installation_without_a_key_asks_for_an_answer(engine: Engine, shop: Open) -> None:
    """Nothing can be read, and trying again would not help."""
    street = shop()

    def no_key() -> StripeGateway:
        raise Refused

    both: dict[str, Any] = {"public_url": LINKS.base, "link_secret": (SecretStr(SECRET),)}
    with served(make_web(Settings(**both), engine, no_key)) as url:
        assert "Please answer" in replace(street, url=url).ask("POST").text


def test_without_the_settings_there_are_no_pages(shop: Open) -> None:
    """The address is as unknown as any other."""
    assert shop(link_secret=()).ask().status_code == 404


def test_neither_token_nor_secret_nor_address_gets_into_the_logs(
    shop: Open, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    """Opened, followed, refused by the portal, forged and old: whoever reads the logs can follow no link."""
    street = shop()
    for method in ("GET", "POST"):
        street.ask(method)
        street.ask(method, token_of()[:-1])
    change(engine, customer_id="cus_gone")
    street.ask("POST")
    street.at(DEADLINE + 20 * DAY)
    street.ask("POST")
    out = "".join(capfd.readouterr()) + caplog.text
    assert "link without portal" in out
    for canary in ("canary", token_of()[:32], "customer.example", PORTAL):
        assert canary not in out


# Notices


def letters(street: Bench, folder: Path) -> list[str]:
    """Deliver what is due; return the texts that were sent."""
    desk = replace(street.desk(START), links=LINKS)
    with street.engine.begin() as db:
        due = claim_due(db, outbox, START, 10, 180)
    for number, token in due:
        notices.deliver(desk, Mailbox("billing@shop.example", folder), number, UUID(token))
    return [text_of(mail_in(file)) for file in sorted(folder.glob("*.eml"))]


def test_each_invoice_of_a_notice_has_its_own_link(serve: Serve, engine: Engine, tmp_path: Path) -> None:
    """Two cases in one message: two links of ours, valid past the deadline of each, and none of the provider's."""
    second = payment(2, customer_id="cus_1", decline=LOST)
    street = serve(Scripted([payment(decline=LOST), second]))
    numbers = [opened(engine, each) for each in (payment(decline=LOST), second)]
    first = add_notice(engine, numbers[0])
    add_notice(engine, numbers[1], merged_into=first, due_at=None)
    [text] = letters(street, tmp_path)
    assert all(LINKS.to_pay(number, DEADLINE) in text for number in numbers)
    assert "invoice.stripe.example" not in text


def test_the_link_of_a_notice_can_be_followed(shop: Open, tmp_path: Path, engine: Engine) -> None:
    """What was sent is what the pages take."""
    street = shop()
    add_notice(engine, 1)
    [text] = letters(street.bank, tmp_path / "notices")
    token = text.partition(f"{LINKS.base}/pay/")[2].split()[0]
    assert street.ask("POST", token).headers["Location"].startswith(PORTAL)


def test_webhooks_are_taken_beside_the_pages(shop: Open) -> None:
    """The pages stand under an address of their own."""
    answer = requests.post(f"{shop().url}/webhooks/stripe", data=json.dumps(event()), timeout=20)
    assert answer.status_code == 400
