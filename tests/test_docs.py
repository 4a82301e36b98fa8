"""Do the documents tell everything there is, and nothing that is not?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from schedules import Policy
from schedules.arms import Experiment
from schedules.budgets import Limit
from schedules.hours import Window
from schedules.policy import Rung
from tests.commands import every
from worker.models import OPEN_STATES, OUTCOMES, metadata
from worker.settings import PREFIX, Settings

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
POLICY = (REPO / "docs/policy.md").read_text(encoding="utf-8")
SECURITY = (REPO / "docs/security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_readme_tells_every_setting_with_its_meaning(name: str) -> None:
    """One row of the table for each setting, with the words of its description."""
    described = Settings.model_fields[name].description
    assert described
    assert re.search(rf"^\| `{PREFIX}{name.upper()}` \| .*\| {re.escape(described)} \|$", README, re.MULTILINE)


def test_the_readme_tells_no_setting_that_is_not_there() -> None:
    """Every variable that the documents name is read."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", README + POLICY + SECURITY))
    assert named <= known | {f"{name}_FILE" for name in known}


@pytest.mark.parametrize("name", sorted(name for name, command in every() if not isinstance(command, click.Group)))
def test_the_readme_tells_every_command(name: str) -> None:
    """Each command stands in the table of commands, alone or after its group."""
    table = "".join(line for line in README.splitlines(keepends=True) if line.startswith("| `dunning"))
    assert name in table or f"`{name}`" in table


def told(value: Any) -> str:
    """Return a default as the page writes it."""
    match value:
        case Window(opens, closes, business_days):
            return f"{opens:%H:%M}-{closes:%H:%M}{', business days' if business_days else ''}"
        case Limit(attempts, hours):
            return f"{attempts} in {hours} h{' per case' if value.per_case else ''}"
        case Rung(notice, day):
            return f"{notice} on day {day}"
        case tuple() if all(isinstance(each, int | str) for each in value) and value:
            return json.dumps(value)
        case tuple():
            return ", ".join(map(told, value)) or "none"
        case _:
            return "none" if value is None else json.dumps(value)


def choices() -> list[tuple[str, str]]:
    """Return every key of a policy, those of its tables too, with its default."""
    found: list[tuple[str, str]] = []
    for field in fields(Policy):
        value = getattr(Policy(), field.name)
        table = asdict(value) if isinstance(value, Experiment) else value
        inner = table if isinstance(table, Mapping) else {None: table}
        found += [(f"{field.name}.{key}" if key else field.name, told(each)) for key, each in inner.items()]
    return found


@pytest.mark.parametrize(("name", "default"), choices(), ids=lambda each: each[:40])
def test_the_policy_page_tells_every_key_with_default_reason_and_source(name: str, default: str) -> None:
    """One row for each, and the default is the one in force."""
    assert re.search(rf"^\| `{re.escape(name)}` \| `{re.escape(default)}` \| [^|]+ \| [^|]+ \|$", POLICY, re.MULTILINE)


def test_the_policy_page_tells_no_key_that_is_not_there() -> None:
    """Each row is a choice."""
    assert set(re.findall(r"^\| `([^`]+)` \|", POLICY, re.MULTILINE)) == {name for name, _ in choices()}


def test_the_example_policy_is_valid(tmp_path: Path) -> None:
    """What the page shows can be copied and used."""
    example = re.search(r"```toml\n(.*?)```", POLICY, re.DOTALL)
    assert example
    file = tmp_path / "policy.toml"
    file.write_text(example.group(1), encoding="utf-8")
    assert Policy.load(file).ending == "cancel"


@pytest.mark.parametrize("state", [*OPEN_STATES, *OUTCOMES])
def test_the_design_page_tells_every_state(state: str) -> None:
    """The picture of the states is complete."""
    assert state in (REPO / "docs/design.md").read_text(encoding="utf-8")


def test_every_test_that_the_security_page_names_is_there() -> None:
    """A claim points to what fails when it stops being true."""
    named = set(re.findall(r"`(test_\w+)`", SECURITY))
    written = "".join(file.read_text(encoding="utf-8") for file in (REPO / "tests").rglob("test_*.py"))
    assert named
    assert {name for name in named if f"def {name}(" not in written} == set()


def test_the_security_page_names_everything_that_is_stored() -> None:
    """Each table has its row, which tells of every column that can hold a text: what a leaked database shows."""
    rows = [line for line in SECURITY.splitlines() if line.startswith("| `")]
    for table in metadata.sorted_tables:
        row = next((row for row in rows if f"`{table.name}`" in row.split("|")[1]), "")
        texts = {column.name for column in table.columns if isinstance(column.type, Text | JSONB)}
        assert {name for name in texts if f"`{name}`" not in row} == set(), table.name
        assert row, table.name
