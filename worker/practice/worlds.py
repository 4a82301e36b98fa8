"""How does a world of somebody's own come in, and does it keep the protocol? What breaks it is named with its place."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from schedules.facts import Card, Decline, FailedPayment
from worker.practice.protocol import ACTS, World

METHODS = ("failures", "card", "charge", "contact", "next_act", "close")


class WorldError(Exception):
    """A world that cannot be made or does not keep the protocol; the message says where and what."""


def load_world(place: str, seed: int, payments: int) -> World:
    """Make a world of the class that ``FILE.py:CLASS`` names; raise ``WorldError`` when there is none."""
    path, _, name = place.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        msg = f"{place}: expected FILE.py:CLASS"
        raise WorldError(msg)
    spec = importlib.util.spec_from_file_location("practice_world", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        msg = f"{path}: no such file"
        raise WorldError(msg)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with _named(path, "to import it"):
        spec.loader.exec_module(module)
    made = getattr(module, name, None)
    if not callable(made):
        msg = f"{path}: no class {name}"
        raise WorldError(msg)
    with _named(place, f"{name}({seed}, {payments})"):
        world: World = made(seed, payments)
    if missing := [each for each in METHODS if not callable(getattr(world, each, None))]:
        msg = f"{place}: no method {', '.join(missing)}"
        raise WorldError(msg)
    return world


@contextmanager
def _named(place: str, what: str) -> Iterator[None]:
    """Turn whatever goes wrong in a world into ``WorldError``, with the line where it did."""
    try:
        yield
    except Exception as error:
        path = place.rpartition(":")[0] or place
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        where = f", line {lines[-1]}" if lines else ""
        msg = f"{place}{where}: {what} raised {type(error).__name__}: {error}"
        raise WorldError(msg) from error


class Checked:
    """Another world that is asked the same; every answer that breaks the protocol raises ``WorldError``."""

    def __init__(self, world: World, place: str) -> None:
        self._world, self._place = world, place
        self.zone: Callable[[str], str] | None = self._zone if hasattr(world, "zone") else None
        self.next_update = self._next_update if hasattr(world, "next_update") else None

    def failures(self) -> Iterable[FailedPayment]:
        """Return the failed renewals; each is one, in time order, and named once."""
        with _named(self._place, "failures()"):
            found = list(self._world.failures())
        for each in found:
            self._kept("failures()", isinstance(each, FailedPayment), "a FailedPayment", each)
        names, instants = [each.payment_id for each in found], [each.failed_at for each in found]
        self._kept("failures()", len(set(names)) == len(names), "every payment_id once", "one twice")
        self._kept("failures()", instants == sorted(instants), "time order", "another one")
        return found

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the stored card."""
        found: Card = self._of(Card, "a Card", "card", payment_id, at)
        return found

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Return the bank's answer."""
        found: Decline | None = self._of(Decline | None, "a Decline or None", "charge", payment_id, at)
        return found

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:
        """Tell the customer."""
        self._of(object, "", "contact", payment_id, at, notice)

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return what the customer will do."""
        found = self._of(object, "", "next_act", payment_id, after)
        if found is None:
            return None
        pair = isinstance(found, tuple) and len(found) == len(("act", "instant")) and found[0] in ACTS
        wanted = f"None or a pair of one of {', '.join(ACTS)} and an instant"
        self._kept(f"next_act({payment_id!r})", pair, wanted, found)
        return found[0], self._later("next_act", payment_id, after, found[1])

    def close(self) -> None:
        """Have it release what it holds."""
        self._of(object, "", "close")

    def _next_update(self, payment_id: str, after: datetime) -> datetime | None:
        found = self._of(object, "", "next_update", payment_id, after)
        return None if found is None else self._later("next_update", payment_id, after, found)

    def _zone(self, payment_id: str) -> str:
        found: str = self._of(str, "the name of a time zone", "zone", payment_id)
        with _named(self._place, f"zone({payment_id!r})"):
            ZoneInfo(found)
        return found

    def _of(self, kind: Any, wanted: str, method: str, *given: Any) -> Any:
        """Ask the world; the answer is of a kind."""
        with _named(self._place, f"{method}({', '.join(map(repr, given[:1]))})"):
            found = getattr(self._world, method)(*given)
        self._kept(f"{method}({', '.join(map(repr, given[:1]))})", isinstance(found, kind), wanted, found)
        return found

    def _later(self, method: str, payment_id: str, after: datetime, found: Any) -> datetime:
        """Return an instant if it is one, aware and later than ``after``."""
        at: datetime = found
        aware = isinstance(found, datetime) and found.tzinfo is not None
        self._kept(f"{method}({payment_id!r})", aware, "an instant with a time zone", found)
        self._kept(f"{method}({payment_id!r})", at > after, f"one later than {after.isoformat()}", found)
        return at

    def _kept(self, method: str, kept: bool, wanted: str, found: object) -> None:
        if not kept:
            msg = f"{self._place}: {method} gave {found}, expected {wanted}"
            raise WorldError(msg)
