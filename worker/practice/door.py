"""What stands between a payment request and the bank? Idempotency keys, object locks and faults on demand.

Stripe saves status and body of the first request under a key and replays them, refusals and 500s included.
What fails before the request is executed (rate limit, validation, a key in use) is not saved.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from worker.practice.answers import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.practice.records import JSON

KEY_SECONDS = 24 * 3600
FAULTS = frozenset({"429", "409", "500_before", "500_after", "reset_before", "reset_after", "slow", "timeout_after"})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body; ``reset`` closes the connection instead, ``replayed`` says it was given before."""

    status: int
    body: JSON
    reset: bool = False
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What identifies a request: two requests under one key must be equal in all but the key."""

    key: str | None
    path: str
    params: tuple[tuple[str, str], ...]
    target: str


@dataclass(slots=True)
class _Saved:
    asked: Asked
    at: float
    answer: Answer | None = None


@dataclass(slots=True)
class _Chance:
    kind: str
    probability: float
    seconds: float
    dice: Random


@dataclass
class Door:
    """Lets payment requests in one by one per invoice and per key."""

    machine: Callable[[], float] = time.time
    _saved: dict[str, _Saved] = field(default_factory=dict)
    _locked: set[str] = field(default_factory=set)
    _planned: deque[tuple[str, float]] = field(default_factory=deque)
    _chances: list[_Chance] = field(default_factory=list)

    def plan(self, wish: JSON) -> int:
        """Plan faults: ``{"kind", "times"}`` or ``{"kind", "probability", "seed"}``, ``"seconds"``, ``"clear"``."""
        if wish.get("clear"):
            self._planned.clear()
            self._chances.clear()
        if "kind" in wish:
            self._plan(str(wish["kind"]), wish)
        return len(self._planned)

    def _plan(self, kind: str, wish: JSON) -> None:
        if kind not in FAULTS:
            raise Refusal(400, f"No such fault: {kind}. There are {', '.join(sorted(FAULTS))}.")
        pause = float(wish.get("seconds", 1))
        if "probability" in wish:
            dice = Random(f"{wish.get('seed', 0)}:{kind}")
            self._chances.append(_Chance(kind, float(wish["probability"]), pause, dice))
        else:
            self._planned.extend([(kind, pause)] * int(wish.get("times", 1)))

    def _fault(self) -> tuple[str, float]:
        """Take the fault for this request: the next planned one, else the first that chance wants."""
        wanted = [(each.kind, each.seconds) for each in self._chances if each.dice.random() < each.probability]
        return self._planned.popleft() if self._planned else (wanted or [("", 0.0)])[0]

    async def pay(self, asked: Asked, execute: Callable[[], JSON]) -> Answer:
        """Answer a payment request under the planned faults."""
        fault, pause = self._fault()
        if fault in _BEFORE:
            return _BEFORE[fault]
        answer = await self.post(asked, execute, fault, pause)
        return Answer(answer.status, answer.body, reset=True) if fault == "reset_after" else answer

    async def post(self, asked: Asked, execute: Callable[[], JSON], fault: str = "", pause: float = 0.0) -> Answer:
        """Execute a request once per key, or replay what was answered the first time."""
        saved = self._saved_for(asked)
        if saved is not None and saved.answer is not None:
            return Answer(saved.answer.status, saved.answer.body, replayed=True)
        if saved is not None:
            return _KEY_IN_USE
        if asked.target in self._locked:
            return _LOCKED
        entry = _Saved(asked, self.machine())
        if asked.key is not None:
            self._saved[asked.key] = entry
        self._locked.add(asked.target)
        try:
            entry.answer = await self._execute(execute, fault, pause)
        finally:
            self._locked.discard(asked.target)
            if entry.answer is None and asked.key is not None:
                del self._saved[asked.key]
        return entry.answer

    def _saved_for(self, asked: Asked) -> _Saved | None:
        saved = self._saved.get(asked.key) if asked.key is not None else None
        if saved is None or self.machine() - saved.at >= KEY_SECONDS:
            return None
        if saved.asked != asked:
            rule = "Keys for idempotent requests can only be used with the same parameters they were first used with"
            raise Refusal(400, f"{rule}. Try using a key other than '{asked.key}'.", "idempotency_error")
        return saved

    async def _execute(self, execute: Callable[[], JSON], fault: str, pause: float) -> Answer:
        if fault == "slow":
            await asyncio.sleep(pause)
        try:
            answer = Answer(200, execute())
        except Refusal as refusal:
            answer = Answer(refusal.status, refusal.body)
        if fault == "timeout_after":
            await asyncio.sleep(pause)
        return _BROKEN if fault == "500_after" else answer


def _error(status: int, message: str, kind: str, **more: object) -> Answer:
    return Answer(status, Refusal(status, message, kind, **more).body)


_BROKEN = _error(500, "Something went wrong on Stripe's end. (practice)", "api_error")
_KEY_IN_USE = _error(
    409,
    "There is currently another in-progress request using this Idempotent Key. Please try again later.",
    "invalid_request_error",
    code="idempotency_key_in_use",
)
_LOCKED = _error(
    429,
    "This object cannot be accessed right now because another API request is accessing it.",
    "invalid_request_error",
    code="lock_timeout",
)
_TOO_MANY = _error(429, "Request rate limit exceeded.", "invalid_request_error", code="rate_limit")
_BEFORE = {
    "429": _TOO_MANY,
    "409": _KEY_IN_USE,
    "500_before": _BROKEN,
    "reset_before": Answer(500, {}, reset=True),
}
