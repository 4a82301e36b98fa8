"""Is a wrong setting named before anything starts, and is no secret ever shown?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.builders import START
from worker.clock import business_now, set_clock
from worker.settings import Settings, SettingsError, load_settings

VALUES = {
    "HOME": "elsewhere",
    "DATABASE_URL": "postgresql+psycopg://dunning@db.example/dunning",
    "BROKER_URL": "redis://queue.example:6379/2",
    "STRIPE_API_KEY": "rk_test_1",
    "STRIPE_API_BASE": "http://127.0.0.1:1",
    "STRIPE_WEBHOOK_SECRET": "whsec_1,whsec_2",
    "SMTP_URL": "smtp://mail.example",
    "MAIL_FROM": "money@shop.example",
    "MAIL_REPLY_TO": "help@shop.example",
    "MERCHANT_NAME": "Ada's Shop",
    "MERCHANT_COLOUR": "#AA5500",
    "TEMPLATES": "own",
    "PUBLIC_URL": "https://pay.shop.example/dunning/",
    "LINK_SECRET": f"{'1' * 32},{'2' * 64}",
    "HOOK_URL": "https://crm.shop.example/dunning",
    "HOOK_SECRET": f"whsec_{'a' * 32},whsec_{'b' * 64}",
    "MAIL_WEBHOOK_SECRET": f"whsec_{'a' * 32},whsec_{'b' * 64}",
    "SIGNALS_SECRET": f"whsec_{'c' * 32},whsec_{'d' * 64}",
    "CONSOLE_TOKEN": "3" * 32,
    "CONSOLE_USER_HEADER": "X-Forwarded-User",
    "CONSOLE_PROXIES": "10.0.0.0/8, ::1",
    "POLICY": "policy.toml",
    "RISK_MODEL": "risk.json",
    "MODE": "live",
    "LIVE_SWITCH": "on",
    "CLOCK_FILE": "clock",
    "TICK_SECONDS": "3",
    "CONNECT_SECONDS": "1",
    "READ_SECONDS": "2",
    "REQUESTS_PER_SECOND": "20",
    "KEEP_EVENTS_DAYS": "40",
    "KEEP_HISTORY_DAYS": "400",
    "LEASE_SECONDS": "60",
}


def told(settings: Settings) -> dict[str, object]:
    """Return the settings with what is secret in the clear."""
    found = settings.model_dump()
    for name in ("stripe_api_key", "smtp_url", "hook_url", "console_token"):
        found[name] = found[name].get_secret_value()
    for name in ("stripe_webhook_secret", "link_secret", "hook_secret", "mail_webhook_secret", "signals_secret"):
        found[name] = [secret.get_secret_value() for secret in found[name]]
    return found


def test_the_table_of_this_test_is_complete() -> None:
    """Every setting there is is tried here."""
    assert {name.lower() for name in VALUES} == set(Settings.model_fields)


def test_nothing_has_to_be_set() -> None:
    """The defaults observe, and use the embedded servers."""
    settings = load_settings()
    assert (settings.mode, settings.database_url, settings.broker_url, settings.live_key) == (
        "observe",
        None,
        None,
        False,
    )


def test_each_variable_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of them as NAME_FILE give just what all of them as NAME give."""
    for name, value in VALUES.items():
        monkeypatch.setenv(f"DUNNING_{name}", value)
    direct = told(load_settings())
    load_settings.cache_clear()
    for name, value in VALUES.items():
        monkeypatch.delenv(f"DUNNING_{name}")
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"DUNNING_{name}_FILE", str(tmp_path / name))
    assert told(load_settings()) == direct
    assert direct["stripe_webhook_secret"] == ["whsec_1", "whsec_2"]


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable and the path, so that a wrong mount is found."""
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"DUNNING_STRIPE_API_KEY_FILE.*missing"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "mysql://u:canary@h/db", "postgresql"),
        ("BROKER_URL", "amqp://u:canary@h", "redis"),
        ("SMTP_URL", "canary.example:25", "smtp://"),
        ("SMTP_URL", "smtp://u:canary/1@mail.example", "%2F"),
        ("SMTP_URL", "smtp://u:canary@mail.example:70000", "smtp://"),
        ("PUBLIC_URL", "http://canary.example", "https"),
        ("PUBLIC_URL", "https://", "https"),
        ("PUBLIC_URL", "https://u:canary@shop.example", "https"),
        ("PUBLIC_URL", "https://shop.example/?canary", "https"),
        ("LINK_SECRET", f"{'1' * 32},canary", "32 characters"),
        ("MAIL_WEBHOOK_SECRET", "whsec_canary", "24 to 64 bytes"),
        ("MODE", "canary", "live"),
        ("REQUESTS_PER_SECOND", "0", "greater than 0"),
        ("REQUESTS_PER_SECOND", "101", "less than or equal to 100"),
        ("LEASE_SECONDS", "canary", "number"),
        ("LEASE_SECONDS", "-5", "greater than 0"),
        ("TICK_SECONDS", "0", "greater than 0"),
        ("READ_SECONDS", "nan", "DUNNING_READ_SECONDS"),
        ("READ_SECONDS", "inf", "DUNNING_"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    """The variable and what was expected, never the value, which may hold a password."""
    monkeypatch.setenv(f"DUNNING_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert expected in str(refused.value)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody mends a configuration one start at a time."""
    monkeypatch.setenv("DUNNING_MODE", "loud")
    monkeypatch.setenv("DUNNING_TICK_SECONDS", "often")
    with pytest.raises(
        SettingsError, match=r"(?s)DUNNING_MODE.*DUNNING_TICK_SECONDS|DUNNING_TICK_SECONDS.*DUNNING_MODE"
    ):
        load_settings()


