"""What may be logged? One JSON object a line, with everything secret or personal blotted out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

SECRETS = re.compile(r"\b(?:(?:rk|sk|pk)_(?:live|test)_|whsec_|pm_|seti_)\w+|\w+_secret_\w+|[\w.+-]+@[\w-]+\.[\w.-]+")
DIGITS = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
BLOT = "[redacted]"

log: structlog.stdlib.BoundLogger = structlog.get_logger("dunning")


def redact(text: str) -> str:
    """Return ``text`` without keys, payment method ids, e-mail addresses and card numbers."""
    return DIGITS.sub(lambda found: BLOT if _luhn(found.group()) else found.group(), SECRETS.sub(BLOT, text))


def _luhn(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def _redact_event(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}


def _redact_all(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    """Return a value of a log line in JSON's own types, redacted to any depth."""
    if isinstance(value, dict):
        return {str(key): _redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    return value if isinstance(value, (int, float, type(None))) else redact(str(value))


SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _redact_event,
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
