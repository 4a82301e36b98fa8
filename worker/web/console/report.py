"""What came back, by which means and at what price? The report of the command, for a cohort that the address names."""

from __future__ import annotations

from datetime import datetime

from markupsafe import Markup
from starlette.responses import Response

from schedules.arms import A, B
from worker.report import make_report
from worker.report import page as report_page
from worker.report.sql import DIMENSIONS, Question, day_named
from worker.web.console.pages import Visit, Wrong, shown


def view(visit: Visit) -> Response:
    """Show a report, and what there is to choose from."""
    begin, end, by = day(visit, "from"), day(visit, "to"), visit.chosen("by", ("", *DIMENSIONS), "")
    if begin and end and end <= begin:
        msg = "to: expected a day after the first one"
        raise Wrong(msg)
    same = visit.policy.of(A) == visit.policy.of(B)
    with visit.engine.connect() as db:
        found = make_report(db, visit.now, Question(begin, end, by or None, same_policy=same))
    body = Markup(report_page.fragment(found))  # noqa: S704 - a template made it, which escapes what it is told
    days = {"begin": begin, "end": end, "by": by, "dimensions": DIMENSIONS}
    return shown(visit, "report", {**days, "report": body})


def day(visit: Visit, name: str) -> datetime | None:
    """Return the day that the address names, if it does; raise ``Wrong`` for what is none."""
    given = visit.request.query_params.get(name)
    try:
        return day_named(given) if given else None
    except ValueError:
        msg = f"{name}: expected a day such as 2026-01-31"
        raise Wrong(msg) from None
