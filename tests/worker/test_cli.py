"""Does each command print what it promises, and end with 0 only on success?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from redis import Redis
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import DAY, START, add_case, event, invoice, json_lines, one, opened, payment, the_case
from worker.checks import redis_url
from worker.clock import set_clock
from worker.embedded import Servers
from worker.ingest import BATCH

REPO = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def dunning(*arguments: str, given: bytes = b"", **environment: str) -> Done:
    """Run one command from the very start, as a shell does."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", *arguments],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), **environment},
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def failed(**changes: Any) -> dict[str, Any]:
    """A failed payment as `plan` reads it."""
    shown = {"payment_id": "in_1", "customer_id": "cus_1", "amount_minor": 1999, "currency": "usd"}
    return {**shown, "failed_at": "2026-01-12T15:00:00Z", "decline": {"code": "insufficient_funds"}, **changes}


BAD = event("evt_2", subject=invoice(currency="xxq"))
EVENTS = json_lines(event(), BAD, event("evt_3", "plan.created"), event())


def test_ingest_tells_what_became_of_each_line(run: Run, tmp_path: Path) -> None:
    """In words: the counts on standard output, each refusal with its line on standard error, and exit code 1."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(EVENTS)
    done = run("ingest", str(file))
    assert done.returncode == 1
    assert done.stdout == "1 new, 1 duplicate, 1 ignored (not ours: plan.created 1), 1 rejected\n"
    assert done.stderr == "line 2: invoice with an unknown 'currency': 'xxq'\n"


def test_ingest_opens_the_cases_of_what_it_kept(run: Run, engine: Engine) -> None:
    """From standard input, as JSON; a second time the same file changes nothing and is a success."""
    done = run("ingest", "-", "--json", given=json_lines(event(), event("evt_2", subject=invoice(id="in_2"))))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"new": 2, "duplicate": 0, "ignored": 0, "rejected": []}
    assert one(engine, "SELECT array_agg(payment_id ORDER BY id) FROM cases") == ["in_1", "in_2"]
    again = run("ingest", "-", "--json", given=json_lines(event()))
    assert json.loads(again.stdout) == {"new": 0, "duplicate": 1, "ignored": 0, "rejected": []}
    assert (again.returncode, one(engine, "SELECT count(*) FROM cases")) == (0, 2)


def test_ingest_as_json_fails_on_a_rejected_line_too(run: Run) -> None:
    """A script sees it by the exit code and finds the line in the JSON."""
    done = run("ingest", "-", "--json", given=EVENTS)
    assert done.returncode == 1
    assert [each["line"] for each in json.loads(done.stdout)["rejected"]] == [2]


def test_ingest_tells_when_a_process_of_its_own_was_killed(run: Run) -> None:
    """In one line; another run of the same file finds everything, once."""
    content = json_lines(*(event(f"evt_{n}", subject=invoice(id=f"in_{n}")) for n in range(2 * BATCH)))
    done = run("ingest", "-", "--json", given=content, DUNNING_FAILPOINT="before_batch_commit")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: a process that took events in was ended from outside: run this again, what is kept stays kept\n"
    )
    again = run("ingest", "-", "--json", given=content)
    assert (again.returncode, json.loads(again.stdout)["new"]) == (0, 2 * BATCH)


def test_ingest_survives_types_that_no_terminal_shows(run: Run) -> None:
    """What is printed of a file cannot break the printing, or steer the terminal."""
    odd = [event("evt_2", "odd\ud800"), event("evt_3", "odd\x1b[2J")]
    done = run("ingest", "-", given=json_lines(event(), *odd))
    assert done.returncode == 0
    assert done.stdout.startswith("1 new, 0 duplicate, 2 ignored")
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stderr


def test_case_list_is_a_list_of_cases(run: Run, engine: Engine) -> None:
    """With the promised keys, the next due first; a state chooses; nothing there is an empty list."""
    assert json.loads(run("case", "list", "--json").stdout) == []
    opened(engine)
    add_case(engine, payment_id="in_2", state="lost", due_at=None, closed_at=START, currency="jpy")
    done = run("case", "list", "--json")
    first, second = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"case_id", "payment_id", "state", "due_at", "next_step"} <= set(first)
    assert (first["case_id"], first["payment_id"], first["state"]) == (1, "in_1", "silent")
    assert (first["due_at"], first["next_step"], first["amount"]) == ("2026-01-12T15:00:00Z", "refresh", "19.99")
    assert (second["state"], second["due_at"], second["next_step"], second["amount"]) == ("lost", None, None, "1999")
    assert [each["case_id"] for each in json.loads(run("case", "list", "--json", "--state", "lost").stdout)] == [2]


def test_case_show_finds_a_case_by_number_and_by_payment(operate: Run, engine: Engine) -> None:
    """Both ways give the same case with its step, its reasons and its history; the text names them too."""
    opened(engine)
    by_number, by_payment = (operate("case", "show", name, "--json") for name in ("1", "in_1"))
    assert by_number.stdout == by_payment.stdout
    told = json.loads(by_number.stdout)
    assert (told["payment_id"], told["step"]["step"]) == ("in_1", "refresh")
    assert [line["what"] for line in told["history"]] == ["opened", "planned"]
    text = operate("case", "show", "in_1")
    assert text.returncode == 0
    assert all(reason in text.stdout for reason in told["step"]["reasons"])


@pytest.mark.parametrize("name", ["in_nowhere", "77", "99999999999999999999999", "²"])
def test_an_unknown_case_is_named(run: Run, name: str) -> None:
    """One line on standard error, exit code 1, no traceback."""
    done = run("case", "show", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: no case {name}\n"


def test_plan_goes_on_behind_a_bad_line(commands: Run) -> None:
    """Every good line gets its calendar, every bad one its number and reason, and the exit code tells."""
    lines = json_lines(failed(), b"{", failed(payment_id="in_2", amount_minor=-1), failed(payment_id="in_3"), b"")
    done = commands("plan", "-", "--json", given=lines)
    calendars = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [each["payment_id"] for each in calendars] == ["in_1", "in_3"]
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["line 2", "line 3"]
    steps = calendars[0]["steps"]
    assert steps[0]["step"] == "refresh"
    assert (steps[-1]["step"], steps[-1]["outcome"]) == ("close", "lost")
    assert all(step["at"].endswith("Z") and step["local"] and step["reasons"] for step in steps)
    assert {step["notice"] for step in steps if step["step"] == "contact"} >= {"first"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (failed(failed_at="2026-01-12T15:00:00"), "has no time zone"),
        (failed(failed_at="soon"), "expected an ISO instant"),
        (failed(colour="red"), "colour: unknown field"),
        (failed(card={"exp_month": "4"}), "card.exp_month: expected int"),
        (failed(amount_minor=19.99), "amount_minor: expected int"),
        (failed(currency=None), "currency: missing"),
        ([1, 2], "expected an object"),
    ],
    ids=["naive", "soon", "colour", "month", "amount", "currency", "list"],
)
def test_a_payment_that_cannot_be_planned_is_named(line: Any, reason: str) -> None:
    """The field and what was expected, without a process: the reader itself."""
    from worker.plans import BadPayment, payment_from

    with pytest.raises(BadPayment, match=reason):
        payment_from(json.dumps(line))


def test_policy_show_is_what_policy_check_takes(commands: Run, tmp_path: Path) -> None:
    """The policy in force as JSON and as a file; a wrong key is named with exit code 1, and so is a void choice."""
    file = tmp_path / "policy.toml"
    file.write_text("silent_days = 5\n")
    shown = json.loads(commands("policy", "show", "--json", DUNNING_POLICY=str(file)).stdout)
    assert (shown["silent_days"], shown["deadline_days"]) == (5, 28)
    copy = tmp_path / "copy.toml"
    copy.write_text(commands("policy", "show", DUNNING_POLICY=str(file)).stdout)
    assert Policy.load(copy) == Policy.load(file) == Policy(silent_days=5)
    checked = commands("policy", "check", str(copy), "--json")
    assert checked.returncode == 0
    assert json.loads(checked.stdout) | {"calendars": 0} == {
        "ok": True,
        "contradictions": [],
        "counterexamples": [],
        "calendars": 0,
    }
    file.write_text("silent_days = 20\n")
    void = commands("policy", "check", str(file))
    assert (void.returncode, "a valid policy" in void.stdout) == (1, False)
    assert "ladder[2]: day 9 after 20 silent days is not before the deadline" in void.stderr
    file.write_text("silent_dayz = 5\n")
    refused = commands("policy", "check", str(file))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "silent_dayz: unknown key" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("alone", "missing"),
    [("DUNNING_DATABASE_URL", "DUNNING_BROKER_URL"), ("DUNNING_BROKER_URL", "DUNNING_DATABASE_URL")],
)
def test_one_address_alone_is_an_error(commands: Run, running: Servers, alone: str, missing: str) -> None:
    """Half a configuration never falls back to the embedded servers: the missing variable is named."""
    url = running.database_url if alone == "DUNNING_DATABASE_URL" else running.broker_url
    done = commands("case", "list", **{alone: url})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {missing} is not set")


def test_a_wrong_setting_stops_every_command_with_one_line(commands: Run, tmp_path: Path) -> None:
    """The variable is named, the value is not shown, and nothing is started."""
    done = commands("case", "list", DUNNING_LEASE_SECONDS="canary", DUNNING_HOME=str(tmp_path / "home"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: DUNNING_LEASE_SECONDS: ")
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_db_upgrade_can_be_repeated(run: Run) -> None:
    """A database of this version's shape stays as it is."""
    assert json.loads(run("db", "upgrade", "--json").stdout) == {"upgraded": True}


