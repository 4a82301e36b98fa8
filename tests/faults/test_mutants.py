"""Would the tests see it if a rule were missing? Each rule is broken once; the oracle must see it, and only then.

The oracle is the bank's ledger, the number of requests at its door, and the messages that an SMTP server took.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import Engine

from tests.faults.conftest import SetStage
from tests.faults.passes import Stage
from tests.worker.bench import Scripted
from tests.worker.builders import FUNDS, LOST, add_notice, opened, payment, sql
from tests.worker.postbox import Postbox, smtp
from worker.models import attempts

SOON = timedelta(hours=1)


@pytest.fixture
def postbox() -> Iterator[tuple[Postbox, str]]:
    """Give an SMTP server that takes everything."""
    with smtp() as running:
        yield running


@pytest.fixture(params=["as it is", "mutated"])
def mutated(request: pytest.FixtureRequest) -> bool:
    """Run each scenario with the code as it is, and with one rule broken."""
    found: bool = request.param == "mutated"
    return found


@pytest.fixture
def no_index(engine: Engine, mutated: bool) -> Iterator[None]:
    """Take the database's own fences away, if the rule is to be broken: either of them alone would hold."""
    fences = [index for index in attempts.indexes if index.name in {"uq_attempts_unresolved", "uq_attempts_number"}]
    for fence in fences if mutated else ():
        fence.drop(engine)
    yield
    sql(engine, "DELETE FROM attempts")
    for fence in fences if mutated else ():
        fence.create(engine)


def doubled(stage: Stage) -> bool:
    """Say whether the bank approved a charge of the invoice twice."""
    return bool(stage.bench.summary["double_charges"])


def test_a_fresh_key_for_each_try_charges_twice(set_stage: SetStage, mutated: bool) -> None:
    """The bank charged and the connection broke: the second try is a second charge unless it has the same key."""
    stage = set_stage()
    stage.bench.fault("reset_after")
    stage.start(mutant="fresh_key_per_try" * mutated)
    stage.finish()
    assert doubled(stage) == mutated


@pytest.mark.usefixtures("no_index")
def test_two_attempts_at_once_charge_twice(set_stage: SetStage, mutated: bool) -> None:
    """A request hangs on its way while another worker takes over: the second one must not be a new attempt."""
    stage = set_stage()
    stage.gate.close("door")
    stage.race(mutant="no_fence_on_the_invoice" * mutated)
    if not mutated:
        stage.finish()
    assert doubled(stage) == mutated


def test_a_claim_without_a_lease_sends_a_step_twice(set_stage: SetStage, mutated: bool) -> None:
    """A second worker sweeps while the first is in its call and its lease holds: the bank hears of it once."""
    stage = set_stage()
    stage.gate.close("door")
    stage.race(steal=False, mutant="claim_without_lease" * mutated)
    assert (stage.gate.payments > 1) == mutated


def test_settling_without_the_token_charges_again_at_once(set_stage: SetStage, mutated: bool) -> None:
    """A worker wakes with the stale answer "not executed" after another one was refused: nothing may be forgotten."""
    stage = set_stage(Scripted(declines=[FUNDS] * 20))
    stage.bench.fault("429")
    stage.gate.close("exit")
    stage.race(mutant="settle_without_token" * mutated)
    while len(stage.charges) < 2 and stage.case.closed_at is None:
        stage.due()
        stage.start(1)
    instants = [at for at, _ in stage.charges]
    assert any(after - before < SOON for before, after in pairwise(instants)) == mutated


def test_mail_before_the_commit_is_sent_twice(set_stage: SetStage, postbox: tuple[Postbox, str], mutated: bool) -> None:
    """The worker dies as it commits that it has taken the message: the next one must be the first to send it."""
    stage = set_stage(Scripted([payment(decline=LOST)]), planned=False, DUNNING_SMTP_URL=postbox[1])
    opened(stage.bench.engine, payment(decline=LOST))
    add_notice(stage.bench.engine, 1, name="first")
    mutant = "mail_before_commit" * mutated
    assert stage.start(place="before_mail_commit", mutant=mutant) == -9
    stage.expire()
    assert stage.start(mutant=mutant) == 0
    assert (len(postbox[0].taken) > 1) == mutated


def test_an_event_marked_before_it_is_handled_is_lost(set_stage: SetStage, mutated: bool) -> None:
    """The worker dies in between: the renewal that failed is tried again all the same."""
    stage = set_stage(planned=False)
    stage.hear_of_failure()
    mutant = "handled_before_it_is" * mutated
    assert stage.start(place="before_event_commit", mutant=mutant) == -9
    stage.start(mutant=mutant)
    if not mutated:
        stage.finish()
    assert (stage.charges == []) == mutated
