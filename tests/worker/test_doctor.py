"""Does the doctor find what is not in order, and say what to do about it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest
from sqlalchemy import Engine, make_url

from schedules import Decline, Policy
from schedules.policy import DeclineRule
from tests.worker.builders import CARD, DAY, FUNDS, START, add_attempt, add_case
from worker import doctor
from worker.app import make_engine
from worker.doctor import Check, UnknownCode
from worker.embedded import Servers

POLICY = Policy.default()
NOW = START + DAY
NEW = Decline("brand_new", network_decline_code="51", outcome_type="issuer_declined")


@pytest.fixture
def bare(running: Servers) -> Iterator[Engine]:
    """Give an engine on a database that was never migrated."""
    url = make_url(running.database_url).set(database="postgres")
    engine = make_engine(url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


def test_a_new_installation_is_in_order(engine: Engine) -> None:
    """One check, nothing to do."""
    assert doctor.checks(engine, POLICY, NOW) == [Check("database", ok=True, detail="in the shape of this version")]


def test_a_database_of_another_shape_is_found(bare: Engine) -> None:
    """Only this is told: nothing else can be known."""
    [check] = doctor.checks(bare, POLICY, NOW)
    assert (check.ok, check.advice) == (False, "run `dunning db upgrade`")


def test_a_database_that_does_not_answer_is_found_without_its_address() -> None:
    """A report may be shown to anybody: it names neither host nor user nor password."""
    engine = make_engine("postgresql+psycopg://canary:canary@127.0.0.1:9/canary")
    [check] = doctor.checks(engine, POLICY, NOW)
    engine.dispose()
    assert not check.ok
    assert "DUNNING_DATABASE_URL" in str(check.advice)
    assert "canary" not in str(check)


def test_unknown_codes_are_counted_over_all_refusals(engine: Engine) -> None:
    """Of renewals, of our charges and of others'; not of charges without a case, nor of the year before."""
    told = {"decline": asdict(NEW), "card": asdict(CARD), "settled_at": START}
    case_id = add_case(engine, decline=asdict(NEW), failed_card=asdict(CARD))
    add_case(engine, payment_id="in_2", decline=asdict(FUNDS), failed_card=asdict(CARD))
    add_case(engine, payment_id="in_3", decline=asdict(NEW), failed_at=START - 90 * DAY)
    add_attempt(engine, case_id, state="declined", **told)
    add_attempt(engine, case_id, state="foreign", number=2, idempotency_key="ch_2", **told)
    add_attempt(engine, case_id, state="observed", number=3, idempotency_key="k3", **told)
    add_attempt(engine, case_id, state="declined", number=4, idempotency_key="k4", at=START - 90 * DAY, **told)
    add_attempt(engine, None, state="foreign", idempotency_key="ch_5", **told)
    assert doctor.unknown_codes(engine, POLICY, NOW) == [UnknownCode("code:brand_new", 3, ("retry_later",))]
    _, check = doctor.checks(engine, POLICY, NOW)
    assert (check.name, check.ok) == ("unknown decline code code:brand_new", True)
    assert check.detail == "3 refusals in 90 days, treated as retry_later"
    assert "[[declines]]" in str(check.advice)


def test_the_commonest_unknown_code_comes_first(engine: Engine) -> None:
    """One refusal may hold several codes that nobody knows; each counts."""
    both = Decline("newer", network_decline_code="Q9")
    add_case(engine, decline=asdict(both), failed_card=asdict(CARD))
    add_case(engine, payment_id="in_2", decline=asdict(replace(both, code="newest")), failed_card=asdict(CARD))
    found = [(each.code, each.count) for each in doctor.unknown_codes(engine, POLICY, NOW)]
    assert found[0] == ("network_decline_code:Q9", 2)
    assert sorted(found[1:]) == [("code:newer", 1), ("code:newest", 1)]


def test_a_code_that_the_merchant_explained_is_known(engine: Engine) -> None:
    """After the advice was followed there is nothing more to tell."""
    add_case(engine, decline=asdict(NEW), failed_card=asdict(CARD))
    rule = DeclineRule("stripe_card", "brand_new", "never")
    assert doctor.unknown_codes(engine, replace(POLICY, declines=(rule,)), NOW) == []