def test_a_lease_shorter_than_a_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two owners of one case would be possible: time limits, the wait for a turn and the lease are checked together."""
    monkeypatch.setenv("DUNNING_LEASE_SECONDS", "174")
    with pytest.raises(SettingsError, match="DUNNING_LEASE_SECONDS"):
        load_settings()
    monkeypatch.setenv("DUNNING_LEASE_SECONDS", "175")
    load_settings()


@pytest.mark.parametrize("key", ["sk_live_canary", "rk_live_canary"])
def test_a_stepped_clock_is_refused_with_a_live_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Practice never moves real money."""
    monkeypatch.setenv("DUNNING_CLOCK_FILE", "clock")
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", key)
    with pytest.raises(SettingsError, match="DUNNING_CLOCK_FILE") as refused:
        load_settings()
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("key", ["sk_live_canary", "rk_live_canary"])
def test_a_live_key_charges_only_with_the_switch_on(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Live mode alone is refused, naming the switch; it may observe without, and charge with it."""
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", key)
    assert load_settings().live_key
    monkeypatch.setenv("DUNNING_MODE", "live")
    for switch in ("", "off"):
        load_settings.cache_clear()
        monkeypatch.setenv("DUNNING_LIVE_SWITCH", switch)
        with pytest.raises(SettingsError, match=r"DUNNING_LIVE_SWITCH: .*real customers") as refused:
            load_settings()
        assert "canary" not in str(refused.value)
    monkeypatch.setenv("DUNNING_LIVE_SWITCH", "on")
    assert load_settings().mode == "live"


@pytest.mark.parametrize("value", ["1", "yes", "ON!"])
def test_the_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Nothing else is taken for it."""
    monkeypatch.setenv("DUNNING_LIVE_SWITCH", value)
    with pytest.raises(SettingsError, match="DUNNING_LIVE_SWITCH"):
        load_settings()


@pytest.mark.parametrize("key", ["sk_test_1", "rk_test_1"])
def test_a_test_key_needs_no_switch(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It moves no money."""
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", key)
    monkeypatch.setenv("DUNNING_MODE", "live")
    assert load_settings().mode == "live"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_API_KEY", "sk_test_canary"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_canary,whsec_canary2"),
        ("LINK_SECRET", "canary" * 6),
        ("SMTP_URL", "smtp://u:canary@mail.example"),
        ("DATABASE_URL", "postgresql+psycopg://u:canary@db.example/dunning"),
        ("BROKER_URL", "redis://:canary@queue.example:6379/0"),
    ],
)
def test_no_secret_is_in_the_repr(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Settings end up in tracebacks and debuggers: what opens something is not in their text."""
    monkeypatch.setenv(f"DUNNING_{name}", value)
    settings = load_settings()
    assert "canary" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://pay.shop.example", "https://pay.shop.example"),
        ("https://shop.example:8443/billing/", "https://shop.example:8443/billing"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_links_stand_below_the_public_address(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    """Any https address, without its last slash; plain http only where no network is."""
    monkeypatch.setenv("DUNNING_PUBLIC_URL", given)
    assert load_settings().public_url == kept


def test_settings_do_not_change_while_running() -> None:
    """They are read once and frozen."""
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.mode = "live"


def test_business_time_can_be_stepped_by_a_file(tmp_path: Path) -> None:
    """Whoever reads the file next sees the new instant."""
    clock = tmp_path / "clock"
    set_clock(clock, START)
    assert business_now(clock) == START
    assert [file.name for file in tmp_path.iterdir()] == ["clock"]
