"""Is anybody charged twice, or left behind, when a worker dies? Every place to die, every fault of the provider.

Seven places (one of them nowhere), seven behaviours of the provider, one and two workers: 98 runs, each pass in a
process of its own, on real PostgreSQL. The bank is one that charges a paid invoice again when it is asked with
another key; its ledger is the only judge. The second worker steals the lease while the first is in its call.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.faults.conftest import SetStage
from tests.faults.passes import Stage

PLACES = [
    "",
    "before_claim_commit",
    "after_claim_commit",
    "before_send",
    "after_send",
    "before_record_commit",
    "after_record_commit",
]
FAULTS = ["ok", "429", "reset_before", "reset_after", "timeout_after", "500_after", "slow"]
PATIENCE = 0.6  # seconds; a request that is late for another reason is one fault more
SECONDS = {"timeout_after": 2 * PATIENCE, "slow": PATIENCE / 3}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place or "nowhere")
def test_a_worker_that_dies_never_charges_twice_and_leaves_nothing_behind(
    set_stage: SetStage, dice: Random, place: str, fault: str, workers: int
) -> None:
    """One approval at the bank and no other charge, whoever died where and whatever the provider did."""
    stage = set_stage(DUNNING_READ_SECONDS=str(PATIENCE) if fault == "timeout_after" else "5")
    if fault != "ok":
        stage.bench.fault(fault, seconds=SECONDS.get(fault, 0))
    if workers == 1:
        stage.start(place=place)
    else:
        stage.gate.close(dice.choice(["door", "exit"]))
        stage.race(place=place)
    died(stage, place)
    stage.finish()
    assert [approved for _, approved in stage.charges] == [True]
    assert stage.bench.summary["double_charges"] == 0


def died(stage: Stage, place: str) -> None:
    """See that the failpoint did what it is for."""
    assert (-9 in stage.exits) == bool(place), stage.exits
