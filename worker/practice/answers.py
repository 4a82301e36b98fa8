"""How does Stripe answer a request? Its error bodies, form parameters, pages of a list and expansions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from worker.practice.records import JSON

MOST_LEVELS = 4
MOST_ITEMS, USUAL_ITEMS = 100, 10


class Refusal(Exception):
    """The request is answered with this status and error body."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: JSON = {"error": {**more, "message": message, "type": kind}}


def no_such(name: str, what: str) -> Refusal:
    """Return the 404 of an unknown id."""
    return Refusal(404, f"No such {what}: '{name}'", code="resource_missing", param="id")


@dataclass(frozen=True)
class Form:
    """The parameters of one request: plain values, and those that are lists (``expand``, ``types``)."""

    values: dict[str, str]
    lists: dict[str, list[str]]

    @property
    def raw(self) -> tuple[tuple[str, str], ...]:
        """Return everything that was sent, for comparing two requests."""
        many = ((name, value) for name, values in self.lists.items() for value in values)
        return tuple(sorted([*self.values.items(), *many]))

    def whole(self, name: str) -> int | None:
        """Return a number; raise ``Refusal`` for anything else."""
        value = self.values.get(name)
        if value is not None and not value.isdigit():
            raise Refusal(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
        return None if value is None else int(value)


def read_form(query: str, body: bytes, known: Iterable[str]) -> Form:
    """Read ``a=1&a[b]=2&list[0]=x``; raise ``Refusal`` for a parameter Stripe would not know here."""
    form = Form({}, {"expand": []})
    for key, value in parse_qsl(f"{query}&{body.decode()}", keep_blank_values=True):
        name, bracket, rest = key.partition("[")
        if name not in known and name != "expand":
            raise Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        if bracket and (rest == "]" or rest[:-1].isdigit()):
            form.lists.setdefault(name, []).append(value)
        else:
            form.values[key] = value
    return form


class _Named(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


def page(items: Sequence[T], places: dict[str, int], form: Form, keep: Callable[[T], bool]) -> tuple[list[T], bool]:
    """Return one page, newest first, and whether more follows; ``items`` are kept oldest first."""
    limit = min(max(form.whole("limit") or USUAL_ITEMS, 1), MOST_ITEMS)
    before, after = form.values.get("ending_before"), form.values.get("starting_after")
    for cursor in (before, after):
        if cursor is not None and cursor not in places:
            raise no_such(cursor, "object")
    if before is not None:
        span: Iterable[int] = range(places[before] + 1, len(items))
    else:
        span = range((places[after] if after is not None else len(items)) - 1, -1, -1)
    found: list[T] = []
    for index in span:
        if keep(items[index]):
            found.append(items[index])
            if len(found) > limit:
                break
    shown = found[:limit]
    return (shown[::-1] if before is not None else shown), len(found) > limit


def listing(url: str, data: list[JSON], *, more: bool) -> JSON:
    """Return Stripe's list object."""
    return {"object": "list", "data": data, "has_more": more, "url": url}


def expand(body: JSON, paths: Iterable[str], find: Callable[[str, JSON], object]) -> JSON:
    """Replace ids by their objects along each path; ``find`` turns a key of an object into what belongs there."""
    for path in paths:
        levels = path.split(".")
        if len(levels) > MOST_LEVELS:
            raise Refusal(400, f"You cannot expand more than 4 levels of a property. Property: {path}")
        _expand(body, levels, path, find)
    return body


def _expand(node: object, levels: Sequence[str], path: str, find: Callable[[str, JSON], object]) -> None:
    if not levels or node is None:
        return
    for each in node if isinstance(node, list) else [node]:
        if not isinstance(each, dict):
            raise Refusal(400, f"This property cannot be expanded ({path}).")
        value = each.get(levels[0], ...)
        if value is ... or isinstance(value, str):
            value = each[levels[0]] = find(levels[0], each)
        if value is ...:
            raise Refusal(400, f"This property cannot be expanded ({path}).")
        _expand(value, levels[1:], path, find)
