"""Does every customer get the most fitting language, whatever their locale says?"""

from __future__ import annotations

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from worker.locales import LONGEST_NAME, choose, money, name
from worker.words import read_words

TAGS = tuple(read_words(None))


@pytest.mark.parametrize(
    ("wanted", "tag", "locale"),
    [
        ("de", "de", "de"),
        ("de-AT", "de", "de_AT"),
        ("de_CH", "de", "de_CH"),
        ("en-GB", "en", "en_GB"),
        ("EN-us", "en", "en_US"),
        ("pt", "pt-BR", "pt"),
        ("pt-PT", "pt-BR", "pt_PT"),
        ("zh", "zh-CN", "zh"),
        ("zh-Hant", "zh-TW", "zh_Hant"),
        ("zh-HK", "zh-TW", "zh_Hant_HK"),
        ("zh-Hans-SG", "zh-CN", "zh_Hans_SG"),
        ("zh_TW", "zh-TW", "zh_Hant_TW"),
        ("fr-XX-nonsense", "fr", "fr"),
        ("ja-JP-u-ca-japanese", "ja", "ja_JP"),
        ("pl", "en", "en"),
        ("ar-EG", "en", "en"),
        ("", "en", "en"),
        (None, "en", "en"),
        ("../../etc/passwd", "en", "en"),
        ("C.UTF-8", "en", "en"),
    ],
)
def test_the_language_is_the_most_like_the_customers_own(wanted: str | None, tag: str, locale: str) -> None:
    """The script counts more than the country; money and days are written as in the customer's country."""
    assert choose(wanted, TAGS) == (tag, Locale.parse(locale))


@given(st.text() | st.from_regex(r"[a-zA-Z]{1,8}([-_][a-zA-Z0-9]{1,8}){0,6}"))
def test_no_locale_is_an_error(wanted: str) -> None:
    """There is always a language, and money can be written in its locale."""
    tag, locale = choose(wanted, TAGS)
    assert tag in TAGS
    assert "1" in money(1999, "usd", locale)


def test_a_language_of_the_merchants_own_is_chosen_before_a_similar_one() -> None:
    """European Portuguese, once there is a file for it."""
    assert choose("pt-PT", (*TAGS, "pt-PT"))[0] == "pt-PT"
    assert choose("pt", (*TAGS, "pt-PT"))[0] == "pt-BR"


@pytest.mark.parametrize(
    ("given_name", "told"),
    [
        ("Gold", "Gold"),
        ("  Gold\r\nBcc: all@b.example\t", "Gold Bcc: all@b.example"),
        ("a\u2028b", "a b"),
        ("\ud800x\x00", "x"),
        ("👩‍👩‍👧 Plan", "👩‍👩‍👧 Plan"),
        ("x" * 999, "x" * (LONGEST_NAME - 1) + "…"),
    ],
)
def test_a_name_is_one_short_line(given_name: str, told: str) -> None:
    """Whatever others have written into it."""
    assert name(given_name) == told
