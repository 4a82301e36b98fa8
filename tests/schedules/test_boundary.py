"""Does ``schedules`` stay pure: no library with an effect, no clock, no dice, nothing of ``worker``?"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.resources import files

import pytest

ALLOWED = {"schedules", "dateutil", "holidays"} | sys.stdlib_module_names
EFFECTS = {"random", "secrets", "uuid", "time", "os", "subprocess", "socket", "threading", "asyncio"}
CLOCKS = {"now", "utcnow", "today", "localtime", "gmtime", "monotonic", "perf_counter", "process_time", "time_ns"}
DICE = {"random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "urandom", "getrandbits"}
TOKENS = {"uuid1", "uuid4", "token_bytes", "token_hex", "token_urlsafe"}
# These read the clock or the machine's zone unless told otherwise (or do so always).
HIDDEN = {"get_closest_holiday", "tzlocal", "gettz", "import_module", "__import__"}
CALLS = CLOCKS | DICE | TOKENS | HIDDEN
NEEDED = {"rrule": "dtstart", "rrulestr": "dtstart", "parse": "default"}
SOURCES = sorted(path.name for path in files("schedules").iterdir() if path.name.endswith(".py"))


def offences(source: str) -> list[str]:
    """Everything in this source that a pure module must not do, as ``line: what``."""
    return sorted({f"{node.lineno}: {what}" for node, what in _offences(ast.parse(source))})


def _offences(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node, f"import {name.name}") for name in names if _foreign(name.name))
            case ast.ImportFrom(module=str(module), level=0) if _foreign(module):
                yield node, f"import {module}"
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in CLOCKS:
                yield node, name
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if _impure(node, name):
                yield node, name


def _foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in ALLOWED or top in EFFECTS


def _impure(call: ast.Call, name: str) -> bool:
    bare = not call.args and not call.keywords
    match call.func:
        case ast.Name(id="hash"):
            return True
        case ast.Name(id="time") | ast.Attribute(value=ast.Name(id="time"), attr="time") if bare:
            return True
        case ast.Attribute(attr="astimezone") if bare:
            return True
    lacks = name in NEEDED and NEEDED[name] not in {keyword.arg for keyword in call.keywords}
    return name in CALLS or lacks


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_reads_no_clock_throws_no_dice_and_imports_nothing_with_effects(name: str) -> None:
    """The same facts give the same step, on any machine and on any day."""
    assert offences(files("schedules").joinpath(name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import worker.clock",
        "from worker import cases",
        "import sqlalchemy",
        "from celery import Celery",
        "import random",
        "from time import monotonic",
        "from datetime import datetime\ndatetime.now(tz)",
        "made: datetime = field(default_factory=datetime.utcnow)",
        "date.today()",
        "time.time()",
        "time()",
        "x = uuid4()",
        "secrets.token_hex(8)",
        "def late():\n    return os.urandom(4)",
        "hash(payment_id)",
        "calendar.get_closest_holiday()",
        "tz.tzlocal()",
        "at.astimezone()",
        "rrule(MONTHLY, bymonthday=1)",
        "parser.parse('10:00')",
        "importlib.import_module('worker')",
    ],
)
def test_the_check_finds_what_is_planted(source: str) -> None:
    """A check that never fails proves nothing."""
    assert len(offences(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import time\nopens = time(6)",
        "wall = at.astimezone(ZoneInfo('Europe/Berlin')).time()",
        "from schedules.facts import utc",
        "from . import facts",
        "def next_step(now): return now",
        "rrule(MONTHLY, dtstart=begin)",
        "case.now",
    ],
)
def test_the_check_lets_pure_code_pass(source: str) -> None:
    """Local times and zones by name are values, and an instant may be called now."""
    assert offences(source) == []
