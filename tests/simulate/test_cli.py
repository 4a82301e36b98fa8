"""Does `dunning simulate` say what it found, and what is wrong with what it was given?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from worker.practice.beliefs import names
from worker.simulate_cli import simulate

Commands = Callable[..., CompletedProcess[str]]
SMALL = ("--payments", "60")
WORLD = """
from datetime import UTC, datetime, timedelta
from schedules import Card, Decline, FailedPayment

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Mine:
    def __init__(self, seed, payments):
        self.payments = payments

    def failures(self):
        for number in range(self.payments):
            card = Card(f"fp_{number}", "visa", "credit", "DE", 12, 2030)
            decline = Decline("insufficient_funds", outcome_type="issuer_declined")
            yield FailedPayment(f"in_{number}", f"cus_{number}", None, 1000, "eur", START, decline, card)

    def card(self, payment_id, at):
        return Card("fp_" + payment_id[3:], "visa", "credit", "DE", 12, 2030)

    def charge(self, payment_id, at):
        return None if at > START + timedelta(days=5) else Decline("insufficient_funds")

    def contact(self, payment_id, at, notice):
        pass

    def next_act(self, payment_id, after):
        return None

    def close(self):
        pass
"""


def ask(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(simulate, arguments)


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a world with some words replaced and returns its place."""

    def write(**changes: str) -> str:
        text = WORLD
        for name, body in changes.items():
            text, found = re.subn(rf"(    def {name}\(.*\):\n)(?:        .*\n)+", rf"\1        {body}\n", text, count=1)
            assert found, name
        (tmp_path / "mine.py").write_text(dedent(text), encoding="utf-8")
        return f"{tmp_path}/mine.py:Mine"

    return write


