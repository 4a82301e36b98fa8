"""What is left when a worker dies, place by place? The matrix shows that it always ends well; these show how."""

from __future__ import annotations

from tests.faults.conftest import SetStage
from tests.worker.builders import the_attempts


def test_killed_before_the_claim_commits_the_case_is_still_due(set_stage: SetStage) -> None:
    """Fault 1: nothing is held, and the next pass takes it without waiting for anything."""
    stage = set_stage()
    assert stage.start(place="before_claim_commit") == -9
    assert (stage.case.lease_token, stage.charges) == (None, [])
    assert stage.start(1) == 0
    assert [approved for _, approved in stage.charges] == [True]


def test_killed_after_the_claim_the_lease_runs_out_first(set_stage: SetStage) -> None:
    """Fault 2: nobody touches the case while the lease holds; then it is charged once."""
    stage = set_stage()
    assert stage.start(place="after_claim_commit") == -9
    assert (stage.start(1), stage.charges) == (0, [])
    stage.expire()
    assert stage.start(1) == 0
    assert [approved for _, approved in stage.charges] == [True]


def test_killed_before_the_request_leaves_the_same_key_is_sent(set_stage: SetStage) -> None:
    """Fault 3: the attempt stands as sent, the bank knows nothing of it, and it is sent as it was written down."""
    stage = set_stage()
    assert stage.start(place="before_send") == -9
    [attempt] = the_attempts(stage.bench.engine)
    assert (attempt.state, stage.gate.payments) == ("sent", 0)
    stage.finish()
    assert [each["idempotency_key"] for each in stage.bench.ledger] == [attempt.idempotency_key]


def test_killed_after_the_answer_the_invoice_is_read_and_nothing_sent(set_stage: SetStage) -> None:
    """Fault 4: the next worker sees that it is paid; there is no second request."""
    stage = set_stage()
    assert stage.start(place="after_send") == -9
    stage.finish()
    assert (stage.gate.payments, [approved for _, approved in stage.charges]) == (1, [True])


def test_killed_around_the_last_commit_a_second_run_changes_nothing(set_stage: SetStage) -> None:
    """Fault 5: before it, the outcome is found by reading; after it, there is nothing left to do."""
    stage = set_stage()
    assert stage.start(place="before_record_commit") == -9
    assert the_attempts(stage.bench.engine)[0].state == "sent"
    stage.expire()
    assert stage.start(1, place="after_record_commit") == -9
    ended = stage.case
    stage.expire()
    assert (stage.start(), stage.case, stage.gate.payments) == (0, ended, 1)
