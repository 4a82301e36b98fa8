"""Does the doctor find what is not in order, and say what to do about it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from schedules import Decline, Policy
from schedules.policy import DeclineRule
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import CARD, DAY, FUNDS, JSON, START, add_attempt, add_case, add_notice
from tests.worker.postbox import smtp
from worker import doctor, watch
from worker.app import make_engine
from worker.checks import Check, carefully
from worker.doctor import UnknownCode
from worker.embedded import Servers
from worker.models import UNCERTAIN
from worker.settings import Settings, load_settings

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


@pytest.fixture
def bank(serve: Serve) -> Bench:
    """Give a bank without customers, which knows where our events go."""
    opened = serve(Scripted([]))
    opened.control("webhook", {"url": "https://dunning.example/webhooks/stripe", "secret": "whsec_1"})
    return opened


@pytest.fixture
def mail_server() -> Iterator[str]:
    """Give the address of a mail server."""
    with smtp() as (_, url):
        yield url


@pytest.fixture
def configured(running: Servers, bank: Bench, mail_server: str) -> Settings:
    """Give the settings of an installation in which everything is as it should be."""
    given: Any = {
        "mode": "live",
        "broker_url": running.broker_url,
        "stripe_api_key": "rk_test_1",
        "stripe_api_base": f"http://127.0.0.1:{bank.port}",
        "stripe_webhook_secret": "whsec_1",
        "smtp_url": mail_server,
        "mail_from": "billing@shop.example",
    }
    return Settings(**given)


def named(engine: Engine, settings: Settings) -> dict[str, Check]:
    """Return what the doctor finds by the name of the check."""
    return {each.name: each for each in doctor.examine(engine, settings, NOW).checks}


def test_an_installation_in_order_has_nothing_to_do(engine: Engine, configured: Settings) -> None:
    """Every part is told, all are well, and the only advice is about what no look can show."""
    watch.did(engine, "worker", watch.TICK)
    found = named(engine, configured)
    assert list(found) == [
        "mode",
        "policy",
        "mail",
        "notices",
        "webhooks to you",
        "database",
        "clock of the database",
        "broker",
        "webhook secret",
        "key",
        "clock of Stripe",
        "rights",
        "Stripe's retries",
        "webhook endpoint dunning.example",
        "webhook events",
    ]
    assert all(check.ok for check in found.values())
    assert [name for name, check in found.items() if check.advice] == ["key"]


def test_every_part_that_is_down_is_told_and_hides_no_other(configured: Settings, tmp_path: Path) -> None:
    """Database, broker, policy and Stripe at once: four failures, and nothing that names a host or a secret."""
    (tmp_path / "policy.toml").write_text("silent_dayz = 5\n")
    broken = {
        "broker_url": "redis://:canary@127.0.0.1:9/0",
        "policy": tmp_path / "policy.toml",
        "stripe_api_base": "http://127.0.0.1:9",
        "stripe_api_key": SecretStr("rk_test_canary"),
    }
    engine = make_engine("postgresql+psycopg://canary:canary@127.0.0.1:9/canary")
    found = named(engine, configured.model_copy(update=broken))
    engine.dispose()
    assert [name for name, check in found.items() if not check.ok] == ["policy", "database", "broker", "Stripe"]
    assert "DUNNING_DATABASE_URL" in str(found["database"].advice)
    assert "DUNNING_BROKER_URL" in str(found["broker"].advice)
    assert "silent_dayz" in found["policy"].detail
    assert "canary" not in str(found)


def test_messages_that_perhaps_left_are_told(engine: Engine, configured: Settings) -> None:
    """Nobody repeats them: a person looks whether they have arrived. One that is being sent is none of them."""
    case_id = add_case(engine)
    add_notice(engine, case_id, error=UNCERTAIN)
    assert "messages" not in named(engine, configured)
    add_notice(engine, case_id, name="reminder", error=UNCERTAIN, due_at=None)
    found = named(engine, configured)["messages"]
    assert (found.ok, found.detail) == (True, "1 perhaps delivered, and not repeated")
    assert "Message-ID" in str(found.advice)


def test_a_database_of_another_shape_is_found(bare: Engine, configured: Settings) -> None:
    """What to do is told; what can only be read from the database is not looked at."""
    found = named(bare, configured)
    assert (found["database"].ok, found["database"].advice) == (False, "run `dunning db upgrade`")
    assert "clock of the database" not in found


def test_without_a_key_nothing_is_asked(engine: Engine, configured: Settings) -> None:
    """The key is what is missing; what the account would show is not told at all."""
    found = named(engine, configured.model_copy(update={"stripe_api_key": None}))
    assert [name for name, check in found.items() if not check.ok] == ["key"]
    assert "rights" not in found


@pytest.mark.parametrize(
    ("wish", "name", "detail", "advice"),
    [
        ({"revoked": True}, "Stripe", "the key is refused (401): ", "DUNNING_STRIPE_API_KEY"),
        ({"newest": "2024-06-20"}, "Stripe", "the API version ", ""),
        ({"missing": ["rak_customer_read"]}, "right to read customers", "the key lacks rak_customer_read", "Customers"),
    ],
)
def test_missing_access_is_named_with_what_to_do(  # noqa: PLR0913, PLR0917 - a row of the table and two fixtures
    bank: Bench, configured: Settings, wish: JSON, name: str, detail: str, advice: str
) -> None:
    """The key, the version or one right: in the words of the gateway."""
    bank.control("access", wish)
    found = named(bank.engine, configured)[name]
    assert not found.ok
    assert found.detail.startswith(detail)
    assert advice in str(found.advice)


def test_a_check_that_raises_is_a_failed_check() -> None:
    """Its kind is told, never its text."""

    def raises() -> list[Check]:
        raise LookupError("canary")  # noqa: EM101 - the text is what must not be shown

    [check] = carefully("thing", raises)
    assert (check.name, check.ok, check.detail) == ("thing", False, "could not be looked at: LookupError")


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
    check = doctor.examine(engine, load_settings(), NOW).checks[-1]
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
