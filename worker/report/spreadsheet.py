"""How does a report look in a spreadsheet? One row for each group, the whole as the last one; no cell needs another."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from schedules.steps import utc_text
from worker.models import OUTCOMES
from worker.report.cohort import Report
from worker.report.figures import MEANS, PERCENTILES, Figures


def table(report: Report) -> str:
    """Return a report as comma-separated values; money is minor units, with columns of its own for each currency."""
    return sheet([_row(report, group) for group in (*report.groups, report.total)])


def sheet(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as comma-separated values, with every column that any of them has."""
    out = StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _row(report: Report, group: Figures) -> dict[str, Any]:
    """Return one row; what has no value is left empty."""
    told, ask = group.as_json(), report.question
    low, high = group.back.interval or (None, None)
    return {
        "from": ask.begin.date() if ask.begin else None,
        "to": ask.end.date() if ask.end else None,
        "final": report.final,
        "final_at": utc_text(report.final_at) if report.final_at else None,
        "by": ask.by,
        "group": group.group,
        "cases": group.cases,
        "open": group.unfinished,
        "recovered": group.recovered_count,
        "recovered_share": told["recovered_share"],
        "recovered_share_low": low,
        "recovered_share_high": high,
        **{f"recovered_{means}": group.recovered[means] for means in MEANS},
        "recovered_late": group.late,
        **{state: group.states.get(state, 0) for state in OUTCOMES if state != "recovered"},
        "silent_cases": group.silent.whole,
        "silent_recovered": group.silent.part,
        "contacted_cases": group.contacted.whole,
        "contacted_recovered": group.contacted.part,
        "canceled_after_notice": group.left_after,
        **{f"days_{name}": (told["days_to_recovery"] or {}).get(name) for name in PERCENTILES},
        "attempts": group.attempts,
        "attempts_per_recovery": told["attempts_per_recovery"],
        "off_hours_avoided": group.waited,
        "notices": group.notices,
        "notices_per_case": told["notices_per_case"],
        "taken_back": group.taken_back,
        **_money(told["value"]),
    }


def _money(value: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = "failed", "recovered", *MEANS, "attempts", "cost"
    return {f"{name}_{currency}": money[name] for currency, money in value.items() for name in names}
