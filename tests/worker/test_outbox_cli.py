"""Can an operator see what was not delivered, and have it tried again without telling anybody twice by accident?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.builders import DAY, HOUR, START, add_case, add_notice, one, sql, told
from worker import audit
from worker.clock import set_clock
from worker.models import UNCERTAIN
from worker.notices import OBSERVED, OVER, PAUSED
from worker.suppressions import BOUNCED, REASONS

NOW = START + DAY
FAULT = "the endpoint answered 500"


@dataclass(frozen=True)
class Operator:
    """Runs commands a day after the start."""

    run: Callable[..., CompletedProcess[str]]
    clock: Path

    def does(self, *arguments: str) -> CompletedProcess[str]:
        """Run one command about messages."""
        return self.run("outbox", *arguments, DUNNING_CLOCK_FILE=str(self.clock))

    def sees(self, *arguments: str) -> dict[int, str]:
        """Return the state of each message that is listed."""
        return {each["id"]: each["state"] for each in json.loads(self.does("list", *arguments, "--json").stdout)}

    def retries(self, *arguments: str) -> tuple[int, dict[int, str]]:
        """Try messages again; return the exit code and what became of each."""
        done = self.does("retry", *arguments, "--json")
        return done.returncode, {each["id"]: each["verdict"] for each in json.loads(done.stdout)}


@pytest.fixture
def operator(run: Callable[..., CompletedProcess[str]], tmp_path: Path) -> Operator:
    """Give an operator."""
    set_clock(tmp_path / "clock", NOW)
    return Operator(run, tmp_path / "clock")


def ended(engine: Engine, error: str | None, **changes: Any) -> int:
    """Store a message that is not due any more, of a case of its own, and return its number."""
    number = one(engine, "SELECT count(*) + 1 FROM cases")
    case_id = changes.pop("case_id", None) or add_case(engine, payment_id=f"in_{number}")
    return add_notice(engine, case_id, **{"due_at": None, "tries": 8, "error": error, **changes})


def over(engine: Engine, **changes: Any) -> int:
    """Store a dead message of a case that was lost meanwhile."""
    closed = add_case(engine, payment_id="in_over", state="lost", closed_at=NOW, due_at=None)
    return ended(engine, FAULT, case_id=closed, **changes)


def test_everything_that_was_not_delivered_is_listed(operator: Operator, engine: Engine) -> None:
    """What waits, what was given up, what is uncertain; nothing that left, nor what was not to leave."""
    waits = add_notice(engine, add_case(engine, payment_id="in_w"), due_at=NOW + HOUR)
    dead, perhaps = ended(engine, FAULT, kind="hook", name="case.lost", channel="hook"), ended(engine, UNCERTAIN)
    ended(engine, None, delivered_at=START)
    for meant in (OVER, OBSERVED, PAUSED, REASONS[BOUNCED] + ": 550"):
        ended(engine, meant)
    ended(engine, FAULT, merged_into=dead)
    assert operator.sees() == {waits: "waiting", dead: "dead", perhaps: "uncertain"}
    assert operator.sees("--dead") == {dead: "dead"}
    [shown] = json.loads(operator.does("list", "--dead", "--json").stdout)
    assert shown == {
        "id": dead,
        "case_id": 2,
        "payment_id": "in_2",
        "subscription_id": None,
        "kind": "hook",
        "name": "case.lost",
        "channel": "hook",
        "state": "dead",
        "tries": 8,
        "due_at": None,
        "error": FAULT,
    }


def test_the_list_is_readable(operator: Operator, engine: Engine) -> None:
    """One line a message, and a sentence when there is none."""
    assert operator.does("list").stdout == "No messages.\n"
    ended(engine, "gone")
    assert operator.does("list").stdout.splitlines()[1].split()[:7] == [
        "1",
        "1",
        "in_1",
        "notice",
        "first",
        "mail",
        "dead",
    ]


def test_what_was_given_up_is_tried_again_at_once(operator: Operator, engine: Engine) -> None:
    """As if it had never been tried; the history of the case tells it, and what is uncertain stays."""
    dead, other, perhaps = ended(engine, FAULT), ended(engine, FAULT), ended(engine, UNCERTAIN)
    assert operator.retries("--dead") == (0, {dead: "done", other: "done"})
    [row] = sql(engine, "SELECT due_at, tries, error FROM outbox WHERE id = :id", id=dead)
    assert tuple(row) == (NOW, 0, None)
    assert told(engine) == ["retried"]
    assert operator.sees() == {dead: "waiting", other: "waiting", perhaps: "uncertain"}
    assert operator.does("retry", "--dead").stdout == "Nothing was given up.\n"


def test_what_waits_after_a_fault_need_not_wait(operator: Operator, engine: Engine) -> None:
    """The endpoint works again, so nobody has to wait for twelve hours."""
    waits = add_notice(engine, add_case(engine), due_at=NOW + 12 * HOUR, tries=9, error=FAULT)
    assert operator.retries(str(waits)) == (0, {waits: "done"})
    assert one(engine, "SELECT due_at FROM outbox") == NOW


def test_what_is_uncertain_takes_a_word_of_its_own(operator: Operator, engine: Engine) -> None:
    """The customer may get it twice."""
    perhaps = ended(engine, UNCERTAIN)
    code, verdicts = operator.retries(str(perhaps))
    why = "skipped: it was perhaps delivered; with --even-if-delivered the customer may get it twice"
    assert (code, verdicts) == (1, {perhaps: why})
    assert operator.sees() == {perhaps: "uncertain"}
    assert operator.retries(str(perhaps), "--even-if-delivered") == (0, {perhaps: "done"})


def test_each_message_that_is_not_tried_again_is_told_why(operator: Operator, engine: Engine) -> None:
    """And the others are, whatever stands beside them."""
    dead = ended(engine, FAULT)
    part, left = ended(engine, FAULT, merged_into=dead), ended(engine, None, delivered_at=START)
    turn = add_notice(engine, add_case(engine, payment_id="in_w"), due_at=NOW + HOUR)
    meant, of_ended = ended(engine, OBSERVED), over(engine)
    sql(engine, "UPDATE outbox SET lease_token = gen_random_uuid(), lease_until = now() WHERE id = :id", id=turn)
    code, verdicts = operator.retries(*map(str, (dead, part, left, turn, meant, of_ended, 99)))
    assert code == 1
    assert verdicts == {
        dead: "done",
        part: f"skipped: it is a part of message {dead}",
        left: "skipped: it was delivered",
        turn: "skipped: somebody is delivering it",
        meant: f"skipped: {OBSERVED}",
        of_ended: f"skipped: {OVER}",
        99: "skipped: there is no such message",
    }
    sql(engine, "UPDATE outbox SET lease_token = NULL, lease_until = NULL WHERE id = :id", id=turn)
    assert operator.retries(str(turn))[1] == {turn: "skipped: it waits for its turn at 2026-01-13T16:00:00Z"}


@pytest.mark.parametrize("kind", [{"kind": "hook", "name": "case.lost", "channel": "hook"}, {"name": "ended"}])
def test_what_is_told_of_an_ended_case_can_be_tried_again(
    operator: Operator, engine: Engine, kind: dict[str, str]
) -> None:
    """A hook and a last notice are about just that."""
    number = over(engine, **kind)
    assert operator.retries(str(number)) == (0, {number: "done"})


@pytest.mark.parametrize("arguments", [(), ("1", "--dead"), ("0",), ("first",)])
def test_it_must_be_said_what_is_meant(operator: Operator, arguments: tuple[str, ...]) -> None:
    """Numbers, or everything that is dead."""
    assert operator.does("retry", *arguments).returncode == 2


def test_verdicts_are_readable(operator: Operator, engine: Engine) -> None:
    """One line a message."""
    ended(engine, FAULT)
    assert operator.does("retry", "1", "2").stdout == "1: done\n2: skipped: there is no such message\n"


def test_the_audit_finds_what_was_given_up_and_nothing_else(engine: Engine) -> None:
    """For thirty days; what was not to leave, and what perhaps has left, is no fault."""
    for error in (OVER, OBSERVED, PAUSED, REASONS[BOUNCED] + ": 550", UNCERTAIN):
        ended(engine, error)
    add_notice(engine, 1, name="reminder", tries=3, error=FAULT)
    sentence = "No message of the last 30 days was given up."

    def found(at: Any) -> list[Any]:
        [finding] = [each for each in audit.examine(engine, Policy.default(), at) if each.statement == sentence]
        return [(row["id"], row["payment_id"], row["error"]) for row in finding.rows]

    assert found(NOW) == []
    dead = ended(engine, FAULT)
    assert found(NOW) == [(dead, "in_6", FAULT)]
    assert found(START + 31 * DAY) == []
