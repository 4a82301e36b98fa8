"""How does a table of a TOML file become a checked value? Any subset of its fields goes over the defaults.

Every unknown key, wrong type or impossible value is refused by its full name.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass, replace
from datetime import date, time
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
# What a TOML file calls the types of the fields; every other one is a table.
WORDS = {
    int: "an integer",
    str: "a string",
    bool: "a boolean",
    time: "a local time such as 06:00",
    tuple: "an array",
    date: "a date such as 2026-04-18",
}


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the key and the reason."""


def over(default: T, given: Mapping[str, Any], where: str) -> T:
    """Return a copy of the dataclass value ``default`` with the fields in ``given`` replaced."""
    known = {f.name for f in fields(default)}  # type: ignore[arg-type]  # every caller passes a dataclass
    hints = get_type_hints(type(default))
    changes = {}
    for key, value in given.items():
        if key not in known:
            msg = f"{where}{key}: unknown key, expected one of {', '.join(sorted(known))}"
            raise PolicyError(msg)
        changes[key] = _value(hints[key], value, getattr(default, key), f"{where}{key}")
    try:
        return replace(default, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise error if isinstance(error, PolicyError) else PolicyError(f"{where.rstrip('.')}: {error}") from error


def _value(kind: Any, value: Any, default: Any, where: str) -> Any:
    """Turn one TOML value into ``kind``; raise ``PolicyError`` when it is something else."""
    if get_origin(kind) is tuple and isinstance(value, list):
        inner = get_args(kind)[0]
        return tuple(_value(inner, item, None, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is Mapping and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {**default, **{k: _value(inner, v, default.get(k), f"{where}.{k}") for k, v in value.items()}}
    if is_dataclass(kind) and isinstance(value, dict):
        return over(default, value, f"{where}.") if default is not None else new(kind, value, where)
    kind = {date | None: date, int | None: int, str | None: str}.get(kind, kind)
    if kind in (int, str, bool, time, date) and type(value) is kind:
        return value
    if kind is time and isinstance(value, str):
        with suppress(ValueError):
            return time.fromisoformat(value)
    msg = f"{where}: expected {WORDS.get(get_origin(kind) or kind, 'a table')}, found {value!r}"
    raise PolicyError(msg)


def new(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    """Return a ``kind`` of which there is no default to put ``given`` over."""
    hints = get_type_hints(kind)
    if set(given) - set(hints):
        msg = f"{where}.{min(set(given) - set(hints))}: unknown key, expected one of {', '.join(hints)}"
        raise PolicyError(msg)
    for missing in (f.name for f in fields(kind) if f.default is MISSING and f.name not in given):
        msg = f"{where}.{missing}: missing"
        raise PolicyError(msg)
    values = {k: _value(hints[k], v, None, f"{where}.{k}") for k, v in given.items()}
    try:
        return kind(**values)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise PolicyError(msg) from error
