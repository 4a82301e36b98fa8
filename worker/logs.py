"""What may be logged? One JSON object a line, with everything secret or personal blotted out."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from worker.personal import PERSONAL

BLOT = "[redacted]"
# Repetitions have bounds: a line of any length is read in a time that grows with its length only.
SECRETS = re.compile(
    r"""
    (?:(?:rk|sk|pk)_(?:live|test)_|whsec_)[\w+/=-]+
    | \b(?:pm_|seti_)\w+
    | \w{1,64}_secret_\w+
    | (?<=://)[^\s/@]+(?=@)       # user and password of an address
    | (?:(?<=/pay/)|(?<=/unsubscribe/))[\w-]{64}  # the token of our own link
    | (?<=://)(?:billing|checkout|invoice|pay)\.stripe\.\w+/[^\s"'<>]+  # whoever has it can open it
    | [\w.+-][\w.+'&-]{0,63}(?:@|%40)[\w-]+(?:\.[\w-]+)+
    """,
    re.VERBOSE,
)
# A payload that somebody made a text of, as JSON or as Python shows it, whole or cut, within another text too.
NAMES = "|".join(sorted(PERSONAL))
LABELLED = re.compile(rf"""(\\{{0,8}}["'])({NAMES})\1(\s*:\s*)(\\{{0,8}}["']).*?(?:(?<!\\)\4|\Z)""", re.DOTALL)
DIGITS = re.compile(r"\d(?:[ -]?\d){12,}")
GROUP = re.compile(r"\d+")
SHORTEST, LONGEST = 13, 19  # of card numbers
SHORTEST_CARD = 10 ** (SHORTEST - 1)
OURS = ("level", "logger", "timestamp")  # what we add to each line

log: structlog.stdlib.BoundLogger = structlog.get_logger("dunning")


about = structlog.contextvars.bound_contextvars
"""Used as ``with about(case_id=7):`` - every line until it is left tells that, those of the libraries too."""


def redact(text: str) -> str:
    """Return ``text`` without keys, method ids, e-mail addresses, card numbers and personal fields of payloads."""
    text = LABELLED.sub(rf"\1\2\1\3\4{BLOT}\4", text)
    return DIGITS.sub(_without_cards, SECRETS.sub(BLOT, text))


def _without_cards(found: re.Match[str]) -> str:
    """Blot the card numbers in a run of digits: other numbers may stand right before and behind one."""
    run, shown, position = found.group(), "", 0
    groups = [group.span() for group in GROUP.finditer(run)]
    for number, (start, _) in enumerate(groups):
        if start < position:
            continue
        ends = (end for _, end in groups[number : number + LONGEST][::-1] if _is_card(run[start:end]))
        if end := next(ends, None):
            shown, position = f"{shown}{run[position:start]}{BLOT}", end
    return shown + run[position:]


def _is_card(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    checked = sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0
    return checked and SHORTEST <= len(digits) <= LONGEST


def _redact_all(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: value if key in OURS else _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    """Return a value of a log line in JSON's own types, redacted to any depth."""
    if isinstance(value, dict):
        return {redact(str(key)): BLOT if key in PERSONAL else _redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    if value is None or (isinstance(value, int) and abs(value) < SHORTEST_CARD):
        return value
    text = redact(str(value))
    return value if isinstance(value, (int, float, type(None))) and text == str(value) else text


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Tell what ends a process or a thread like everything else, since a traceback may quote what it met."""
    logging.getLogger("dunning").critical("uncaught", exc_info=(kind, error, trace) if error else None)


SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def set_up(level: int = logging.INFO) -> None:
    """Send all logs of this process to standard error, ours and those of the libraries in one form."""
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    render: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _redact_all,
        structlog.processors.JSONRenderer(),
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=SHARED, processors=render))
    # At debug level the Stripe SDK logs whole requests; Alembic tells at every start that it started.
    for name in ("stripe", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sys.excepthook = _uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
