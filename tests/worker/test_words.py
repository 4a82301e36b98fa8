"""Does a merchant's own folder take effect file by file, and is every mistake in it named?"""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from schedules import Policy
from schedules.policy import Rung
from worker import wording
from worker.checks import notices
from worker.settings import Settings, load_settings
from worker.wording import Letterhead, check, compose, sample
from worker.words import NotWritten, read_words

TODAY = date(2026, 1, 12)
OURS = Path(wording.__file__).parent / "templates"


def folder(at: Path, **files: str) -> Letterhead:
    """Write files of a merchant's own, ``__`` for a slash and ``_dot_`` for a dot; return the letterhead with them."""
    for name, text in files.items():
        file = at / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Letterhead("Ada", templates=at)


def said(letterhead: Letterhead, tag: str, name: str = "first", **policy: Any) -> tuple[str, str]:
    """Return the language and the subject of a sample after everything was looked at."""
    check(letterhead, Policy(**policy), TODAY)
    letter = compose(name, sample(TODAY, name), Policy(**policy), letterhead, tag)
    return letter.tag, letter.subject


def test_one_sentence_can_be_replaced(tmp_path: Path) -> None:
    """In one language; everything else stays ours."""
    own = folder(tmp_path, words__de_dot_toml='[notices.first]\nsubject = "{merchant}: bitte {amount}"')
    assert said(own, "de-AT") == ("de", "Ada: bitte $ 19,99".replace("$ ", "$\xa0"))
    assert said(own, "en") == ("en", "Your payment of $19.99 did not go through")
    assert "Guten Tag," in compose("first", sample(TODAY, "first"), Policy(), own, "de").text


def test_a_whole_language_can_be_added(tmp_path: Path) -> None:
    """It is chosen for those who speak it."""
    (tmp_path / "words").mkdir()
    text = (OURS / "words/en.toml").read_text(encoding="utf-8").replace("Hello,", "Dzień dobry,")
    (tmp_path / "words/pl.toml").write_text(text, encoding="utf-8")
    assert said(Letterhead(templates=tmp_path), "pl-PL")[0] == "pl"


def test_a_notice_can_be_added_and_is_told_in_the_languages_that_have_it(tmp_path: Path) -> None:
    """The ladder names it; whose language lacks it reads the whole of it in English, not a mixture."""
    words = '[notices.hint]\nsubject = "About {amount}"\ntext = "Psst."'
    own, ladder = folder(tmp_path, words__en_dot_toml=words), (Rung("hint", 0),)
    assert said(own, "ja", "hint", ladder=ladder) == ("en", "About $19.99")
    assert said(own, "ja", "thanks", ladder=ladder)[0] == "ja"


