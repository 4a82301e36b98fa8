"""Who left, why, and what had they paid? The churn of the command, for a period that the address names."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from starlette.responses import Response

from worker.churn import Churn, make_churn, spreadsheet, view
from worker.churn.charts import COLOURS, months
from worker.churn.counts import course
from worker.churn.figures import Month
from worker.churn.sql import DIMENSIONS, KINDS, Question, period
from worker.report.sql import TENURES
from worker.report.view import percent, span
from worker.web.console.pages import Visit, Wrong, shown
from worker.web.console.report import day


def page(visit: Visit) -> Response:
    """Show who left, and what there is to choose from."""
    with visit.engine.connect() as db:
        found = make_churn(db, visit.now, asked(visit))
        lately = course(db, visit.now)
    ask = found.question
    days = {**ask.period.as_json(), "by": ask.by or ""}
    reasons = view.crossed(found.reasons, lambda each: each.tenure)
    words = {
        "percent": percent,
        "span": span,
        "revenue": view.revenue,
        "title": DIMENSIONS[ask.by].title if ask.by else "",
    }
    told = {"churn": found, "view": view, "kinds": told_kinds(found, lately), "tenures": TENURES, "reasons": reasons}
    pictures = {"months": lately, "picture": months(lately), "colours": COLOURS}
    choice = {"days": days, "dimensions": DIMENSIONS, "csv": f"/console/churn.csv?{urlencode(days)}"}
    return shown(visit, "churn", {**told, **words, **pictures, **choice})


def table(visit: Visit) -> Response:
    """Give the same as a file for spreadsheets."""
    with visit.engine.connect() as db:
        found = make_churn(db, visit.now, asked(visit))
    kept = {"Content-Disposition": 'attachment; filename="churn.csv"'}
    return Response(spreadsheet.table(found), media_type="text/csv", headers=kept)


def asked(visit: Visit) -> Question:
    """Return what the address asks for; raise ``Wrong`` where it is nothing that can be told."""
    by = visit.chosen("by", ("", *DIMENSIONS), "")
    try:
        asked = period(visit.now, day(visit, "from"), day(visit, "to"))
    except ValueError as error:
        msg = f"to: expected a day after the first one: {error}"
        raise Wrong(msg) from None
    return Question(asked, by or None, None, visit.policy.experiment)


def told_kinds(found: Churn, lately: Sequence[Month]) -> list[str]:
    """Return the kinds that have a row: the provider's own reasons only where there are any."""
    others = view.other(found.total) or any(month.lost["other"] for month in lately)
    return [kind for kind in KINDS if kind != "other" or others]
