"""Does each command print what it promises, and end with 0 only on success?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.builders import START, add_case, event, invoice, json_lines, one, opened, payment
from worker.clock import set_clock
from worker.embedded import Servers

REPO = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


FORKING = """
import json, os, sys, traceback
from worker import cli
for line in sys.stdin:
    job = json.loads(line)
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(job["streams"][number], mode), number)
    os.environ.update(job["environment"])
    sys.stdin, code = open(0, closefd=False), 0
    try:
        cli.main(job["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code or 0)
"""


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a function that runs one command in a process of its own, forked from one that has imported it all."""
    place = tmp_path_factory.mktemp("commands")
    streams = [place / name for name in ("given", "output", "errors")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUNNING_")}
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        cwd=REPO,
        env={**clean, "PYTHONPATH": str(REPO)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments: str, given: bytes = b"", **environment: str) -> Done:
        for stream in streams:
            stream.write_bytes(given if stream is streams[0] else b"")
        job = {"arguments": arguments, "environment": environment, "streams": [str(stream) for stream in streams]}
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(job) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return subprocess.CompletedProcess(
            arguments, code, streams[1].read_text("utf-8"), streams[2].read_text("utf-8")
        )

    with parent:
        yield run


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


@pytest.fixture
def run(engine: Engine, running: Servers, commands: Run) -> Run:
    """Return a function that runs a command on the tests' own servers; the database is empty."""
    assert one(engine, "SELECT count(*) FROM cases") == 0
    places = {"DUNNING_DATABASE_URL": running.database_url, "DUNNING_BROKER_URL": running.broker_url}
    return lambda *arguments, **more: commands(*arguments, **{**places, **more})


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
    assert (first["due_at"], first["next_step"], first["amount"]) == ("2026-01-12T15:00:00Z", "refresh", "$19.99")
    assert (second["state"], second["due_at"], second["next_step"], second["amount"]) == ("lost", None, None, "¥1,999")
    assert [each["case_id"] for each in json.loads(run("case", "list", "--json", "--state", "lost").stdout)] == [2]


def test_case_show_finds_a_case_by_number_and_by_payment(run: Run, engine: Engine) -> None:
    """Both ways give the same case with its step, its reasons and its history; the text names them too."""
    opened(engine)
    by_number, by_payment = (run("case", "show", name, "--json") for name in ("1", "in_1"))
    assert by_number.stdout == by_payment.stdout
    told = json.loads(by_number.stdout)
    assert (told["payment_id"], told["step"]["step"]) == ("in_1", "refresh")
    assert [line["what"] for line in told["history"]] == ["opened", "planned"]
    text = run("case", "show", "in_1")
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
    told = json.loads(run("report", "--json").stdout)
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


def test_doctor_tells_unknown_codes_and_fails_only_for_what_is_broken(run: Run, engine: Engine, tmp_path: Path) -> None:
    """A warning is told in one line and ends with 0; a database of another shape ends with 1."""
    set_clock(tmp_path / "clock", START)
    clock = {"DUNNING_CLOCK_FILE": str(tmp_path / "clock")}
    add_case(engine, decline={"code": "brand_new"})
    done = run("doctor", "--json", **clock)
    told = json.loads(done.stdout)
    assert (done.returncode, told["unknown_codes"]) == (0, [{"code": "code:brand_new", "count": 1}])
    assert [check["ok"] for check in told["checks"]] == [True, True]
    line = run("doctor", **clock).stdout.splitlines()[1]
    assert "unknown decline code code:brand_new" in line
    assert "1 refusals in 90 days, treated as retry_later; add a [[declines]] rule" in line
    url = engine.url.set(database="postgres").render_as_string(hide_password=False)
    broken = run("doctor", "--json", DUNNING_DATABASE_URL=url)
    assert (broken.returncode, json.loads(broken.stdout)["unknown_codes"]) == (1, [])
