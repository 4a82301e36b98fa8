"""Which events are in this file? JSON lines, one object, a list, an API list object, or objects in a row.

Every value comes with the number of the line where it begins. What cannot be read is reported with its line, and
reading goes on behind it, so that the good events around it are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sqlalchemy import Engine

from worker.inbox import BadEvent, Event, keep, parse_event

BATCH = 500
SPACE = re.compile(r"[\s,]*")
# A list, or the API's list object around one; and its end, with what the object tells after its data.
LIST = re.compile(r'\[|\{\s*(?:"(?:object|url|has_more)"\s*:\s*(?:"[^"]*"|true|false)\s*,\s*)*"data"\s*:\s*\[')
LIST_END = re.compile(r'\](?:(?:\s*,\s*"\w+"\s*:\s*(?:"[^"]*"|[\w.+-]+))*\s*\})?')
# Where the next event begins behind one that is broken: an object at the margin, or one that opens like an event.
NEXT_EVENT = re.compile(r'(?<=\n)(?=\{)|(?=\{\s*"(?:id"\s*:\s*"evt_|object"\s*:\s*"event"))')
DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Found:
    """One value of the file, or why there is none."""

    line: int
    value: Any = field(default=None, repr=False)
    problem: str | None = None
    end: int = 0


@dataclass(slots=True)
class Counts:
    """What became of the values of a file."""

    new: int = 0
    duplicate: int = 0
    ignored: int = 0
    ignored_types: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form that the command line promises."""
        return {"new": self.new, "duplicate": self.duplicate, "ignored": self.ignored, "rejected": self.rejected}

    def ignore(self, event: Event) -> None:
        """Count an event that this product does not listen to."""
        self.ignored += 1
        self.ignored_types[event.type] = self.ignored_types.get(event.type, 0) + 1


def read_values(source: BinaryIO) -> Iterator[Found]:
    """Yield every value of a file in order; bytes that are not UTF-8 spoil only the value they stand in."""
    text = source.read().decode("utf-8-sig", errors="surrogateescape")
    start = SPACE.match(text).end()  # type: ignore[union-attr]  # the pattern matches the empty text too
    first = text[start:].split("\n", 1)[0]
    if _is_line(first):
        yield from _lines(text)
    else:
        yield from _document(text)


def _is_line(first: str) -> bool:
    """Say whether the first line is one whole object by itself that is not a list of events."""
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("object") != "list"


def _lines(text: str) -> Iterator[Found]:
    position = 0
    for number, line in enumerate(text.split("\n"), start=1):
        position += len(line) + 1
        if line.strip():
            yield _decode_line(number, line, position)


def _decode_line(number: int, line: str, end: int) -> Found:
    try:
        return _checked(Found(number, json.loads(line), end=end), line)
    except (ValueError, RecursionError) as error:
        return Found(number, problem=f"not JSON: {_reason(error)}", end=end)


def _checked(found: Found, raw: str) -> Found:
    if any("\udc80" <= c <= "\udcff" for c in raw) and not raw.isascii():
        return Found(found.line, problem="not UTF-8", end=found.end)
    return found


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
        yield Found(line + text.count("\n", counted), problem="truncated: the list does not end", end=len(text))
    elif not counted and found is None:
        yield Found(1, problem="the file is empty")


def _decode_at(text: str, position: int, line: int) -> tuple[Found, int]:
    try:
        value, end = DECODER.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        found = Found(line, problem=f"not JSON: {_reason(error)}")
        again = NEXT_EVENT.search(text, position + 1)
        return found, again.end() if again else len(text)
    return _checked(Found(line, value, end=end), text[position:end]), end


def ingest(engine: Engine, values: Iterable[Found], counts: Counts) -> Iterator[Found]:
    """Keep the events among ``values``, counting in ``counts``; yields each value when it has been looked at."""
    batch: list[Event] = []
    for found in values:
        event = _event(found, counts)
        if event is not None:
            batch.append(event)
        if len(batch) >= BATCH:
            _keep(engine, batch, counts)
            batch = []
        yield found
    _keep(engine, batch, counts)


def _event(found: Found, counts: Counts) -> Event | None:
    """Return an event to keep; anything else is counted here."""
    try:
        event, problem = None, found.problem
        if problem is None:
            event = parse_event(found.value)
    except BadEvent as error:
        problem = str(error)
    if event is None:
        counts.rejected.append({"line": found.line, "reason": problem})
        return None
    if not event.ours:
        counts.ignore(event)
        return None
    return event


def _keep(engine: Engine, batch: list[Event], counts: Counts) -> None:
    once = {event.id: event for event in batch}
    with engine.begin() as db:
        new = keep(db, list(once.values()))
    counts.new += len(new)
    counts.duplicate += len(batch) - len(new)