def test_the_command_compares_the_default_with_what_everybody_does(commands: Commands) -> None:
    """As a user runs it, without any server: two columns, their differences, and the caution."""
    done = commands("simulate", *SMALL, DUNNING_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Built-in world, seed 1: 60 failed payments"
    assert lines[1].split() == ["default", "fixed"]
    assert re.search(r"^fixed less default, on the same draws +difference +19 times in 20$", done.stdout, re.MULTILINE)
    assert "never the levels" in lines[-1]


def test_the_json_holds_the_same_figures_as_the_text(commands: Commands) -> None:
    """Base, policies, differences with intervals; another seed is another world."""
    told = json.loads(commands("simulate", *SMALL, "--json").stdout)
    assert (
        [each["policy"] for each in told["policies"]]
        == ["default", "fixed"]
        == [
            told["base"],
            told["differences"][0]["policy"],
        ]
    )
    default, fixed = told["policies"]
    found = told["differences"][0]["figures"]["recovered_share"]
    assert found["difference"] == pytest.approx(fixed["recovered_share"] - default["recovered_share"], abs=2e-4)
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    share = f"{default['recovered_share']:.1%}"
    assert share in ask(*SMALL).output
    other = json.loads(ask(*SMALL, "--json", "--seed", "2").output)
    assert other["policies"][0] != default


def test_a_policy_of_a_file_is_judged_itself_without_its_experiment(tmp_path: Path) -> None:
    """Everybody in the hold-out changes nothing; never writing does. The first policy is the base."""
    (tmp_path / "held.toml").write_text("[experiment]\ncontrol_percent = 100\n", encoding="utf-8")
    (tmp_path / "quiet.toml").write_text("ladder = []\n", encoding="utf-8")
    files = (f"--policy={tmp_path / 'held.toml'}", f"--policy={tmp_path / 'quiet.toml'}", "--policy=default")
    told = json.loads(ask(*SMALL, *files, "--json").output)
    held, quiet, default = told["policies"]
    assert {**held, "policy": "default"} == default
    assert told["base"] == held["policy"] == str(tmp_path / "held.toml")
    assert (quiet["notices"], quiet["by_means"]["after_contact"]) == (0, 0)
    assert default["notices"] > 0


def test_a_policy_that_is_named_twice_does_not_differ_from_itself() -> None:
    """The second gets a number, and every difference is nothing."""
    told = json.loads(ask(*SMALL, "--policy=fixed", "--policy=fixed", "--json").output)
    [found] = told["differences"]
    assert found["policy"] == "fixed (2)"
    assert {each["difference"] for each in found["figures"].values() if each} == {0.0}


def test_assumptions_can_be_moved_to_their_bounds() -> None:
    """One of them, all of them, or one otherwise than the others; each run says which."""
    middle = json.loads(ask(*SMALL, "--policy=default", "--json").output)
    poor = json.loads(ask(*SMALL, "--policy=default", "--level=tries.risk=low", "--json").output)
    assert poor["levels"] == {"tries.risk": "low"}
    assert poor["policies"] != middle["policies"]
    several = json.loads(
        ask(*SMALL, "--policy=default", "--level=all=low", "--level=funds.never=high", "--json").output
    )
    assert several["levels"] == {**dict.fromkeys(names(), "low"), "funds.never": "high"}


def test_a_world_of_a_file_is_played(world: Callable[..., str]) -> None:
    """Everybody pays after five days: all come back, and the heading names the world."""
    place = world()
    told = json.loads(ask("--world", place, "--payments", "7", "--json").output)
    assert (told["world"], told["payments"]) == (place, 7)
    assert [each["recovered"] for each in told["policies"]] == [7, 7]


AWARE = "datetime(2026, 3, 3, tzinfo=UTC)"
BROKEN = {
    "charge": [
        ("return 'yes'", r"charge\('in_\d'\) gave yes, expected a Decline or None"),
        ("raise KeyError('no bank')", r"mine.py:Mine, line \d+: charge\('in_\d'\) raised KeyError: 'no bank'"),
    ],
    "card": [("return None", r"card\('in_0'\) gave None, expected a Card")],
    "next_act": [
        (
            "return ('paid', datetime(2026, 3, 3))",
            r"next_act\('in_0'\) gave 2026-03-03 00:00:00, expected .* time zone",
        ),
        (f"return ('dies', {AWARE})", r"next_act\('in_0'\) gave \('dies', .* expected None or a pair of one of card"),
        ("return ('paid', after)", r"next_act\('in_0'\) gave 2026-03-02 12:00:00\+00:00, expected one later than"),
        ("return ('card', after + timedelta(seconds=1))", "in_0: no end after 2000 steps"),
    ],
    "contact": [("return nothing", r"contact\('in_0'\) raised NameError: name 'nothing' is not defined")],
    "failures": [
        ("return 5", r"failures\(\) raised TypeError"),
        ("return ['in_1']", r"failures\(\) gave in_1, expected a FailedPayment"),
        ("return []", "no payment failed"),
        (
            "return [FailedPayment('in', 'c', None, 1, 'eur', datetime(2026, 1, 1), Decline(), Card())]",
            r"failures\(\) raised ValueError: instant without a time zone",
        ),
        (
            f"return [FailedPayment('in', 'c', None, 1, 'eur', {AWARE}, Decline(), Card())] * 2",
            r"failures\(\) gave one twice, expected every payment_id once",
        ),
    ],
}


@pytest.mark.parametrize(
    ("method", "body", "told"), [(method, *each) for method, cases in BROKEN.items() for each in cases]
)
def test_a_world_that_breaks_the_protocol_is_named_with_what_it_did(
    world: Callable[..., str], method: str, body: str, told: str
) -> None:
    """Naive times, wrong types, exceptions and a customer who never stops: one line, no figures, exit code 1."""
    done = ask("--world", world(**{method: body}), "--payments", "3")
    assert done.exit_code == 1
    assert re.search(f"^Error: .*{told}", done.output), done.output
    assert done.output.count("\n") == 1
    assert "came back" not in done.output


def test_a_world_that_cannot_be_made_is_named_with_its_place(world: Callable[..., str], tmp_path: Path) -> None:
    """No file, no class, no method, no syntax, or another signature."""
    place = world()
    file = tmp_path / "mine.py"
    (tmp_path / "bad.py").write_text("x = 1\nclass Mine(:\n", encoding="utf-8")
    (tmp_path / "half.py").write_text("class Mine:\n    def __init__(self, *_): ...\n", encoding="utf-8")
    (tmp_path / "shy.py").write_text("class Mine:\n    def __init__(self): ...\n", encoding="utf-8")
    expected = {
        f"{tmp_path}/none.py:Mine": f"{tmp_path}/none.py: no such file",
        str(file): f"{file}: expected FILE.py:CLASS",
        f"{file}:Yours": f"{file}: no class Yours",
        f"{tmp_path}/bad.py:Mine": f"{tmp_path}/bad.py: to import it raised SyntaxError",
        f"{tmp_path}/half.py:Mine": "half.py:Mine: no method failures, card, charge, contact, next_act, close",
        f"{tmp_path}/shy.py:Mine": r"Mine\(1, 10000\) raised TypeError",
    }
    for given, told in expected.items():
        done = ask("--world", given)
        assert (done.exit_code, done.output.count("\n")) == (1, 1), given
        assert re.search(f"^Error: .*{told}", done.output), done.output
    assert ask("--world", place, "--payments", "1").exit_code == 0


def test_a_world_whose_draws_differ_from_run_to_run_is_no_ground_for_a_comparison(world: Callable[..., str]) -> None:
    """Two worlds of one seed have to fail the same payments."""
    place = world()
    file = Path(place.partition(":Mine")[0])
    text = file.read_text(encoding="utf-8").replace("None, 1000,", "None, id(self) % 100_000,")
    file.write_text(text, encoding="utf-8")
    done = ask("--world", place, "--payments", "3")
    assert done.exit_code == 1
    assert "two worlds of the same seed fail different payments" in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--level=funds.never=middle",), "expected NAME=low or NAME=high, of all or a name in world.toml"),
        (("--level=funds.nothing=low",), "expected NAME=low or NAME=high"),
        (("--level=all=low", "--world=a.py:B"), "--level is about the built-in world"),
        (("--json", "--html=a.html"), "--json and --html exclude one another"),
        (("--history", "--html=a.html"), "--history is told by your own cases"),
        (("--html=no/such/folder/a.html",), "there is no folder"),
        (("--payments=0",), "0 is not in the range"),
        (("--policy=fixed",) * 7, "at most 6 can be told apart"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_played(arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2 and one reason; ten thousand payments would have taken longer than this test."""
    done = ask(*arguments)
    assert done.exit_code == 2
    assert told in done.output


def test_a_file_that_is_no_policy_is_named(commands: Commands, tmp_path: Path) -> None:
    """A wrong key and a missing file, as one line each."""
    (tmp_path / "wrong.toml").write_text("silent_dayz = 3\n", encoding="utf-8")
    for file, why in (("wrong.toml", "silent_dayz: unknown key"), ("none.toml", "No such file")):
        done = commands("simulate", "--policy", str(tmp_path / file))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(tmp_path / file) in done.stderr
        assert why in done.stderr


class Page(HTMLParser):
    """The tables of a page by their id, and everything in it that a browser would fetch or run."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.leaves: list[str] = []
        self.pictures: list[str] = []
        self._cell: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell; note pictures, and what would leave the page."""
        given = dict(attrs)
        self.leaves += [f"{tag} {key}" for key in ("src", "href", "action", "onclick") if given.get(key)]
        self.leaves += [tag] if tag in ("script", "link", "iframe", "object") else []
        if given.get("role") == "img":
            self.pictures.append(str(given["aria-label"]))
        match tag:
            case "table":
                self.tables[str(given["id"])] = []
            case "tr":
                list(self.tables.values())[-1].append([])
            case "td" | "th":
                self._cell = []

    def handle_data(self, data: str) -> None:
        """Take the text of a cell."""
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        if tag in ("td", "th") and self._cell is not None:
            list(self.tables.values())[-1][-1].append("".join(self._cell).strip())
            self._cell = None


def test_the_page_has_four_pictures_and_the_numbers_of_the_json(tmp_path: Path) -> None:
    """Each picture in two widths; it fetches nothing, runs nothing, and a name is no markup."""
    odd = tmp_path / "<b>&.toml"
    odd.write_text("", encoding="utf-8")
    choice = ("--policy=fixed", f"--policy={odd}")
    done = ask(*SMALL, *choice, "--html", str(tmp_path / "page.html"))
    assert done.output == f"{tmp_path / 'page.html'}: Built-in world, seed 1: 60 failed payments\n"
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    told, page = json.loads(ask(*SMALL, *choice, "--json").output), Page(text)
    assert page.leaves == []
    assert "<b>&" not in text
    assert not re.search(r"url\(|@import", text)
    assert len(page.pictures) == 2 * len(set(page.pictures)) == 8
    shown = {row[0]: row[1:] for row in page.tables["figures"][1:]}
    assert page.tables["figures"][0][1:] == ["fixed", str(odd)]
    assert shown["came back within 30 days"] == [f"{each['recovered_share']:.1%}" for each in told["policies"]]
    assert shown["charges for each that came back"] == [
        f"{each['attempts_per_recovery']:.2f}" for each in told["policies"]
    ]
    gap = told["differences"][0]["figures"]["notices_per_payment"]
    row = next(row for row in page.tables["differences"] if row[0] == "notices for each payment")
    assert row[1:] == [f"{gap['difference']:+.2f}", "{:+.2f} to {:+.2f}".format(*gap["interval"])]
    assert [row[1:] for row in page.tables["curve"][1:]] == [
        [f"{each['curve'][day] / 60:.1%}" for each in told["policies"]] for day in range(31)
    ]
    assert [row[1::2] for row in page.tables["hours"][1:]] == [
        [str(each["hours"][hour]["attempts"]) for each in told["policies"]] for hour in range(24)
    ]
