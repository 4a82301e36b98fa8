"""Which words are there, in which languages? One TOML file for each, ours and the merchant's own laid over them.

A merchant's file may hold one sentence only, a notice that the ladder names, or a whole language. Everything is
looked at when a role starts: a missing, unknown or broken text is told with its file and key.
"""

from __future__ import annotations

import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError

from worker.locales import FALLBACK

NOTICES = "notices"
# What a notice says; of several payments in one message it may have words of its own.
OF_A_NOTICE, OF_SEVERAL = ("subject", "text"), ("subjects", "texts")
MAY_NAME = frozenset({"amount", "merchant"})
OF_A_METHOD = {"ending_in": frozenset({"method", "last4"})}


class NotWritten(LookupError):
    """A notice cannot be written; the message says why and names no customer."""


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language: ``texts[key]``, ``texts[table][key]``, and for each notice ``texts["notices"]``."""

    tag: str
    texts: Mapping[str, Any]

    def has(self, notice: str) -> bool:
        """Whether the language has the words of a notice."""
        return notice in self.texts[NOTICES]


@lru_cache(maxsize=4)
def read_words(own: Path | None) -> Mapping[str, Words]:
    """Return every language by its tag; ``own`` is the merchant's folder.

    Raises ``NotWritten`` naming the file and the key that cannot be used.
    """
    ours = dict(_files(files("worker").joinpath("templates", "words")))
    theirs = dict(_files(own / "words")) if own else {}
    read = {tag: _over(_parsed(ours[tag]), {}) for tag in ours}
    for tag, file in theirs.items():
        read[tag] = _over(read.get(tag, {}), _parsed(file))
    for tag, texts in read.items():
        for problem in (*_locale(tag), *_problems(texts, read[FALLBACK])):
            file = theirs.get(tag) or ours[tag]
            msg = f"{file}: {problem}"
            raise NotWritten(msg)
    return {tag: Words(tag, texts) for tag, texts in read.items()}


def _files(folder: Traversable) -> Iterator[tuple[str, Traversable]]:
    if folder.is_dir():
        found = (each for each in folder.iterdir() if each.name.endswith(".toml"))
        yield from ((each.name.removesuffix(".toml"), each) for each in sorted(found, key=lambda each: each.name))


def _parsed(file: Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{file}: {error}"
        raise NotWritten(msg) from None


def _over(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return texts with those of the merchant in place of ours, table by table."""
    both = dict(ours)
    for key, value in theirs.items():
        before = both.get(key)
        both[key] = _over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def _locale(tag: str) -> Iterator[str]:
    try:
        Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        yield "the name of the file is no locale, expected a name such as de.toml or pt-BR.toml"


def _problems(texts: Mapping[str, Any], english: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong in a language: it has every text of English, but may lack a notice as a whole."""
    notices = texts.get(NOTICES, {})
    if not isinstance(notices, dict):
        yield f"{NOTICES}: expected a table"
        return
    yield from _compared(texts, {key: value for key, value in english.items() if key != NOTICES}, "")
    for name, notice in notices.items():
        several = {key: "" for key in OF_SEVERAL if isinstance(notice, dict) and key in notice}
        yield from _compared({name: notice}, {name: dict.fromkeys(OF_A_NOTICE, "") | several}, f"{NOTICES}.")


def _compared(given: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from (f"{where}{key}: missing" for key in wanted if key not in given)
    yield from (f"{where}{key}: unknown key" for key in given if key not in wanted and key != NOTICES)
    for key, model in wanted.items():
        if key in given:
            yield from _one(given[key], model, f"{where}{key}")


def _one(value: Any, model: Any, where: str) -> Iterator[str]:
    """Compare one text or one table with what it has to be."""
    if isinstance(model, dict):
        yield from _compared(value, model, f"{where}.") if isinstance(value, dict) else [f"{where}: expected a table"]
    elif not isinstance(value, str) or not value.strip():
        yield f"{where}: expected a text"
    else:
        yield from _placeholders(value, where)


def _placeholders(value: str, where: str) -> Iterator[str]:
    """Say which names in braces the text may not use."""
    allowed = OF_A_METHOD.get(where, MAY_NAME)
    try:
        found = [part for part in string.Formatter().parse(value) if part[1] is not None]
    except ValueError as error:
        yield f"{where}: {error}"
        return
    for _, name, spec, conversion in found:
        if name not in allowed or spec or conversion:
            yield f"{where}: {{{name}}} is unknown, expected {' or '.join(f'{{{each}}}' for each in sorted(allowed))}"
