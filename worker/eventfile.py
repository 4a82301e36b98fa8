"""Which events are in this file? JSON lines, one object, a list, an API list object, or objects in a row.

Every value comes with the number of the line where it begins. What cannot be read is reported with its line, and
reading goes on behind it, so that the good events around it are kept.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, BinaryIO

from sqlalchemy import Engine

from schedules import Policy
from worker.inbox import BadEvent, Event, parse_event, take_in

BATCH = 500
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
    """One value of the file, or why there is none."""

    line: int
    value: Any = field(default=None, repr=False)
    problem: str | None = None


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
    """Yield every value of a file in order; bytes that are not UTF-8 spoil only the value they stand in.

    Of a file with one object in each line no more than a line is held in memory.
    """
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
            yield _decode_line(number, line)


def _decode_line(number: int, line: bytes) -> Found:
    try:
        return Found(number, json.loads(line.decode()))
    except UnicodeDecodeError:
        return Found(number, problem="not UTF-8")
    except (ValueError, RecursionError) as error:
        return Found(number, problem=f"not JSON: {_reason(error)}")


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


def ingest(engine: Engine, policy: Policy, now: datetime, values: Iterable[Found], counts: Counts) -> Iterator[Found]:
    """Take in the events among ``values``, counting in ``counts``; yields each value when it has been looked at.

    While the database writes one batch, the next one is read.
    """
    batch: list[Event] = []
    written: Future[None] | None = None
    with ThreadPoolExecutor(max_workers=1) as writer:
        for found in values:
            event = _event(found, counts)
            if event is not None:
                batch.append(event)
            if len(batch) >= BATCH:
                if written is not None:
                    written.result()
                written = writer.submit(_take_in, engine, batch, counts, policy, now)
                batch = []
            yield found
        if written is not None:
            written.result()
    _take_in(engine, batch, counts, policy, now)


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


def _take_in(engine: Engine, batch: list[Event], counts: Counts, policy: Policy, now: datetime) -> None:
    with engine.begin() as db:
        new = take_in(db, batch, policy, now)
    counts.new += len(new)
    counts.duplicate += len(batch) - len(new)
