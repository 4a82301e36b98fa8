"""Do the files for servers say what the code needs? Containers, units, figures, alarms; and the roles end in order."""

from __future__ import annotations

import configparser
import json
import re
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine

from tests.commands import every
from tests.worker.builders import START, until
from worker import roles
from worker.embedded import Servers
from worker.metrics import exposition
from worker.settings import PREFIX, Settings

REPO = Path(__file__).parents[1]
DEPLOY = REPO / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "web", "worker", "beat")
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dunning.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
# Not for servers: the embedded ones' folder is set by the image, and a stepped clock is practice.
OF_PRACTICE = {"home", "clock_file"}


def soft_shutdown() -> float:
    """Return for how many seconds a worker that is asked to end lets tasks end."""
    return float(runpy.run_path(str(REPO / "celeryconfig.py"))["worker_soft_shutdown_timeout"])


def seconds(text: str) -> float:
    """Return what ``60s`` says."""
    assert text.endswith("s")
    return float(text[:-1])


def unit(path: Path) -> dict[str, list[str]]:
    """Return every key of a unit with its values; a key may stand many times."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


# Containers


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_has_a_version(name: str) -> None:
    """What is called latest is another program tomorrow."""
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", SERVICES[name]["image"])


@pytest.mark.parametrize(
    "line", re.findall(r"^FROM .*$", (REPO / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
)
def test_our_image_is_built_on_an_exact_version(line: str) -> None:
    """Slim, and to the last digit."""
    assert re.fullmatch(r"FROM python:3\.\d+\.\d+-slim-\w+( AS build)?", line)


def test_our_image_runs_as_nobody_in_particular() -> None:
    """By number, so that an orchestrator can see that it is not root."""
    assert re.search(r"^USER [1-9]\d+$", (REPO / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_started_again_and_can_do_little(name: str) -> None:
    """Restarted by itself, but the one that is done; no new rights, nothing to write but its volumes."""
    service = SERVICES[name]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", [name for name in sorted(SERVICES) if "ports" in SERVICES[name]])
def test_every_port_is_reachable_from_this_machine_only(name: str) -> None:
    """A published port of Docker goes past the firewall."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_the_broker_refuses_rather_than_forgets() -> None:
    """And its queue survives a restart."""
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_a_role_starts_after_the_migrations() -> None:
    """Which start when the database answers."""
    for name in ("web", "worker", "beat"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_whoever_ends_the_worker_waits_until_it_has_settled() -> None:
    """The container, the unit and `dunning up` alike."""
    [stop] = unit(DEPLOY / "systemd/dunning-worker.service")["TimeoutStopSec"]
    waits = {seconds(SERVICES["worker"]["stop_grace_period"]), float(stop), float(roles.STOP_SECONDS)}
    assert min(waits) > soft_shutdown()


def test_the_containers_are_given_every_setting_and_secrets_as_files() -> None:
    """A new setting that is missing there would be without effect."""
    fields = Settings.model_fields
    secret = {name for name, field in fields.items() if SecretStr.__name__ in str(field.annotation)} | {"database_url"}
    wanted = {f"{PREFIX}{name.upper()}{'_FILE' * (name in secret)}" for name in fields.keys() - OF_PRACTICE}
    for name in OURS:
        assert {each for each in SERVICES[name]["environment"] if each.startswith(PREFIX)} == wanted


@pytest.mark.parametrize("file", ["deploy/example.env", *(str(path.relative_to(REPO)) for path in UNITS)])
def test_no_file_names_a_setting_that_is_not_there(file: str) -> None:
    """Every variable is one of ours, or the file of one."""
    named = re.findall(rf"\b{PREFIX}\w+(?==)", (REPO / file).read_text(encoding="utf-8"))
    assert named
    assert {name.removeprefix(PREFIX).removesuffix("_FILE").lower() for name in named} <= Settings.model_fields.keys()


# Units


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_every_unit_runs_a_role_that_is_there(path: Path) -> None:
    """With options that it knows; started again for ever; as an account that is not root, with no new rights."""
    found = unit(path)
    [command] = found["ExecStart"]
    program, role, *options = command.split()
    assert (program, f"dunning-{role}") == ("/opt/dunning/bin/dunning", path.stem)
    known = {name for option in dict(every())[role].params for name in option.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert (found["User"], found["Restart"], found["StartLimitIntervalSec"]) == (["dunning"], ["always"], ["0"])
    assert (found["NoNewPrivileges"], found["ProtectSystem"]) == (["yes"], ["strict"])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_every_credential_of_a_unit_is_the_file_of_a_setting(path: Path) -> None:
    """What is loaded is named, and what is named is loaded."""
    found = unit(path)
    named = re.findall(r"_FILE=%d/(\w+)", " ".join(found["Environment"]))
    assert sorted(named) == sorted(each.partition(":")[0] for each in found["LoadCredential"])


def test_the_target_wants_every_unit() -> None:
    """Starting it starts all roles."""
    target = configparser.ConfigParser()
    target.read(DEPLOY / "systemd/dunning.target", encoding="utf-8")
    assert sorted(target["Unit"]["Wants"].split()) == sorted(path.name for path in UNITS)


# Figures and alarms


def told(engine: Engine) -> set[str]:
    """Return the names of all samples that /metrics may hold."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", exposition(engine, START).decode(), re.MULTILINE))
    summaries = {name for name, kind in kinds.items() if kind == "summary"}
    return kinds.keys() - summaries | {f"{name}_{part}" for name in summaries for part in ("sum", "count")}


@pytest.mark.parametrize("where", ["dashboard", "alerts"])
def test_every_figure_that_is_shown_or_watched_is_told(engine: Engine, where: str) -> None:
    """A panel of a figure that does not exist is empty, and an alarm silent, for ever."""
    chosen = EXPRESSIONS if where == "dashboard" else [rule["expr"] for rule in RULES]
    named = {name for each in chosen for name in re.findall(r"\bdunning_\w+", each)}
    assert named
    assert named <= told(engine)


def test_every_figure_is_shown(engine: Engine) -> None:
    """Whatever is told stands on the dashboard; of opened cases the report tells more."""
    shown = {name for each in EXPRESSIONS for name in re.findall(r"\bdunning_\w+", each)}
    assert told(engine) - shown == {"dunning_cases_opened_total"}


@pytest.mark.parametrize("each", [*EXPRESSIONS, *(rule["expr"] for rule in RULES)])
def test_no_figure_is_added_up_over_web_processes(each: str) -> None:
    """Each of them tells the whole installation: the largest is the truth, the sum is a multiple of it."""
    taken = re.findall(r"\bmax(?: by \([\w, ]+\) )?\s?\((?:(?:delta|increase|rate)\()?dunning_", each)
    assert len(taken) == len(re.findall(r"\bdunning_", each))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alarm_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """In one line, in a sentence, and by an anchor that is its own name."""
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"].endswith(".")
    assert notes["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_operators_page_tells_what_to_do_about_every_alarm() -> None:
    """In the order of the file, and about no alarm that is not there."""
    page = (REPO / "docs/operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (Dunning\w+)$", page, re.MULTILINE) == [rule["alert"] for rule in RULES]


# Roles


def test_every_role_ends_well_when_it_is_asked_to(engine: Engine, running: Servers, tmp_path: Path) -> None:
    """A supervisor that stops one sees exit code 0, not a failure."""
    assert engine
    places = {"DATABASE_URL": running.database_url, "BROKER_URL": running.broker_url, "HOME": str(tmp_path)}
    bank = {"STRIPE_API_KEY": "sk_test_1", "STRIPE_API_BASE": "http://127.0.0.1:9", "TICK_SECONDS": "0.5"}
    environment = {f"{PREFIX}{name}": value for name, value in {**places, **bank}.items()}
    asked = {"web": ("--port=0", f"--port-file={tmp_path / 'port'}"), "worker": ("--concurrency=1",), "beat": ()}
    begun = {"web": "startup complete", "worker": "dunning.tick", "beat": "Sending due task"}
    ends = {}
    with roles.Roles(environment, tmp_path) as children:
        for name, options in asked.items():
            children.start(name, ["worker.cli", name, *options])
        for name, said in begun.items():
            until(lambda name=name, said=said: said in (tmp_path / f"{name}.log").read_text(), seconds=60)  # type: ignore[misc]
        for name, process in children.running.items():
            process.send_signal(signal.SIGTERM)
            ends[name] = process.wait(60)
    assert ends == dict.fromkeys(asked, 0)
