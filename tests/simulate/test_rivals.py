"""Does the default policy beat "8 tries in 2 weeks and mails from day 0"? On five seeds, the same draws for both."""

from __future__ import annotations

from functools import lru_cache

import pytest

from tests.simulate.rivals import SEEDS, Duel, duel, together, violations
from worker.simulate.figures import RATIOS


@lru_cache(maxsize=len(SEEDS))
def small(seed: int) -> Duel:
    """Play 400 payments; docs/simulate.md tells of 10,000."""
    return duel(seed, 400)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["attempts_per_recovery", "notices_per_payment"])
def test_it_needs_fewer_charges_and_fewer_notices(seed: int, name: str) -> None:
    """On each seed the whole 95 % interval of the difference lies below zero."""
    assert small(seed).by(RATIOS[name]).interval[1] < 0


@pytest.mark.parametrize("seed", SEEDS)
def test_it_breaks_no_limit_where_its_rival_breaks_hundreds(seed: int) -> None:
    """No charge in a bank's night, over a network's budget, or after a refusal for good."""
    assert violations(small(seed).default) == 0
    assert violations(small(seed).fixed) > 200


def test_it_brings_back_no_less() -> None:
    """All five seeds together: 2,000 payments are too few to show by how much more, and enough to show no loss."""
    found = together([small(seed) for seed in SEEDS]).by(RATIOS["recovered_share"])
    assert found.value > 0
    assert found.interval[0] > -0.01
