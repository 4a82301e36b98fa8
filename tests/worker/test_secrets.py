"""Where could a secret be seen? Not in what an object shows of itself, not on a command line, not by the clock."""

from __future__ import annotations

import hmac
import os
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from tests.commands import every
from tests.worker.bench import Serve
from tests.worker.builders import START, event, invoice
from worker import inbox
from worker.clock import machine_now
from worker.eventfile import Found
from worker.links import BadLink, Links
from worker.mail import Mailbox
from worker.personal import impersonal
from worker.practice.events import signature
from worker.readings import reading_of
from worker.settings import SettingsError, load_settings
from worker.stripe_gateway import verify_event

ROOT = Path(__file__).parents[2]
LINKS = Links("https://pay.shop.example", (b"canary" * 8,))
BODY = b"{}"


def always_equal(_one: Any, _other: Any) -> bool:
    """Take everything for the same."""
    return True


def test_only_a_constant_time_comparison_decides_about_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures our answers learns nothing about a signature: no other comparison refuses a forged one."""
    forged = LINKS.to_pay(7, START).rpartition("/")[2][:-4] + "AAAA"
    with pytest.raises(BadLink):
        LINKS.case_of(forged, START)
    monkeypatch.setattr(hmac, "compare_digest", always_equal)
    assert LINKS.case_of(forged, START) == 7


def test_only_a_constant_time_comparison_decides_about_a_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own check is used as it is, and stays of that kind with every new version."""
    header = signature("whsec_other", BODY, int(time.time()))
    with pytest.raises(ValueError, match="does not fit"):
        verify_event(BODY, header, ("whsec_1",), machine_now())
    monkeypatch.setattr(hmac, "compare_digest", always_equal)
    verify_event(BODY, header, ("whsec_1",), machine_now())


def test_no_command_takes_a_secret_on_its_command_line() -> None:
    """Every account of a machine can read the arguments of all processes: secrets come from environment or files."""
    found = {name for _, each in every() for param in each.params for name in (param.name or "", *param.opts)}
    assert {"--seed", "--port", "case_id", "--json"} <= found
    told = ("secret", "key", "token", "password", "url", "smtp", "database", "broker")
    assert [name for name in found if any(word in name for word in told)] == []


def test_no_help_shows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set is not printed as a default."""
    for variable in ("STRIPE_API_KEY", "DATABASE_URL", "LINK_SECRET", "SMTP_URL"):
        monkeypatch.setenv(f"DUNNING_{variable}", "canary" * 8)
    told = "".join(each.get_help(click.Context(each)) for _, each in every())
    assert "Usage:" in told
    assert "canary" not in told


def test_what_holds_a_secret_or_a_customer_does_not_show_it(serve: Serve, tmp_path: Path) -> None:
    """The text of an object ends up in tracebacks, in error reports and in debuggers."""
    bench = serve(key="sk_test_canary")
    mailbox = Mailbox("billing@shop.example", tmp_path, "smtp://canary:canary@mail.example")
    told = event(subject=invoice(customer_email="canary@customer.example", hosted_invoice_url="https://canary.example"))
    kept = (inbox.parse_event(told), Found(1, told), reading_of(told["data"]["object"]))
    desk = replace(bench.desk(START), links=LINKS)
    assert "canary" in str(told)
    for shown in (desk, desk.gateway, mailbox, LINKS, *kept):
        assert "canary" not in repr(shown) + str(shown)


def test_notices_that_are_kept_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    """They hold the addresses of customers, and links with which one can pay."""
    mailbox = Mailbox("billing@shop.example", tmp_path / "home" / "notices")
    mailbox.send(EmailMessage(), "in_1-first")
    assert (mailbox.folder / "in_1-first.eml").is_file()
    assert mailbox.folder.stat().st_mode & 0o077 == 0


def test_what_is_personal_goes_from_any_kind_of_mapping() -> None:
    """Also from those that a library makes of an answer."""
    told = OrderedDict(id="in_1", customer_email="ada@customer.example", lines=OrderedDict(description="a plan"))
    assert impersonal(told) == {"id": "in_1", "customer_email": None, "lines": {"description": None}}


def test_an_error_of_the_database_does_not_quote_what_was_written(engine: Engine) -> None:
    """It ends up in logs, and with an event in the event's row."""
    with pytest.raises(ProgrammingError) as failed, engine.connect() as db:
        db.execute(text("SELECT :value FROM nowhere"), {"value": "canary"})
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize(("key", "mode"), [("rk_live_1", "observe"), ("rk_live_1", "live"), ("rk_test_1", "live")])
def test_a_stripe_library_that_prints_customers_is_refused(
    monkeypatch: pytest.MonkeyPatch, key: str, mode: str
) -> None:
    """With STRIPE_LOG=debug it prints whole answers past every filter: never in live mode or with a live key."""
    monkeypatch.setenv("STRIPE_LOG", "debug")
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", key)
    monkeypatch.setenv("DUNNING_LIVE_SWITCH", "on")
    monkeypatch.setenv("DUNNING_MODE", mode)
    with pytest.raises(SettingsError, match=r"^STRIPE_LOG: debug prints customers' data .* unset it$"):
        load_settings()
    monkeypatch.setenv("STRIPE_LOG", "info")
    assert load_settings().mode == mode


def test_a_stripe_library_may_print_in_observe_mode_with_a_test_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no customer to protect."""
    monkeypatch.setenv("STRIPE_LOG", "debug")
    monkeypatch.setenv("DUNNING_STRIPE_API_KEY", "rk_test_1")
    assert not load_settings().live_key


@pytest.mark.parametrize("command", ["report", "doctor", "worker", "case show 1"])
def test_a_command_that_finds_no_server_shows_no_password(command: str) -> None:
    """Expected or not, an error tells what is wrong without the addresses that open something."""
    settings = {
        "DATABASE_URL": "postgresql+psycopg://canary:canary@127.0.0.1:9/dunning",
        "BROKER_URL": "redis://:canary@127.0.0.1:9/0",
        "STRIPE_API_KEY": "sk_test_canary",
        "STRIPE_API_BASE": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", *command.split()],
        cwd=ROOT,
        env={**os.environ, **{f"DUNNING_{name}": value for name, value in settings.items()}, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr
