"""Do the benchmarks measure what they say, and between providers that tell the same?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from inspect import currentframe
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select

from benchmarks.instant import Instant
from benchmarks.measure import Row, interleave, ratios
from benchmarks.profile import library
from benchmarks.renewals import DUE_AT, add_due
from benchmarks.table import as_text, write_page
from schedules import Decline, Policy
from tests.worker.builders import until
from worker import charging
from worker.desk import Desk
from worker.leases import claim_due
from worker.models import attempts, cases
from worker.stripe_gateway import Declined, Paid, StripeGateway

REPO = Path(__file__).parents[1]
MISSED = Row("claim", "an empty look", "ms", (5.0, 1.0, 4.0), most=3)


def gateway(folder: Path, *options: str) -> Iterator[StripeGateway]:
    """Give the gateway to a provider of the benchmarks that runs in a process of its own."""
    file = folder / "port"
    command = [sys.executable, "-m", "benchmarks.provider", f"--port-file={file}", *options]
    with subprocess.Popen(command, cwd=REPO) as process:
        until(file.exists)
        yield StripeGateway("sk_test_1", f"http://127.0.0.1:{file.read_text(encoding='ascii')}", 5, 20)
        process.terminate()


@pytest.fixture
def paying(tmp_path: Path) -> Iterator[StripeGateway]:
    """A provider that takes every charge."""
    yield from gateway(tmp_path)


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[StripeGateway]:
    """A provider that refuses every charge."""
    yield from gateway(tmp_path, "--declines")


def test_every_way_takes_its_turn_in_every_round_and_each_is_once_the_first() -> None:
    """Whoever comes first finds a colder machine."""
    turns: list[str] = []

    def way(name: str) -> int:
        turns.append(name)
        return len(turns)

    found = interleave({name: lambda name=name: way(name) for name in "abc"}, rounds=3)  # type: ignore[misc]
    assert "".join(turns) == "abcbcacab"
    assert found == {"a": (1, 6, 8), "b": (2, 4, 9), "c": (3, 5, 7)}


def test_a_ratio_is_taken_within_a_round() -> None:
    """The machine is another one in each of them."""
    assert ratios((2.0, 9.0), (1.0, 3.0)) == (2.0, 3.0)


def test_the_median_is_compared_with_what_was_asked() -> None:
    """One good round is luck, one bad round too."""
    assert MISSED.met is False
    assert replace(MISSED, most=4).met is True
    assert replace(MISSED, most=None).met is None


def test_a_table_tells_the_median_the_spread_and_what_was_missed() -> None:
    """Numbers alone would leave the judgement to the reader."""
    assert " ".join(as_text([MISSED]).split()) == "an empty look 4 ms 1 to 5 ≤ 3: missed"


def test_a_page_gets_the_table_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    """What people wrote around it stays."""
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- claim -->\nold\n<!-- /claim -->\nafter\n", encoding="utf-8")
    write_page(page, [MISSED], "2 cores")
    text = page.read_text(encoding="utf-8")
    assert "| an empty look | 4 ms | 1 to 5 | ≤ 3: missed |" in text
    assert "old" not in text
    assert (text.splitlines()[0], text.splitlines()[-1]) == ("before", "after")


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    """Figures that nobody sees are not written down."""
    page = tmp_path / "performance.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for claim"):
        write_page(page, [MISSED], "2 cores")


def test_a_look_goes_to_the_library_whose_code_runs_and_generated_code_to_its_caller() -> None:
    """A dataclass writes its own code: who makes one pays for it."""
    frames: dict[str, Any] = {"currentframe": currentframe}
    exec("frame = currentframe()", frames)  # noqa: S102 - as dataclasses does
    assert library(frames["frame"]) == library(currentframe()) == "tests/"
    assert library(None) == "Python"


def test_both_providers_show_the_same_invoice(paying: StripeGateway) -> None:
    """What costs no network must leave the worker as much to do."""
    shown = replace(paying.read("in_7"), email=None, link=None, product=None)
    assert shown == Instant().read("in_7")


def test_an_invoice_is_paid_once_it_is_charged(paying: StripeGateway) -> None:
    """Another one stays as it was."""
    assert paying.pay("in_7", "key") == Instant().pay("in_7", "key") == Paid()
    assert (paying.read("in_7").ended, paying.read("in_8").ended) == ("paid", None)


def test_a_refused_charge_leaves_a_charge_behind(refusing: StripeGateway) -> None:
    """So its evidence is read and judged as that of a real one."""
    told = refusing.pay("in_7", "key")
    assert isinstance(told, Declined)
    assert told.decline == Decline("insufficient_funds", "try_again_later", "51", "26")
    assert (refusing.read("in_7").charge_id, refusing.read("in_8").charge_id) == ("ch_7_1", "ch_8_0")


def test_the_stored_cases_are_charged_at_once_and_each_once(engine: Engine, paying: StripeGateway) -> None:
    """A case that waited, or was closed without a charge, would be settled too cheaply."""
    add_due(engine, range(3))
    desk = Desk(engine, paying, Policy.default(), live=True, lease_seconds=180, now=DUE_AT)
    with engine.begin() as db:
        due = claim_due(db, cases, DUE_AT, 10, 180)
    for number, token in due:
        assert charging.work(desk, number, UUID(token))
    with engine.connect() as db:
        done = db.execute(select(attempts.c.payment_id, attempts.c.state)).all()
        left = db.execute(select(cases.c.id).where(cases.c.state != "recovered")).all()
    assert sorted(done) == [(f"in_{number}", "succeeded") for number in range(3)]
    assert not left
