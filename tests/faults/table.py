"""What held under which fault? Runs the tests under faults and writes their results into docs/reliability.md.

python -m tests.faults.table            all of them, some 20 minutes
python -m tests.faults.table --quick    without the slow ones
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"
FAULT = re.compile(r"Fault (\d+)")

# Faults of the provider and of the webhook need no process of their own: these tests stand beside the code.
UNKNOWN, WEB = "tests/worker/test_unknown_outcomes.py::test_", "tests/worker/test_web.py::test_"
ELSEWHERE = {
    6: [f"{UNKNOWN}a_fault_never_charges_twice", f"{UNKNOWN}a_request_that_never_arrived_is_repeated_under_its_key"],
    7: [f"{UNKNOWN}an_unknown_outcome_is_read_before_anything_is_sent"],
    8: [f"{UNKNOWN}three_faults_in_a_row_never_charge_twice"],
    9: [f"{UNKNOWN}what_was_not_executed_uses_up_no_attempt"],
    10: [f"{UNKNOWN}an_old_key_is_never_posted", f"{UNKNOWN}one_reading_is_not_enough_for_an_old_key"],
    22: [
        f"{WEB}a_forged_or_changed_event_is_refused",
        f"{WEB}an_event_from_another_time_is_refused",
        f"{WEB}an_accepted_event_sent_again_much_later_is_refused_and_changes_nothing",
        f"{WEB}what_is_too_large_is_refused_before_it_is_verified",
        f"{WEB}no_secret_gets_into_logs_or_answers",
    ],
}
FAULTS = {
    1: "kill -9 before the claim commits",
    2: "kill -9 after the claim, before the request is written down",
    3: "kill -9 before the request leaves",
    4: "kill -9 after the provider answered",
    5: "kill -9 around the recording commit",
    6: "the provider charges, then times out",
    7: "the provider charges, then answers 500",
    8: "the connection breaks before the request",
    9: "key in use, locked object, rate limit",
    10: "an outcome unknown for more than 23 hours",
    11: "a worker sleeps through its lease in the call",
    12: "one message delivered five times at once",
    13: "the queue is emptied and the worker killed",
    14: "the queue's server is killed with work in flight",
    15: "the queue's clients are cut off in mid-task",
    16: "the queue's server hangs for a minute",
    17: "the queue's server is full, or throws the queue away",
    18: "PostgreSQL restarts, also at COMMIT",
    19: "events three times, at once and backwards",
    20: "the receiver is away for two days",
    21: "an event is never made",
    22: "a webhook is forged, cut, old, early, replayed or huge",
    23: "many beats, no beat, a clock that jumps",
    24: "a case that kills its worker",
}


@dataclass(eq=False)  # pytest keeps its plugins in a set
class Recorder:
    """A plugin that notes how each test ended, by the fault that its first line names."""

    found: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """Note the result of a test's own part, or of what failed around it."""
        report = (yield).get_result()
        if call.when == "call" or report.failed:
            for key in self._keys(item):
                self.found[key].append(bool(report.passed))

    def _keys(self, item: pytest.Function) -> list[str]:
        params = getattr(item, "callspec", None) and item.callspec.params
        if item.path.name == "test_matrix.py" and params:
            return [f"{params['place'] or 'nowhere'} | {params['fault']}"]
        if item.path.name == "test_mutants.py":
            return [f"mutant {item.originalname}"]
        name = item.nodeid.partition("[")[0]
        numbers = FAULT.findall(item.function.__doc__ or "")
        return [*numbers, *(str(number) for number, tests in ELSEWHERE.items() if name in tests)]


def told(results: list[bool]) -> str:
    """Return how many of the results are good."""
    return f"{sum(results)} of {len(results)}" if results else "not run"


def page(found: dict[str, list[bool]], seconds: float) -> str:
    """Return the results as Markdown."""
    matrix = {key: results for key, results in found.items() if " | " in key}
    every = [result for results in matrix.values() for result in results]
    faults = list(dict.fromkeys(key.split(" | ")[1] for key in sorted(matrix)))
    lines = [f"Made by `python -m tests.faults.table` in {seconds / 60:.0f} minutes.", "", "| # | fault | held |"]
    lines += ["|---|---|---|", *(f"| {n} | {words} | {told(found.get(str(n), []))} |" for n, words in FAULTS.items())]
    lines += ["", f"The crash matrix: {told(every)} runs.", "", f"| killed | {' | '.join(faults)} |"]
    lines.append("|---" * (len(faults) + 1) + "|")
    for place in dict.fromkeys(key.split(" | ")[0] for key in matrix):
        cells = (told(matrix.get(f"{place} | {fault}", [])) for fault in faults)
        lines.append(f"| {place.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", "| a rule that is missing | seen, and only then |", "|---|---|"]
    mutants = sorted(key for key in found if key.startswith("mutant"))
    lines += [f"| {key.removeprefix('mutant test_').replace('_', ' ')} | {told(found[key])} |" for key in mutants]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the tests, write the page, and end as the tests did."""
    recorder, begun = Recorder(), time.monotonic()
    marks = "not slow" if "--quick" in sys.argv else "slow or not slow"
    others = [test for tests in ELSEWHERE.values() for test in tests]
    ended = pytest.main(["-q", "-m", marks, "-p", "no:randomly", "tests/faults", *others], plugins=[recorder])
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    results = page(recorder.found, time.monotonic() - begun)
    PAGE.write_text(f"{head}{BEGIN}{results}{END}{tail}", encoding="utf-8")
    sys.exit(ended)


if __name__ == "__main__":
    main()
