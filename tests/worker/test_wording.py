"""Is every notice right in every language: complete, discreet, the same in HTML and in text, and good to read?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from schedules import Card, Decline, Policy
from schedules.declines import TABLE, DeclineClass, classify
from tests.worker.builders import invoice, reading
from worker.locales import ISOLATE, day, money
from worker.readings import reading_of
from worker.settings import Settings
from worker.wording import AFTER, AHEAD, Bill, Letter, Letterhead, compose, names, page
from worker.words import read_words

LANGUAGES = ("de", "en", "es", "fr", "it", "ja", "nl", "pt-BR", "zh-CN", "zh-TW")
WITHOUT_PLURAL = ("ja", "zh-CN", "zh-TW")
WITH_A_LINK = ("first", "authentication", "reminder", "second_reminder", "last_chance", "expiring", *AHEAD)
NOTICES = (*WITH_A_LINK, "ended", "paused", "thanks")
SHOP = Letterhead("Ada's Shop & Co")
TODAY, LAST = date(2026, 1, 15), date(2026, 2, 8)
CARD = Card("fp", "visa", "credit", "US", 9, 2029, "4242")
REFUSALS = {
    DeclineClass.RETRY_SOON: "processing_error",
    DeclineClass.RETRY_LATER: "insufficient_funds",
    DeclineClass.STALE_CREDENTIAL: "expired_card",
    DeclineClass.CUSTOMER_ACTION: "authentication_required",
    DeclineClass.MERCHANT_FIX: "testmode_decline",
    DeclineClass.NEVER: "stolen_card",
}
CURRENCIES = ("usd", "eur", "jpy", "kwd", "brl")
PRODUCTS = (
    None,
    "Gold",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "مكتبة الفجر <b>",
    "ספרייה & 100 %",
    "金星プラン",
)
# What no customer may read about a card, in any language, whatever the bank said.
SECRETS = {
    "de": ("gestohlen", "verloren", "betrug", "sperr", "abgelehnt", "deckung", "guthaben", "verdacht"),
    "en": ("stolen", "lost", "fraud", "block", "declin", "funds", "refus", "suspect", "risk"),
    "es": ("robad", "perdid", "fraude", "bloque", "rechaz", "fondos", "saldo", "sospech"),
    "fr": ("volé", "perdu", "fraud", "bloqu", "refus", "solde", "provision", "suspect"),
    "it": ("rubat", "smarrit", "pers", "frod", "blocc", "rifiut", "fondi", "saldo", "sospett"),
    "ja": ("盗難", "紛失", "不正", "停止され", "拒否", "残高", "限度額"),
    "nl": ("gestolen", "verloren", "fraude", "geblokk", "geweiger", "saldo", "verdacht"),
    "pt-BR": ("roubad", "perdid", "fraude", "bloque", "recus", "saldo", "limite", "suspeit"),
    "zh-CN": ("被盗", "挂失", "遗失", "欺诈", "冻结", "拒绝", "余额", "风险"),
    "zh-TW": ("被盜", "掛失", "遺失", "詐騙", "凍結", "拒絕", "餘額", "風險"),
}
ELEMENTS = {"html", "head", "meta", "title", "body", "div", "p", "h1", "table", "tr", "th", "td", "a"}
VOID = ("meta", "br", "hr")


class Page(HTMLParser):
    """What a mail program finds: elements with their attributes, and words; every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note words; the title is not on the page."""
        self.words += data if self.open[-1:] != ["title"] else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def bill(**changes: Any) -> Bill:
    """A renewal with everything that a notice can tell."""
    told = {"card": CARD, "charged": CARD, "product": "Gold", **changes}
    return Bill(reading(**told), next_charge=TODAY, pay_by=LAST)


def letter(name: str, *bills: Bill, tag: str = "en", **policy: Any) -> Letter:
    """Return a notice of one shop."""
    return compose(name, bills or (bill(),), Policy(**policy), SHOP, tag)


def bills(tag: str, name: str) -> Iterator[tuple[Bill, ...]]:
    """Return one payment of every class of refusals, then two and three together, with names and money by chance."""
    roll = Random(f"{tag}{name}")
    singles = []
    for code in REFUSALS.values():
        changes: dict[str, Any] = {
            "currency": roll.choice(CURRENCIES),
            "amount_minor": roll.randrange(10**9),
            "product": roll.choice(PRODUCTS),
            "decline": Decline(code),
            "payment_id": roll.choice(("in_1", "pi_1")),
            "link": roll.choice((None, "https://pay.shop.example/pay/abc")),
        }
        other = replace(bill(**changes), other_card=roll.random() < 1 / 2)
        singles.append(replace(other, next_charge=roll.choice((None, TODAY))))
    yield from ((each,) for each in singles)
    yield tuple(singles[:2])
    yield tuple(singles[3:])


@pytest.mark.parametrize("name", NOTICES)
@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_notice_in_every_language_tells_the_same_in_both_forms(tag: str, name: str) -> None:
    """For every class of refusals, one payment and several: amount, product, card, days and link, and no hole."""
    for some in bills(tag, name):
        told = letter(name, *some, tag=tag, ending="cancel")
        html = Page(told.html)
        assert told.tag == tag
        for form in (told.text, html.words):
            for each in some:
                shown = each.reading
                amount = money(shown.amount_minor, shown.currency, Locale.parse(tag, sep="-"))
                assert (amount in form) is (name not in AHEAD)
                expected = [shown.product or "", *(("Visa", "4242") if name in AHEAD else ())]
                if name not in (*AFTER, *AHEAD):
                    expected += ["Visa", "4242", day(LAST, Locale.parse(tag, sep="-"))]
                assert not [fact for fact in expected if fact not in form]
            assert not [hole for hole in ("{", "}", "None", "Undefined", "amount") if hole in form]
            assert not [word for word in SECRETS[tag] if word in form.lower()]
        links = [each.reading.link for each in some if each.reading.link and name in WITH_A_LINK]
        assert [each["href"] for each in html.all("a")] == links
        assert [line for line in told.text.splitlines() if line.startswith("https://")] == links


@pytest.mark.parametrize("name", NOTICES)
@pytest.mark.parametrize("tag", LANGUAGES)
def test_the_html_is_good_for_screen_readers_and_loads_nothing(tag: str, name: str) -> None:
    """One heading, the language, cells with their labels, a size for phones; no picture, no script, no address."""
    html = letter(name, tag=tag).html
    found = Page(html)
    assert html.startswith("<!doctype html>")
    assert [each["lang"] for each in found.all("html")] == [tag]
    assert [len(found.all(each)) for each in ("h1", "title", "table")] == [1, 1, 1]
    assert {each["scope"] for each in found.all("th")} == {"row"}
    assert "width=device-width, initial-scale=1" in [each.get("content") for each in found.all("meta")]
    assert {each for each, _ in found.found} <= ELEMENTS
    assert html.count("http") == len(found.all("a")) == (name in WITH_A_LINK)
    assert "url(" not in html
    assert "16px" in html


@pytest.mark.parametrize("tag", LANGUAGES)
def test_a_language_has_every_notice_with_its_plural(tag: str) -> None:
    """No sentence of ours is told in another language; where there is no plural there are no words for it."""
    notices = read_words(None)[tag].texts["notices"]
    assert set(notices) == set(NOTICES)
    for name, texts in notices.items():
        plural = tag not in WITHOUT_PLURAL and name not in (*AFTER, *AHEAD)
        assert set(texts) == {"subject", "text"} | ({"subjects", "texts"} if plural else set())
    assert set(read_words(None)) == set(LANGUAGES)


@pytest.mark.parametrize("tag", LANGUAGES)
def test_no_language_repeats_the_words_of_another(tag: str) -> None:
    """What was copied and never translated shows."""
    every = {name: words.texts["notices"] for name, words in read_words(None).items()}
    for name in NOTICES:
        same = [other for other in LANGUAGES if every[other][name]["text"] == every[tag][name]["text"]]
        assert same == [tag]


def discreet() -> list[str]:
    """Return the codes with which banks refuse a card for good, whatever they mean."""
    return [
        code
        for (source, code), row in TABLE.items()
        if (source, row.decline_class) == ("stripe_card", DeclineClass.NEVER) and row.cause != "consent"
    ]


@pytest.mark.parametrize("tag", LANGUAGES)
def test_cards_that_are_refused_for_good_are_all_spoken_of_alike(tag: str) -> None:
    """Lost, stolen, closed or suspected: whoever reads the message cannot tell which."""
    said = {letter("first", bill(decline=Decline(code)), tag=tag).html for code in discreet()}
    blocked = Decline("fraudulent", outcome_type="blocked", outcome_reason="highest_risk_level")
    assert {"lost_card", "stolen_card", "pickup_card"} <= set(discreet())
    assert said | {letter("first", bill(decline=blocked), tag=tag).html} == said
    assert len(said) == 1


@pytest.mark.parametrize(
    ("code", "charged_again", "said"),
    [
        ("insufficient_funds", True, "We will try again by ourselves."),
        ("insufficient_funds", False, "Please check your payment details"),
        ("expired_card", False, "Please check your payment details"),
        ("authentication_required", False, "Confirming takes about a minute."),
        ("stolen_card", False, "Please choose another way to pay."),
        ("revocation_of_authorization", False, "You can pay whenever it suits you."),
        (None, False, "Please check your payment details"),
    ],
)
def test_the_advice_is_what_helps(code: str | None, charged_again: bool, said: str) -> None:
    """By the class of the refusal, and by whether a charge is planned; its day is told."""
    planned = replace(bill(decline=Decline(code)), next_charge=TODAY if charged_again else None)
    text = letter("first", planned).text
    assert said in text
    assert ("Next attempt: January 15, 2026" in text) is charged_again


def test_two_payments_that_need_different_things_get_advice_that_fits_both() -> None:
    """Nobody is asked to confirm what has no such page."""
    text = letter("reminder", bill(decline=Decline("authentication_required")), bill(decline=Decline("lost_card"))).text
    assert "Please check your payment details, or choose another way to pay." in text


@pytest.mark.parametrize(
    ("ending", "said"), [("leave", None), ("cancel", "will end"), ("pause", "will be paused"), ("release", None)]
)
def test_a_notice_says_what_happens_at_the_deadline(ending: str, said: str | None) -> None:
    """Only what the policy will do; to a one-off payment nothing happens."""
    texts = [letter("first", bill(payment_id=each), ending=ending).text for each in ("in_1", "pi_1")]
    assert ["After that date" in text for text in texts] == [said is not None, False]
    assert said is None or said in texts[0]


@pytest.mark.parametrize(
    ("card", "named"),
    [
        (CARD, "Payment method: Visa ending in 4242"),
        (replace(CARD, last4=None), "Payment method: Visa"),
        (replace(CARD, brand="amex"), "Payment method: American Express ending in 4242"),
        (replace(CARD, brand="nonesuch"), "Payment method: Card ending in 4242"),
        (replace(CARD, brand="sepa_debit"), "Payment method: Bank account ending in 4242"),
        (replace(CARD, brand="us_bank_account"), "Payment method: Bank account ending in 4242"),
        (Card(), None),
    ],
)
def test_the_card_is_named_by_brand_and_last_digits(card: Card, named: str | None) -> None:
    """As on the card itself; of what is not known nothing is said."""
    lines = letter("first", bill(card=card, charged=Card())).text.splitlines()
    assert [line for line in lines if line.startswith("Payment method")] == ([named] if named else [])


def test_a_renewal_without_a_product_is_a_subscription_and_a_one_off_payment_is_not() -> None:
    """The customer should know what it is about."""
    texts = [letter("first", bill(payment_id=each, product=None)).text for each in ("in_1", "pi_1")]
    assert ["For: Your subscription" in text for text in texts] == [True, False]


@pytest.mark.parametrize(
    ("lines", "product"),
    [
        (["1 \N{MULTIPLICATION SIGN} Gold (at $19.99 / month)"], "Gold"),
        (["3 seats (at €5.00 / month)", "1 \N{MULTIPLICATION SIGN} Gold (at €9.00 / month)"], "3 seats, Gold"),
        (["1 month of Gold", "1 month of Gold"], "1 month of Gold"),
        ([None, 7, " ", {}, "Gold (new)"], "Gold (new)"),
        ([], None),
    ],
)
def test_the_product_is_what_the_lines_of_the_invoice_are_for(lines: list[Any], product: str | None) -> None:
    """Without number and price, each once."""
    shown = {"data": [{"description": each} for each in lines]}
    assert reading_of(invoice(lines=shown)).product == product


@pytest.mark.parametrize("lines", [None, "lines", {"data": None}, {"data": {}}, {"data": ["line", {}]}, [{}]])
def test_an_invoice_without_usual_lines_is_read_all_the_same(lines: Any) -> None:
    """What it is for is then not known."""
    assert reading_of(invoice(lines=lines)).product is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_name_breaks_a_notice(product: str, shop: str) -> None:
    """Whatever a product or a shop is called, the message has its one link, its one heading and its lines."""
    told = compose("first", (bill(product=product),), Policy(), Letterhead(shop), "en")
    found = Page(told.html)
    assert (len(found.all("a")), len(found.all("h1"))) == (1, 1)
    assert told.text.count("\nAmount: ") == 1
    assert told.html.encode()


def test_a_name_from_right_to_left_stays_within_its_own_bounds() -> None:
    """It is isolated in HTML and text; what it brings of such marks itself is dropped, others have none."""
    told = letter("first", bill(product="\u202eمكتبة"))
    assert f"For: {ISOLATE}مكتبة\u2069" in told.text
    assert f"{ISOLATE}مكتبة\u2069" in told.html
    assert "\u202e" not in told.html
    assert ISOLATE not in letter("first").text


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_words_on_the_button_stand_out_on_every_colour(colour: tuple[int, int, int]) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks of text."""

    def luminance(channels: tuple[int, ...]) -> float:
        parts = [each / 255 for each in channels]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)

    ink = Letterhead(colour="#{:02x}{:02x}{:02x}".format(*colour)).ink
    darker, lighter = sorted((luminance(colour), luminance(tuple(bytes.fromhex(ink[1:])))))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_the_letterhead_comes_from_the_settings() -> None:
    """Name, answers, colour and folder; a name in the sender's address will do."""
    full = {"merchant_name": "Ada", "mail_reply_to": "help@shop.example", "merchant_colour": "#aa5500"}
    assert Letterhead.from_settings(Settings.model_validate({**full, "templates": "own"})) == Letterhead(
        "Ada", "help@shop.example", "#aa5500", Path("own")
    )
    named = Settings.model_validate({"mail_from": "Ada's Shop <billing@shop.example>"})
    assert Letterhead.from_settings(named).name == "Ada's Shop"


