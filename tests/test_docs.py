"""Do the documents tell everything there is, and nothing that is not?"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from schedules import Policy
from worker.cli import main
from worker.models import OPEN_STATES, OUTCOMES
from worker.settings import PREFIX, Settings

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
POLICY = (REPO / "docs/policy.md").read_text(encoding="utf-8")


def commands(group: click.Group, before: str = "") -> set[str]:
    """Return the full names of all commands that are not hidden."""
    names: set[str] = set()
    for name, command in group.commands.items():
        names |= commands(command, f"{before}{name} ") if isinstance(command, click.Group) else {f"{before}{name}"}
    return names


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_readme_tells_every_setting_with_its_meaning(name: str) -> None:
    """One row of the table for each setting, with the words of its description."""
    described = Settings.model_fields[name].description
    assert described
    assert re.search(rf"^\| `{PREFIX}{name.upper()}` \| .*\| {re.escape(described)} \|$", README, re.MULTILINE)


def test_the_readme_tells_no_setting_that_is_not_there() -> None:
    """Every variable that the documents name is read."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", README + POLICY))
    assert named <= known | {f"{name}_FILE" for name in known}


@pytest.mark.parametrize("name", sorted(commands(main)))
def test_the_readme_tells_every_command(name: str) -> None:
    """Each command stands in the table of commands, alone or after its group."""
    table = "".join(line for line in README.splitlines(keepends=True) if line.startswith("| `dunning"))
    assert name in table or f"`{name}`" in table


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
def test_the_policy_page_tells_every_key(name: str) -> None:
    """A merchant finds each choice, its default and its reason."""
    assert re.search(rf"^\| `{name}[.`]", POLICY, re.MULTILINE)


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