@pytest.mark.parametrize("file", ["notice_dot_txt_dot_j2", "first_dot_txt_dot_j2"])
def test_a_template_can_be_replaced_for_all_notices_or_for_one(tmp_path: Path, file: str) -> None:
    """The other form stays ours."""
    own = folder(tmp_path, **{file: "{{ merchant }} {{ lang }} {{ subject }} {{ bills[0].link }}"})
    first, reminder = (compose(name, sample(TODAY, name), Policy(), own, "nl") for name in ("first", "reminder"))
    assert first.text == f"Ada nl {first.subject} https://example.com/pay\n"
    assert reminder.text.startswith("Ada nl") is file.startswith("notice")
    assert first.html == compose("first", sample(TODAY, "first"), Policy(), Letterhead("Ada"), "nl").html


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"words__de_dot_toml": 'greeting = "Tag"\ngreting = "Tag"'}, "de.toml: greting: unknown key"),
        ({"words__de_dot_toml": '[notices.first]\nsubjekt = "x"'}, "de.toml: notices.first.subjekt: unknown key"),
        ({"words__de_dot_toml": "help = 3"}, "de.toml: help: expected a text"),
        ({"words__de_dot_toml": 'help = " "'}, "de.toml: help: expected a text"),
        ({"words__de_dot_toml": 'advice = "x"'}, "de.toml: advice: expected a table"),
        ({"words__de_dot_toml": "notices = 1"}, "de.toml: notices: expected a table"),
        ({"words__de_dot_toml": '[notices]\nfirst = "x"'}, "de.toml: notices.first: expected a table"),
        ({"words__de_dot_toml": '[notices.hint]\nsubject = "x"'}, "de.toml: notices.hint.text: missing"),
        ({"words__de_dot_toml": 'help = "{amuont}"'}, "de.toml: help: {amuont} is unknown, expected {amount} or"),
        ({"words__de_dot_toml": 'help = "{amount.real}"'}, "de.toml: help: {amount.real} is unknown"),
        ({"words__de_dot_toml": 'ending_in = "{amount}"'}, "expected {last4} or {method}"),
        ({"words__de_dot_toml": 'help = "{amount"'}, "de.toml: help: "),
        ({"words__de_dot_toml": "help = "}, "de.toml: "),
        ({"words__xx_dot_toml": 'help = "x"'}, "xx.toml: the name of the file is no locale"),
        ({"words__pl_dot_toml": 'greeting = "x"'}, "pl.toml: amount: missing"),
        ({"notice_dot_html_dot_j2": "{% if %}"}, "notice.html.j2, line 1: "),
        ({"notice_dot_txt_dot_j2": "a\n{{ amount }}"}, "notice.txt.j2, line 2: UndefinedError: 'amount' is undefined"),
        ({"first_dot_txt_dot_j2": "{{ subject / 2 }}"}, "first.txt.j2, line 1: TypeError"),
        ({"notice_dot_txt_dot_j2": "{% include 'nowhere.j2' %}"}, "TemplateNotFound: nowhere.j2"),
        ({"page_dot_html_dot_j2": "{{ nothing }}"}, "page.html.j2, line 1: UndefinedError: 'nothing' is undefined"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_place(tmp_path: Path, files: dict[str, str], told: str) -> None:
    """When a role starts, and by the doctor; no customer gets a notice with a hole."""
    own = folder(tmp_path, **files)
    with pytest.raises(NotWritten) as failed:
        check(own, Policy(), TODAY)
    assert told in str(failed.value)
    found = notices(Settings.model_validate({"templates": tmp_path}), Policy(), TODAY)
    assert (found.ok, found.detail) == (False, str(failed.value))


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    """By its name."""
    folder(tmp_path, words__de_dot_toml="")
    (tmp_path / "words/de.toml").write_bytes(b'help = "\xff"')
    with pytest.raises(NotWritten, match=r"de\.toml: "):
        read_words(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The setting is named."""
    with pytest.raises(NotWritten, match=r"DUNNING_TEMPLATES: .* is no folder"):
        check(Letterhead(templates=tmp_path / "nowhere"), Policy(), TODAY)


def test_a_notice_of_the_ladder_without_words_is_told() -> None:
    """Before any customer waits for it."""
    with pytest.raises(NotWritten, match="no language has words for a notice named nudge"):
        check(Letterhead(), Policy(ladder=(Rung("nudge", 0),)), TODAY)


def test_a_notice_that_english_lacks_has_no_words_for_those_who_speak_neither(tmp_path: Path) -> None:
    """The fallback has to have it."""
    own = folder(tmp_path, words__de_dot_toml='[notices.hint]\nsubject = "Zu {amount}"\ntext = "Pst."')
    with pytest.raises(NotWritten, match=r"en\.toml has no words for a notice named hint"):
        check(own, Policy(ladder=(Rung("hint", 0),)), TODAY)


def test_a_copy_of_our_folder_changes_nothing(tmp_path: Path) -> None:
    """That is where a merchant starts."""
    shutil.copytree(OURS, tmp_path / "own", ignore=shutil.ignore_patterns("__pycache__"))
    letters = [
        compose("first", sample(TODAY, "first"), Policy(), Letterhead(templates=each), "fr")
        for each in (None, tmp_path / "own")
    ]
    assert letters[0] == letters[1]


def test_the_doctor_tells_which_notices_can_be_sent() -> None:
    """In how many languages."""
    found = notices(load_settings(), Policy(), TODAY)
    assert (found.ok, "last_chance" in found.detail, found.detail[-12:]) == (True, True, "10 languages")
