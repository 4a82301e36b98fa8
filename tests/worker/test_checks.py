"""Is each part of an installation judged rightly, at its limits and where it cannot be asked?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.builders import START
from tests.worker.postbox import smtp
from worker import checks
from worker.clock import machine_now
from worker.embedded import Servers
from worker.settings import Settings, load_settings


def given(**values: Any) -> Settings:
    """Return settings with these values."""
    return Settings(**values)


@contextmanager
def kept_as(url: str, policy: str) -> Iterator[None]:
    """Let the tests' own broker have another policy for the time of a context."""
    with Redis.from_url(checks.redis_url(url)) as server:
        server.config_set("maxmemory-policy", policy)
        try:
            yield
        finally:
            server.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("apart", "ok", "advised"),
    [(0, True, False), (5, True, False), (6, True, True), (60, True, True), (61, False, True), (-61, False, True)],
)
def test_a_clock_is_told_from_5_s_and_fails_from_60_s(apart: int, ok: bool, advised: bool) -> None:
    """Ahead or behind is the same."""
    check = checks.clock("clock of Stripe", START + timedelta(seconds=apart), START)
    assert (check.ok, check.advice is not None, check.detail) == (ok, advised, f"{abs(apart)} s from this machine's")


def test_the_clock_of_the_database_is_compared_with_the_given_one(engine: Engine) -> None:
    """It is the machine's own time that counts, not the practised day."""
    assert not checks.database_clock(engine, lambda: START).ok


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_broker_that_forgets_is_found(running: Servers, policy: str) -> None:
    """It says which policy it has and which it should have."""
    assert checks.broker(running.broker_url).detail == "answers; maxmemory-policy is noeviction"
    with kept_as(running.broker_url, policy):
        check = checks.broker(running.broker_url)
    assert (check.ok, policy in check.detail, "noeviction" in str(check.advice)) == (False, True, True)


def test_a_broker_that_may_not_be_asked_is_unknown(running: Servers) -> None:
    """A managed broker forbids CONFIG: that is no failure."""
    place = checks.redis_url(running.broker_url)
    with Redis.from_url(place) as server:
        server.acl_setuser("guest", enabled=True, nopass=True, commands=["+ping"])
        try:
            check = checks.broker(place.replace("://", "://guest:any@", 1))
        finally:
            server.acl_deluser("guest")
    assert (check.ok, check.detail) == (True, "answers; its maxmemory-policy is unknown")
    assert "noeviction" in str(check.advice)


@pytest.mark.parametrize("url", ["redis://:canary@127.0.0.1:9/0", "redis+socket:///canary?virtual_host=0"])
def test_a_broker_that_does_not_answer_is_told_without_its_address(url: str) -> None:
    """Over the network and over a socket."""
    check = checks.broker(url)
    assert (check.ok, check.detail) == (False, "no connection: ConnectionError")
    assert "canary" not in str(check)


def test_the_policy_is_read_and_held_against_itself(tmp_path: Path) -> None:
    """Nothing set is the default; a void choice is worth a look; a file that cannot be used fails."""
    policy, [check] = checks.policy_of(load_settings())
    assert (policy, check.ok, check.advice) == (Policy.default(), True, None)
    file = tmp_path / "policy.toml"
    file.write_text("silent_days = 20\n")
    policy, found = checks.policy_of(given(policy=file))
    assert (policy.silent_days, found[0].ok) == (20, True)
    assert any("is not before the deadline" in each.detail and each.advice for each in found)
    file.unlink()
    policy, [missing] = checks.policy_of(given(policy=file))
    assert (policy, missing.ok) == (Policy.default(), False)


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({}, "observe: "),
        ({"mode": "live", "stripe_api_key": "sk_test_1"}, "live: no real money"),
        ({"mode": "live", "stripe_api_key": "sk_live_1", "live_switch": "on"}, "live: charges real customers"),
    ],
)
def test_the_mode_says_whether_money_moves(values: dict[str, Any], detail: str) -> None:
    """Observing is worth a look: it recovers nothing."""
    check = checks.mode(given(**values))
    assert check.detail.startswith(detail)
    assert (check.advice is None) == ("live" in values.values())


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({}, "DUNNING_SMTP_URL"),
        ({"smtp_url": "right"}, "DUNNING_MAIL_FROM"),
        ({"smtp_url": "right", "mail_from": "billing@shop.example"}, None),
    ],
)
def test_mail_says_where_notices_go(values: dict[str, Any], advice: str | None) -> None:
    """Kept as files, sent from an address that nobody can answer, or well: the server let us in."""
    with smtp(password="canary") as (_, url):
        address = {"smtp_url": url.replace("//", "//user:canary@")} if values else {}
        check = checks.mail(given(**{**values, **address}))
    assert (check.ok, "canary" in str(check)) == (True, False)
    assert (advice or "None") in str(check.advice)


