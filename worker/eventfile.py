"""Which events are in this file? JSON lines, one object, a list, an API list object, or objects in a row.

Every value comes with the number of the line where it begins. What cannot be read is reported with its line, and
reading goes on behind it, so that the good events around it are kept.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

SPACE, BETWEEN = re.compile(r"[\s,]*"), b" \t\r\n\v\f,"
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that are none, as they are read
# A list, or the API's list object around one; and its end, with what the object tells after its data.
LIST = re.compile(r'\[|\{\s*(?:"(?:object|url|has_more)"\s*:\s*(?:"[^"]*"|true|false)\s*,\s*)*"data"\s*:\s*\[')
LIST_END = re.compile(r'\](?:(?:\s*,\s*"\w+"\s*:\s*(?:"[^"]*"|[\w.+-]+))*\s*\})?')
# Where the next event begins behind one that is broken: an object at the margin, or one that opens like an event.
NEXT_EVENT = re.compile(r'(?<=\n)(?=\{)|(?=\{\s*"(?:id"\s*:\s*"evt_|object"\s*:\s*"event"))')
DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Found:
    """One value of the file, or why there is none; the bytes of a line, until somebody decodes them."""

    line: int
    value: Any = field(default=None, repr=False)
    problem: str | None = None


def read_values(source: BinaryIO) -> Iterator[Found]:
    """Yield every value of a file in order; bytes that are not UTF-8 spoil only the value they stand in.

    Of a file with one object in each line no more than a line is held in memory.
    """
    return map(decoded, read_raw(source))


def read_raw(source: BinaryIO) -> Iterator[Found]:
    """Yield the same, of a file with one object in each line the bytes of the lines: for another process to decode."""
    head = [source.readline().removeprefix(BOM_UTF8)]
    while not head[-1].strip(BETWEEN) and (line := source.readline()):
        head.append(line)
    if _is_line(head[-1]):
        yield from _lines(chain(head, source))
    else:
        yield from _document((b"".join(head) + source.read()).decode(errors="surrogateescape"))


def _is_line(first: bytes) -> bool:
    """Say whether the first line is one whole object by itself that is not a list of events."""
    try:
        value = json.loads(first.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("object") != "list"


def _lines(lines: Iterable[bytes]) -> Iterator[Found]:
    for number, line in enumerate(lines, start=1):
        if not line.isspace():
            yield Found(number, line)


def decoded(found: Found) -> Found:
    """Return the value of a line."""
    if not isinstance(found.value, bytes):
        return found
    try:
        return Found(found.line, json.loads(found.value.decode()))
    except UnicodeDecodeError:
        return Found(found.line, problem="not UTF-8")
    except (ValueError, RecursionError) as error:
        return Found(found.line, problem=f"not JSON: {_reason(error)}")


def _reason(error: Exception) -> str:
    other = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
    return error.msg if isinstance(error, json.JSONDecodeError) else other


def _document(text: str) -> Iterator[Found]:
    """Read values one after the other, within lists or not; after a broken one go on where the next event begins."""
    position, line, counted, within, found = 0, 1, 0, False, None
    while (position := SPACE.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        if edge := (LIST_END if within else LIST).match(text, position):
            position, within = edge.end(), not within
            continue
        found, position = _decode_at(text, position, line)
        yield found
    whole = found is None or found.problem is None
    if within and whole:
        yield Found(line + text.count("\n", counted), problem="truncated: the list does not end")
    elif not counted and found is None:
        yield Found(1, problem="the file is empty")


def _decode_at(text: str, position: int, line: int) -> tuple[Found, int]:
    try:
        value, end = DECODER.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        found = Found(line, problem=f"not JSON: {_reason(error)}")
        again = NEXT_EVENT.search(text, position + 1)
        return found, again.end() if again else len(text)
    spoilt = NOT_UTF8.search(text, position, end)
    return Found(line, value, problem="not UTF-8" if spoilt else None), end