def test_the_merchant_shows_in_name_and_colour() -> None:
    """Where the customer looks first, and on the button."""
    html = compose("first", (bill(),), Policy(), Letterhead("Ada's Shop", colour="#ffd400"), "en").html
    assert "Ada&#39;s Shop" in html
    assert "background:#ffd400;color:#000000" in html


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_page_is_there_in_every_language(tag: str) -> None:
    """With the amount where something is due, and a button there, to change a card, and to choose fewer messages."""
    pages = read_words(None)["en"].texts["pages"]
    shown = {name: page(name, (1999, "brl") if name == "due" else None, SHOP, "", tag) for name in pages}
    assert all(f'<html lang="{tag}">' in html for html in shown.values())
    assert money(1999, "brl", Locale.parse(tag, sep="-")) in shown["due"]
    assert [name for name, html in shown.items() if "<button>" in html] == ["due", "card", "method", "unsubscribe"]
    assert not [html for html in shown.values() if "{" in html]


def test_the_policy_says_which_notices_there_are() -> None:
    """Those of the ladder, the confirmation, and the last words that are wanted."""
    ladder = ("first", "reminder", "second_reminder", "last_chance", "authentication")
    assert names(Policy()) == ladder
    assert names(Policy(ending="cancel", notice_thanks=True)) == (*ladder, "ended", "thanks")
    assert names(Policy(notice_expiring=True)) == (*ladder, "expiring")
    assert names(Policy(ending="pause", notice_ended=False)) == ladder


def test_the_examples_of_this_file_are_of_every_class() -> None:
    """Each code means what it stands for here."""
    assert {classify(Decline(code), "visa").decline_class for code in REFUSALS.values()} == set(DeclineClass)
    assert all(classify(Decline(code), "visa").decline_class is kind for kind, code in REFUSALS.items())