@pytest.mark.parametrize(
    ("password", "detail"),
    [("right", "the mail server refused user or password of DUNNING_SMTP_URL (535)"), (None, "cannot be reached")],
)
def test_a_mail_server_that_takes_nothing_from_us_is_told(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, password: str | None, detail: str
) -> None:
    """In one line that names the setting and not its content; a start tells it in the log, and goes on."""
    with smtp(password=password) as (_, url):
        there = url if password else "smtp://127.0.0.1:9"
        settings = given(smtp_url=there.replace("//", "//user:canary@"))
        check = checks.mail(settings)
        checks.tell_of_mail(settings)
    assert (check.ok, detail in check.detail, "DUNNING_SMTP_URL" in str(check)) == (False, True, True)
    told = "".join(capfd.readouterr()) + caplog.text
    assert detail in told
    assert "canary" not in str(check) + told


@pytest.mark.parametrize(("secrets", "detail"), [("", "none"), ("whsec_canary", "1 set"), ("whsec_1,whsec_2", "2 set")])
def test_the_webhook_secret_is_counted_and_not_told(secrets: str, detail: str) -> None:
    """One is right; none, or an old one beside the new one, is worth a look."""
    check = checks.webhook_secret(given(stripe_webhook_secret=secrets))
    assert check.detail.startswith(detail)
    assert (check.ok, check.advice is None, "canary" in str(check)) == (True, detail == "1 set", False)


def test_a_role_does_not_start_over_a_broker_that_forgets(engine: Engine, running: Servers) -> None:
    """The words say what to change; with the right policy it starts."""
    settings = given(broker_url=running.broker_url)
    checks.refuse_to_start(engine, settings)
    with kept_as(running.broker_url, "allkeys-lru"), pytest.raises(checks.NotReady, match="set maxmemory-policy"):
        checks.refuse_to_start(engine, settings)


@pytest.mark.parametrize("ahead", [61, -61])
def test_a_role_does_not_start_on_a_clock_that_is_wrong(engine: Engine, running: Servers, ahead: int) -> None:
    """Leases, signatures and the ages of keys would be wrong with it."""
    settings = given(broker_url=running.broker_url)
    checks.refuse_to_start(engine, settings, lambda: machine_now() + timedelta(seconds=ahead // 2))
    with pytest.raises(checks.NotReady, match=r"clock of the database: .* NTP"):
        checks.refuse_to_start(engine, settings, lambda: machine_now() + timedelta(seconds=ahead))


def test_a_role_waits_for_a_broker_that_is_away(
    engine: Engine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Celery connects when it is back; a warning says so, without the address."""
    checks.refuse_to_start(engine, given(broker_url="redis://:canary@127.0.0.1:9/0"))
    told = "".join(capfd.readouterr()) + caplog.text
    assert "no connection" in told
    assert "canary" not in told


def test_a_role_starts_on_a_broker_that_may_not_be_asked_and_warns(
    engine: Engine, running: Servers, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A managed broker: what it should be set to is in the log."""
    place = checks.redis_url(running.broker_url)
    with Redis.from_url(place) as server:
        server.acl_setuser("guest", enabled=True, nopass=True, commands=["+ping"])
        try:
            checks.refuse_to_start(engine, given(broker_url=running.broker_url.replace("://", "://guest:any@", 1)))
        finally:
            server.acl_deluser("guest")
    assert "noeviction" in "".join(capfd.readouterr()) + caplog.text
