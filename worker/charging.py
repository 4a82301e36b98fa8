"""How do due cases move? Each is asked about while no transaction is open; all that are answered together go on in one.

An act is a question to the provider about one case, and what one short transaction makes of the answers: it locks the
cases, goes on with those whose lease is still held, saves them, and tells what is due next. So a worker that is busy
commits once for many cases, and one that is not waits for none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from worker import acts, attempts
from worker.calls import Late, Questions
from worker.cases import LeaseLost, lock_held, save, take_over
from worker.desk import ASK_AGAIN, SECOND_READ, Answered, Desk, Held
from worker.failpoints import failpoint
from worker.leases import PATIENCE
from worker.logs import about
from worker.stripe_gateway import GatewayError, Refused

MOST_STEPS = 8  # of one case in a row; the next tick finds it again
Hint = tuple[int, UUID]
Answer = tuple[int, UUID, Held, Any]  # number and token of a case come first, as in a hint
Told = TypeVar("Told", Hint, Answer)
Then = Callable[[Connection, Desk, list[Answered]], list[Held]]


@dataclass(frozen=True, slots=True)
class Act:
    """What is asked about one case, and what is made of answers that came together; None: each tells what is due.

    ``writes`` names what is committed then.
    """

    ask: Callable[[Desk, Held], Any]
    then: Then | None = None
    writes: str = ""


ACTS = {
    "refresh": Act(acts.look, acts.refreshed, "reading"),
    "contact": Act(acts.say),
    "charge": Act(acts.look, attempts.write_down, "attempt"),
    "pay": Act(attempts.pay, attempts.paid, "record"),
    "settle": Act(acts.read, attempts.found_out, "record"),
}


def work(desk: Desk, case_id: int, hint: UUID) -> bool:
    """Do everything that is due about one case; False when the hint was used before or the lease is gone."""
    done = work_each(desk, [(case_id, hint)])[case_id]
    if isinstance(done, Exception):
        raise done
    return done


def work_each(desk: Desk, hints: Iterable[Hint]) -> dict[int, bool | Exception]:
    """Do everything that is due about cases; tell of each by its number whether it was done, or what went wrong."""
    return _Work(desk).do(list(hints))


class _Work:
    """Some cases on their way together."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.done: dict[int, bool | Exception] = {}
        self.steps = Counter[int]()

    def do(self, hints: list[Hint]) -> dict[int, bool | Exception]:
        """Go on with all cases together, then with each that was not taken by itself: it may have ended its worker."""
        self.done = {case_id: False for case_id, _ in hints}
        self._walk(hints)
        for hint in hints if len(hints) > 1 else ():
            if self.done[hint[0]] is False:
                self._walk([hint])
        return self.done

    def _walk(self, hints: list[Hint]) -> None:
        """Take cases over, and let one act follow the other until nothing is due."""
        asked = Questions(self.desk.calls, self._ask, PATIENCE * self.desk.lease_seconds)
        due = self._for_all(hints, self._take)
        while due or asked.open:
            due = self._rested(due)
            for pays in (True, False):
                asked.add([held for held in due if (held.act == "pay") == pays], pays=pays)
            answers = self._answers(asked.come() if asked.open else [])
            due = [held for act, some in answers.items() for held in self._go_on(ACTS[act], some)]

    def _take(self, hints: list[Hint]) -> list[Held]:
        with self.desk.engine.begin() as db:
            taken = take_over(db, dict(hints), self.desk.lease_seconds)
            due = acts.begin(db, self.desk, taken)
            save(db, taken)
        self.done |= {case.id: True for case in taken}
        return due

    def _rested(self, due: list[Held]) -> list[Held]:
        """Return what goes on at once; of a case that has come far enough in a row nothing does."""
        self.steps.update(held.case_id for held in due)
        tired = {held.case_id: held.token for held in due if self.steps[held.case_id] > MOST_STEPS}
        self._give_back(tired)
        return [held for held in due if held.case_id not in tired]

    def _ask(self, held: Held) -> Any:
        with about(case_id=held.case_id):
            return ACTS[held.act].ask(self.desk, held)

    def _answers(self, come: list[tuple[Held, Any]]) -> dict[str, list[Answer]]:
        """Return answers by act; what was not asked in time is due still, and an error is kept with its case."""
        found: dict[str, list[Answer]] = {}
        late: dict[int, UUID] = {}
        for held, answer in come:
            match answer:
                case LeaseLost():
                    self.done[held.case_id] = False
                case Late():
                    late[held.case_id] = held.token
                case Exception():
                    self._give_up(held.case_id, held.token, answer)
                case BaseException():
                    raise answer
                case _:
                    found.setdefault(held.act, []).append((held.case_id, held.token, held, answer))
        self._give_back(late)
        return found

    def _go_on(self, act: Act, answers: list[Answer]) -> list[Held]:
        if act.then is None:
            return [held for answer in answers for held in answer[-1]]
        return self._for_all(answers, partial(self._together, act.then, act.writes))

    def _together(self, then: Then, what: str, answers: list[Answer]) -> list[Held]:
        """Go on with cases in one transaction; those whose lease is gone are left alone."""
        tokens = {case_id: token for case_id, token, *_ in answers}
        with self.desk.engine.begin() as db:
            cases = lock_held(db, tokens)
            found = [Answered(cases[case_id], *told) for case_id, _, *told in answers if case_id in cases]
            due = then(db, self.desk, found)
            save(db, cases.values(), self.desk.lease_seconds)
            _reach(f"before_{what}_commit", found)
        _reach(f"after_{what}_commit", found)
        self.done |= dict.fromkeys(tokens.keys() - cases.keys(), False)
        return due

    def _for_all(self, them: list[Told], do: Callable[[list[Told]], list[Held]]) -> list[Held]:
        """Do something for all; where that fails for each alone, so that one case spoils no other."""
        try:
            return do(them)
        except Exception as error:  # noqa: BLE001 - as above
            if len(them) > 1 and not _is_gone(error):
                return [held for each in them for held in self._for_all([each], do)]
            for case_id, token, *_ in them:
                self._give_up(case_id, token, error)
            return []

    def _give_back(self, tokens: dict[int, UUID]) -> None:
        if not tokens:
            return
        with self.desk.engine.begin() as db:
            found = lock_held(db, tokens).values()
            for case in found:
                case.let_go()
            save(db, found)

    def _give_up(self, case_id: int, token: UUID, error: Exception) -> None:
        """Give a case back for later: what is refused needs a person, all else may pass by itself.

        What cannot even be given back comes again when its lease has run out.
        """
        self.done[case_id] = error
        pause = SECOND_READ if isinstance(error, Refused) else ASK_AGAIN
        why = str(error) if isinstance(error, GatewayError) else type(error).__name__
        try:
            with self.desk.engine.begin() as db:
                for case in lock_held(db, {case_id: token}).values():
                    case.let_go(max(case.due_at, self.desk.now + pause))
                    case.note(self.desk.now, "failed", {"error": why})
                    save(db, [case])
        except Exception as another:
            if _is_gone(another):
                raise


def _reach(place: str, found: Iterable[Answered]) -> None:
    for each in found:
        failpoint(place, each.held.payment_id)


def _is_gone(error: Exception) -> bool:
    """Whether the database itself is out of reach: nothing can be done for each alone."""
    return isinstance(error, DBAPIError) and error.connection_invalidated
