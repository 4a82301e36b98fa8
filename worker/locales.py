"""Which language does a customer read, and how are money and days written in it? Nothing here ever fails.

A customer's locale comes from outside and may be anything. The language is the one of ours that is most like it, else
English; amounts and days are written as in the customer's own country where it speaks that language.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.dates import format_date
from babel.lists import format_list
from babel.numbers import format_currency, get_currency_precision

FALLBACK = "en"
LONGEST_TAG = 35
LONGEST_NAME = 120
SAME_SCRIPT = 3  # language and script: the customer can read it
ISOLATE, END = "\u2068", "\u2069"
TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def choose(wanted: str | None, tags: Collection[str]) -> tuple[str, Locale]:
    """Return the one of ``tags`` that serves a customer best, and the locale in which to write money and days."""
    theirs = parse(wanted)
    if theirs is None:
        return FALLBACK, Locale(FALLBACK)
    best = max(sorted(tags), key=lambda tag: _likeness(theirs, tag))
    likeness = _likeness(theirs, best)
    if not likeness:
        return FALLBACK, Locale(FALLBACK)
    return best, theirs if likeness >= SAME_SCRIPT else Locale.parse(best, sep="-")


@lru_cache(maxsize=1024)
def parse(wanted: str | None) -> Locale | None:
    """Return the locale that a text names, without the ends that nobody knows; None when it names none."""
    parts = (wanted or "")[:LONGEST_TAG].replace("_", "-").split("-")
    for end in range(len(parts), 0, -1):
        try:
            return Locale.parse("_".join(parts[:end]))
        except (ValueError, UnknownLocaleError):
            continue
    return None


def _likeness(theirs: Locale, tag: str) -> int:
    """Return 0 for another language; more for the same one, in the same script, in the same country."""
    ours = Locale.parse(tag, sep="-")
    if ours.language != theirs.language:
        return 0
    (script, country), (our_script, our_country) = _usual(theirs), _usual(ours)
    return 1 + 2 * (script == our_script) + (country == our_country)


def _usual(locale: Locale) -> tuple[str | None, str | None]:
    """Return script and country, the most likely ones where the locale names none."""
    likely = get_global("likely_subtags")
    names = f"{locale.language}_{locale.script}", f"{locale.language}_{locale.territory}", locale.language
    found = next((Locale.parse(likely[name]) for name in names if name in likely), locale)
    return locale.script or found.script, locale.territory or found.territory


def money(amount_minor: int, currency: str, locale: Locale | str = FALLBACK) -> str:
    """Return an amount of minor units as people write it; a yen has no minor unit, a dinar has a thousand."""
    return format_currency(decimal(amount_minor, currency), currency.upper(), locale=locale)


def decimal(amount_minor: int, currency: str) -> Decimal:
    """Return an amount of minor units in units of its currency, as exact as it is."""
    return Decimal(amount_minor).scaleb(-_digits(currency.upper()))


@cache
def _digits(currency: str) -> int:
    return int(get_currency_precision(currency))


def day(at: date, locale: Locale) -> str:
    """Return a day with its month in words."""
    return format_date(at, "long", locale=locale)


def in_a_row(texts: Sequence[str], locale: Locale) -> str:
    """Return texts as a list in a sentence: the last one after an *and*."""
    return format_list(texts, locale=locale)


def name(text: str) -> str:
    """Return a name that others have chosen, on one line and not too long, so that it cannot turn a sentence round.

    Whatever is written from right to left stands between marks that keep its direction to itself.
    """
    kept = (each for each in text if unicodedata.category(each) != "Cs" and each not in TURNS)
    told = " ".join("".join(" " if unicodedata.category(each) == "Cc" else each for each in kept).split())
    told = told if len(told) <= LONGEST_NAME else f"{told[: LONGEST_NAME - 1]}…"
    from_right = any(unicodedata.bidirectional(each) in ("R", "AL") for each in told)
    return f"{ISOLATE}{told}{END}" if from_right else told
