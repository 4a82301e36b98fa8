"""What does a notice say? Facts in, one message out, in HTML and in plain text, in the customer's language.

The templates are skeletons without a language, the words stand in files of their own: see docs/notices.md. Of a
refusal nothing is told but what the customer can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from email.utils import parseaddr
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb
from typing import Any

from babel import Locale
from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateSyntaxError,
    select_autoescape,
)

from schedules import Card, Decline, Policy
from schedules.declines import DeclineClass, classify
from worker import locales
from worker.readings import Reading, is_intent
from worker.settings import Settings
from worker.words import NotWritten, Words, read_words

# Said once a case is over: nothing is to be paid any more, and no link leads anywhere.
AFTER = ("ended", "paused", "thanks", "expiring")
EXPIRING = "expiring"  # but the card can be changed
RENEWAL, RENEWAL_CARD = AHEAD = ("renewal", "renewal_card")  # said before a charge: nothing is owed
BUTTONS = {EXPIRING: "card", RENEWAL_CARD: "card", RENEWAL: "method"}  # the page on which each stands, too
CONSEQUENCES = {"cancel": "after_cancel", "pause": "after_pause"}
BRANDS = {
    "amex": "American Express",
    "cartes_bancaires": "Cartes Bancaires",
    "diners": "Diners Club",
    "discover": "Discover",
    "eftpos_au": "eftpos",
    "jcb": "JCB",
    "link": "Link",
    "mastercard": "Mastercard",
    "unionpay": "UnionPay",
    "visa": "Visa",
    "pix": "Pix",
    "upi": "UPI",
}
LIGHT, DARK = "#ffffff", "#000000"


@dataclass(frozen=True, slots=True)
class Letterhead:
    """How the merchant's messages look: name, where answers go, colour of the button, and a folder of own templates."""

    name: str = ""
    reply_to: str | None = None
    colour: str = "#1d4ed8"
    templates: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Letterhead:
        """Return what is set; without a name, the one in the sender's address."""
        name = settings.merchant_name or parseaddr(settings.mail_from)[0]
        return cls(name, settings.mail_reply_to, settings.merchant_colour, settings.templates)

    @property
    def ink(self) -> str:
        """Return the colour of words on ours: white or black, whichever stands out more (WCAG 2: 4.5 to 1 and up)."""
        red, green, blue = (_linear(int(self.colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        return LIGHT if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else DARK


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 - sRGB


@dataclass(frozen=True, slots=True)
class Bill:
    """One payment as a notice tells of it: what the provider shows, and what we plan.

    ``other_card``: a card was tried that the customer had not chosen for it. ``opt_out``: where the customer can
    choose to get the necessary notices only.
    """

    reading: Reading
    locale: str | None = None
    next_charge: date | None = None
    pay_by: date | None = None
    other_card: bool = False
    opt_out: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice in words. ``tag`` is its language; ``opt_out`` its link for those who want no more of the kind."""

    tag: str
    subject: str
    text: str
    html: str
    opt_out: str | None = None


def compose(
    name: str, bills: Sequence[Bill], policy: Policy, letterhead: Letterhead, wanted: str | None = None
) -> Letter:
    """Return a notice in the language of ``wanted``, else of its first payment; raise ``NotWritten`` if it cannot."""
    every = read_words(letterhead.templates)
    known = [tag for tag, words in every.items() if words.has(name)]
    if not known:
        msg = f"no language has words for a notice named {name}"
        raise NotWritten(msg)
    tag, locale = locales.choose(wanted or bills[0].locale, known)
    if tag not in known:
        msg = f"{locales.FALLBACK}.toml has no words for a notice named {name}"
        raise NotWritten(msg)
    told = _Teller(every[tag], locale, letterhead).told(name, bills, policy)
    text, html = (_rendered(letterhead, [f"{name}.{kind}.j2", f"notice.{kind}.j2"], told) for kind in ("txt", "html"))
    return Letter(tag, told["subject"], f"{text.strip()}\n", html, told["opt_out"])


def page(name: str, due: tuple[int, str] | None, letterhead: Letterhead, style: str, wanted: str | None) -> str:
    """Return a page behind a link, in the language that is wanted; with a button when an amount is ``due``.

    A page may have a button of its own.
    """
    every = read_words(letterhead.templates)
    tag, locale = locales.choose(wanted, every)
    texts, amount = every[tag].texts, locales.money(*due, locale) if due else ""
    told = {
        "lang": tag,
        "style": style,
        "shop": locales.name(letterhead.name),
        "button": texts["button"] if due else None,
        **{key: _filled(text, amount, letterhead) for key, text in texts["pages"][name].items()},
    }
    return _rendered(letterhead, ["page.html.j2"], told)


def _rendered(letterhead: Letterhead, files: list[str], told: Mapping[str, Any]) -> str:
    """Return the first of the templates that is there, filled in."""
    try:
        return _skeletons(letterhead.templates).select_template(files).render(told)
    except Exception as error:  # a template of the merchant's own may do anything
        raise NotWritten(_told_of(error)) from error


def _told_of(error: Exception) -> str:
    """Say what is wrong in which line of which template."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.message}"
    lines = [frame for frame in extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    where = f"{lines[-1].filename}, line {lines[-1].lineno}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


@lru_cache(maxsize=4)
def _skeletons(own: Path | None) -> Environment:
    """Return the templates; those of the merchant's folder stand before ours."""
    folders = [FileSystemLoader(own)] if own else []
    return Environment(
        loader=ChoiceLoader([*folders, PackageLoader("worker", "templates")]),
        undefined=StrictUndefined,
        autoescape=select_autoescape(("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True, slots=True)
class _Teller:
    """Puts facts into the words of one language."""

    words: Words
    locale: Locale
    letterhead: Letterhead

    def told(self, name: str, bills: Sequence[Bill], policy: Policy) -> dict[str, Any]:
        """Return what the templates may use; what is not to be said is None."""
        texts, shop, is_open = self.words.texts, self.letterhead, name not in (*AFTER, *AHEAD)
        notice, many = texts["notices"][name], len(bills) > 1
        amount = locales.in_a_row([self._amount(bill) for bill in bills], self.locale)
        advice = _advice_for(bills, policy)
        button = texts["button_confirm" if advice == "confirm" else "button"]
        if name in BUTTONS:
            button = texts["pages"][BUTTONS[name]]["button"]
        return {
            "lang": self.words.tag,
            "merchant": locales.name(shop.name),
            "colour": shop.colour,
            "ink": shop.ink,
            "subject": _filled(notice.get("subjects" if many else "subject", notice["subject"]), amount, shop),
            "greeting": texts["greeting"],
            "text": _filled(notice.get("texts" if many else "text", notice["text"]), amount, shop),
            "advice": texts["advice"][advice] if is_open else None,
            "bills": [self._bill(bill, button, name) for bill in bills],
            "by_answer": texts["by_answer"],
            "after": texts.get(_consequence(bills, policy)) if is_open else None,
            "other_card": texts["other_card"] if is_open and any(bill.other_card for bill in bills) else None,
            "paid": texts["paid"] if is_open else None,
            "help": texts["help"] if is_open or name in BUTTONS else None,
            "opt_out": bills[0].opt_out if name in policy.optional else None,
            "fewer": texts["fewer"],
        }

    def _amount(self, bill: Bill) -> str:
        return locales.money(bill.reading.amount_minor, bill.reading.currency, self.locale)

    def _bill(self, bill: Bill, button: str, name: str) -> dict[str, Any]:
        """Return the rows that tell of one payment, each a label and its value, and where something can be done."""
        texts, is_open = self.words.texts, name not in (*AFTER, *AHEAD)
        # What a charge to come will amount to, discounts and taxes included, is not known before it.
        rows = [("amount", self._amount(bill) if name not in AHEAD else None), ("product", self._product(bill))]
        if is_open or name in BUTTONS:
            rows.append(("method", self._method(bill.reading)))
        if is_open:
            rows += [("next_charge", self._day(bill.next_charge)), ("pay_by", self._day(bill.pay_by))]
        if name in AHEAD:
            rows.append(("renewal", self._day(bill.next_charge)))
        return {
            "facts": [(texts[label], value) for label, value in rows if value],
            "is_open": is_open or name in BUTTONS,
            "link": bill.reading.link if is_open or name in BUTTONS else None,
            "button": button,
        }

    def _product(self, bill: Bill) -> str | None:
        renewal: str | None = None if is_intent(bill.reading.payment_id) else self.words.texts["subscription"]
        return locales.name(bill.reading.product) if bill.reading.product else renewal

    def _method(self, reading: Reading) -> str | None:
        """Name the card that will be charged, else the one that was, by brand and last digits."""
        card = reading.card if reading.card.brand else reading.charged
        if card.brand is None:
            return None
        account = card.brand.endswith(("_debit", "_account"))
        method = BRANDS.get(card.brand.lower()) or self.words.texts["bank_account" if account else "card"]
        if not card.last4:
            return str(method)
        return str(self.words.texts["ending_in"].format(method=method, last4=card.last4))

    def _day(self, day: date | None) -> str | None:
        return locales.day(day, self.locale) if day else None


def _filled(text: str, amount: str, letterhead: Letterhead) -> str:
    return text.format(amount=amount, merchant=locales.name(letterhead.name))


def _advice_for(bills: Sequence[Bill], policy: Policy) -> str:
    """Return the key of what to do; where that differs between payments, what is true of all."""
    every = {_advice(bill, policy) for bill in bills}
    return every.pop() if len(every) == 1 else "check"


def _advice(bill: Bill, policy: Policy) -> str:
    """Return what the customer can do; of all cards that a bank refuses for good it is the same."""
    decline = bill.reading.decline
    verdict = classify(decline or Decline(), bill.reading.charged.brand, policy.overrides)
    if verdict.decline_class is DeclineClass.CUSTOMER_ACTION and verdict.cause == "authentication":
        return "confirm"
    if bill.next_charge:
        return "retry"
    if verdict.decline_class is DeclineClass.NEVER:
        return "pay" if verdict.cause == "consent" else "replace"
    return "check"


def _consequence(bills: Sequence[Bill], policy: Policy) -> str:
    """Return the key of what happens at the deadline, if anything: a one-off payment has no subscription to lose."""
    one_off = any(is_intent(bill.reading.payment_id) for bill in bills)
    return "" if one_off else CONSEQUENCES.get(policy.ending, "")


def names(policy: Policy) -> tuple[str, ...]:
    """Return the notices that a policy can send, those of its rival and its segments too."""
    return tuple(dict.fromkeys(name for each in policy.every for name in _names(each)))


def _names(policy: Policy) -> tuple[str, ...]:
    after = [name for name, ending in (("ended", "cancel"), ("paused", "pause")) if policy.ending == ending]
    return (
        *(rung.notice for rung in policy.ladder),
        "authentication",
        *(after if policy.notice_ended else ()),
        *(("thanks",) if policy.notice_thanks else ()),
        *((EXPIRING,) if policy.notice_expiring else ()),
        *(AHEAD if policy.prevent_notice else ()),
    )


def check(letterhead: Letterhead, policy: Policy, today: date) -> None:
    """Write every notice and page once; raise ``NotWritten`` naming file and reason where that fails.

    Reading the words has compared every language with English already, and the skeletons are the same for all.
    """
    if letterhead.templates and not letterhead.templates.is_dir():
        msg = f"DUNNING_TEMPLATES: {letterhead.templates} is no folder"
        raise NotWritten(msg)
    every = read_words(letterhead.templates)
    for name in names(policy):
        for bills in (sample(today, name), sample(today, name) * 2):
            compose(name, bills, policy, letterhead, locales.FALLBACK)
    for name in every[locales.FALLBACK].texts["pages"]:
        page(name, None, letterhead, "", locales.FALLBACK)


def sample(today: date, name: str) -> tuple[Bill, ...]:
    """Return a payment of nobody, for looking at a notice of this name."""
    confirms = name == "authentication"
    card = Card("sample", "visa", "credit", "US", 9, today.year + 2, "4242")
    unknown: Mapping[str, Any] = dict.fromkeys(("ended", "method_id", "charge_id", "email"))
    reading = Reading(
        payment_id="in_sample",
        customer_id="cus_sample",
        amount_minor=1999,
        currency="usd",
        card=card,
        charged=card,
        decline=Decline("authentication_required" if confirms else "insufficient_funds"),
        link="https://example.com/pay",
        in_flight=False,
        waits_for_customer=False,
        retried_by_provider=False,
        product="Gold",
        **unknown,
    )
    next_charge = None if confirms else today + timedelta(days=3)
    pay_by, opt_out = today + timedelta(days=14), "https://example.com/unsubscribe"
    return (Bill(reading, next_charge=next_charge, pay_by=pay_by, opt_out=opt_out),)