def test_report_of_an_empty_database_divides_by_nothing(run: Run) -> None:
    """No case, no ratio: null, not an error."""
    told = json.loads(run("report", "--json").stdout)["total"]
    assert (told["cases"], told["recovered_share"], told["attempts_per_recovery"]) == (0, None, None)


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a folder which the account of the embedded servers can reach under root too."""
    base = Path(tempfile.mkdtemp(prefix="dunning-test-"))
    base.chmod(0o755)
    yield base / "home"
    shutil.rmtree(base)


def test_a_fresh_install_needs_no_server(home: Path) -> None:
    """With neither address named, the first command starts everything it needs, and the next finds its rows."""
    done = dunning("ingest", "-", "--json", given=json_lines(event()), DUNNING_HOME=str(home))
    assert (done.returncode, json.loads(done.stdout)["new"], done.stderr) == (0, 1, "")
    listed = dunning("case", "list", "--json", DUNNING_HOME=str(home))
    assert [each["payment_id"] for each in json.loads(listed.stdout)] == [payment().payment_id]


def test_doctor_tells_unknown_codes_and_fails_only_for_what_is_broken(run: Run, serve: Serve, tmp_path: Path) -> None:
    """A warning is told in one line and ends with 0; a database of another shape ends with 1."""
    street = serve()
    set_clock(tmp_path / "clock", START)
    given = {
        "DUNNING_CLOCK_FILE": str(tmp_path / "clock"),
        "DUNNING_STRIPE_API_KEY": "sk_test_1",
        "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{street.port}",
    }
    add_case(street.engine, decline={"code": "brand_new"})
    done = run("doctor", "--json", **given)
    told = json.loads(done.stdout)
    assert (done.returncode, told["unknown_codes"]) == (0, [{"code": "code:brand_new", "count": 1}])
    assert all(check["ok"] for check in told["checks"])
    lines = run("doctor", **given).stdout.splitlines()
    assert len(lines) == len(told["checks"])
    assert lines[-1].startswith("look  unknown decline code code:brand_new")
    assert lines[-1].endswith("1 refusals in 90 days, treated as retry_later; " + told["checks"][-1]["advice"])
    width = max(len(check["name"]) for check in told["checks"])
    assert [line[6 : 8 + width] for line in lines] == [f"{check['name']:{width}}  " for check in told["checks"]]
    url = street.engine.url.set(database="postgres").render_as_string(hide_password=False)
    broken = run("doctor", "--json", **given, DUNNING_DATABASE_URL=url)
    assert (broken.returncode, json.loads(broken.stdout)["unknown_codes"]) == (1, [])


def test_doctor_works_where_the_worker_would_not_start(run: Run, tmp_path: Path) -> None:
    """Without a key and with a policy that cannot be used: both are told, plainly, and the rest too."""
    file = tmp_path / "policy.toml"
    file.write_text("silent_dayz = 5\n")
    done = run("doctor", DUNNING_POLICY=str(file))
    marks = {line[6:].split("  ")[0]: line[:4].strip() for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr) == (1, "")
    assert marks == {
        "mode": "look",
        "policy": "FAIL",
        "mail": "look",
        "notices": "ok",
        "webhooks to you": "ok",
        "database": "ok",
        "clock of the database": "ok",
        "broker": "ok",
        "webhook secret": "look",
        "key": "FAIL",
        "workers": "look",
    }
    assert "\x1b" not in done.stdout


def at_the_bank(bench: Bench, clock: Path, now: datetime) -> dict[str, str]:
    """Return the settings of an installation that talks to this bank, at this instant."""
    bench.instant[0] = now
    set_clock(clock, now)
    base = f"http://127.0.0.1:{bench.port}"
    return {"DUNNING_STRIPE_API_KEY": "sk_test_1", "DUNNING_STRIPE_API_BASE": base, "DUNNING_CLOCK_FILE": str(clock)}


def test_sync_brings_back_what_was_missed_and_a_second_one_nothing_more(
    run: Run, serve: Serve, engine: Engine, tmp_path: Path
) -> None:
    """Two renewals failed while nobody listened; the counts are those of `ingest`, and what the invoices brought."""
    bench = serve(Scripted([payment(), payment(2, failed_at=START + DAY)]))
    place = at_the_bank(bench, tmp_path / "clock", START + 3 * DAY)
    done = run("sync", "--since", "30d", "--json", **place)
    assert (done.returncode, done.stderr) == (0, "")
    counts = {"new": 4, "duplicate": 0, "ignored": 0, "rejected": []}
    assert json.loads(done.stdout) == {**counts, "opened": 0, "read_again": 0}
    assert one(engine, "SELECT count(*) FROM cases") == 2
    done = run("sync", **place)
    assert done.stdout.splitlines() == [
        "0 new, 0 duplicate, 0 ignored, 0 rejected",
        "0 cases opened for invoices of which no event told, 0 read again",
    ]


def test_sync_finds_an_invoice_of_which_no_event_told(run: Run, serve: Serve, engine: Engine, tmp_path: Path) -> None:
    """Its event was made before the time that is asked for: the open invoice itself is found."""
    place = at_the_bank(serve(), tmp_path / "clock", START + 3 * DAY)
    done = run("sync", "--since", "2h", "--json", **place)
    assert (json.loads(done.stdout)["new"], json.loads(done.stdout)["opened"]) == (0, 1)
    assert the_case(engine).failed_at == START


def test_sync_tells_what_it_could_not_read(run: Run, serve: Serve, tmp_path: Path) -> None:
    """Each event that is rejected by its id, and exit code 1."""
    bench = serve()
    bench.shown["invoice"] = {"currency": "xxq"}
    done = run("sync", **at_the_bank(bench, tmp_path / "clock", START + DAY))
    assert done.returncode == 1
    assert done.stdout.startswith("1 new, 0 duplicate, 0 ignored, 1 rejected\n")
    assert done.stderr.startswith("evt_")
    assert done.stderr.endswith(": invoice with an unknown 'currency': 'xxq'\n")


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ("yesterday", "'yesterday' is no time: expected 30d, 2h or 2026-01-31T12:00"),
        ("31d", "further back than the 30 days that Stripe lists events"),
        ("2026-01-13T15:01", "in the future"),
        ("2025-11-30", "further back than the 30 days"),
        ("", "'' is no time"),
    ],
)
def test_sync_refuses_a_time_it_cannot_go_back_to(run: Run, tmp_path: Path, since: str, message: str) -> None:
    """The value is named, nothing is asked of the provider."""
    set_clock(tmp_path / "clock", START + DAY)
    done = run("sync", "--since", since, DUNNING_CLOCK_FILE=str(tmp_path / "clock"))
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("since", ["30d", "2h", "2026-01-12", "2026-01-13T10:00:00-05:00", "2026-01-13T14:59:59Z"])
def test_sync_goes_back_to_any_time_within_thirty_days(
    run: Run, serve: Serve, engine: Engine, tmp_path: Path, since: str
) -> None:
    """Days, hours, or a date and time with an offset or in UTC."""
    place = at_the_bank(serve(), tmp_path / "clock", START + DAY)
    assert run("sync", "--since", since, **place).returncode == 0
    assert one(engine, "SELECT count(*) FROM cases") == 1


def test_sync_without_a_key_or_an_answer_fails_in_one_line(run: Run, serve: Serve, tmp_path: Path) -> None:
    """What is missing or refused is named; what was kept before stays kept."""
    bench = serve()
    place = at_the_bank(bench, tmp_path / "clock", START + DAY)
    bench.control("access", {"revoked": True})
    for settings, message in ((place, "the key is refused (401)"), ({}, "DUNNING_STRIPE_API_KEY is not set")):
        done = run("sync", **settings)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_charging_is_stopped_and_goes_on_by_command(run: Run) -> None:
    """Everybody who lists cases sees it, the machine's list stays a list, and the second command ends it."""
    assert json.loads(run("stop-charging", "--reason", "the bank called", "--json").stdout) == {
        "stopped": [{"by": "operator", "since": ANY, "why": "the bank called"}]
    }
    listed = run("case", "list", "--json")
    assert (json.loads(listed.stdout), "the bank called" in listed.stderr) == ([], True)
    assert "the bank called" in run("doctor").stdout
    assert json.loads(run("resume-charging", "--json").stdout) == {"stopped": []}
    assert run("case", "list").stderr == ""


