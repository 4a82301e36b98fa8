"""Does the built-in world hit what is published, and by how much does it miss? With 1,000 payments of one seed."""

from __future__ import annotations

from functools import lru_cache

import pytest

from tests.simulate.targets import SEED, TARGETS, Run, Target, runs_of


@lru_cache(maxsize=1)
def runs() -> dict[str, Run]:
    """Play every policy of the table once for all tests."""
    return runs_of(SEED, 1000)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.what)
def test_the_world_comes_near_the_reference(target: Target) -> None:
    """Within the tolerance of the row, of which chance is about 3 points for a share of all payments."""
    assert target.measure(runs()) == pytest.approx(target.reference, abs=target.tolerance)


def test_the_policies_stand_in_the_published_order() -> None:
    """Nothing, three retries, the same by day; with mails; silent and timed; with the updater; with mails after it."""
    shares = [runs()[name].share for name in ("nothing", "three", "three by day", "four", "updater", "default")]
    assert shares == sorted(shares)
    assert shares[-1] - shares[1] > 20


def test_mails_from_the_first_day_drive_more_customers_away_and_bring_no_more_back() -> None:
    """The reference says 0.8 points less back and 0.7 points more cancelations."""
    early, default = runs()["early"], runs()["default"]
    assert early.driven_away > default.driven_away
    assert early.share < default.share + 1