def test_after_a_restore_charging_goes_on_only_when_all_is_known_or_a_person_insists(run: Run) -> None:
    """An operator's own stop is lifted, the other one stays."""
    run("stop-charging")
    assert "dunning sync" in run("restored").stdout
    done = run("resume-charging")
    assert (done.returncode, "not yet" in done.stdout) == (1, True)
    assert "from a backup" in run("case", "list").stderr
    assert run("resume-charging", "--unexplained").returncode == 0
    assert run("case", "list").stderr == ""


def test_the_audit_ends_with_0_only_when_nothing_is_broken(run: Run, engine: Engine) -> None:
    """Every statement is told; the broken one with its rows and with what to do."""
    told = json.loads(run("audit", "--json").stdout)
    assert (told["broken"], {each["ok"] for each in told["statements"]}) == (0, {True})
    assert run("audit").returncode == 0
    add_case(engine, due_at=START - DAY)
    done = run("audit")
    assert (done.returncode, done.stdout.count("FAIL"), "in_1" in done.stdout) == (1, 1, True)
    [broken] = [each for each in json.loads(run("audit", "--json").stdout)["statements"] if not each["ok"]]
    assert (broken["rows"][0]["payment_id"], "worker" in broken["advice"]) == ("in_1", True)


@pytest.mark.parametrize("role", ["worker", "beat"])
def test_a_role_refuses_a_broker_that_forgets(run: Run, running: Servers, role: str) -> None:
    """One line says what to set."""
    with Redis.from_url(redis_url(running.broker_url)) as server:
        server.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = run(role, DUNNING_STRIPE_API_KEY="sk_test_1")
        finally:
            server.config_set("maxmemory-policy", "noeviction")
    assert done.returncode == 1
    assert "maxmemory-policy is allkeys-lru" in done.stderr
    assert "Traceback" not in done.stderr
