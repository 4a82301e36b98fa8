"""What is there to know about one case, and what can be done about it? Every act is shown before it is done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select
from starlette.responses import Response

from worker import repair, timeline
from worker.logs import log
from worker.models import cases
from worker.web.console import calendar
from worker.web.console.pages import Missing, Visit, Wrong, shown

LONGEST_REASON = 500


def view(visit: Visit) -> Response:
    """Show one case."""
    return _page(visit)


def act(visit: Visit) -> Response:
    """Tell what an act would do to the case; do it once that was confirmed."""
    name, reason = visit.form.get("act", ""), visit.form.get("reason", "").strip()
    if name not in repair.ACTS:
        msg = f"act: expected one of {', '.join(repair.ACTS)}"
        raise Wrong(msg)
    if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
        msg = f"reason: expected one line that says why, of {LONGEST_REASON} characters at most"
        raise Wrong(msg)
    sure = visit.form.get("sure") == "yes"
    with visit.engine.connect() as db:
        row = found(db, visit)
    wish = repair.Wish(name, reason, visit.policy, visit.now, not sure, visit.who)
    [verdict] = repair.carry_out(visit.engine, wish, [str(row.id)])
    if sure:
        log.info("console", act=name, case_id=row.id, by=visit.who, done=verdict.done)
    return _page(visit, name=name, reason=reason, sure=sure, verdict=verdict)


def found(db: Connection, visit: Visit) -> Row[Any]:
    """Return the case that the address names by number or payment id; raise ``Missing`` when there is none."""
    asked = visit.request.path_params["asked"]
    row = db.execute(select(cases).where(repair.named(asked))).one_or_none() if asked.isprintable() else None
    if row is None:
        msg = f"case {asked}"
        raise Missing(msg)
    return row


def _page(visit: Visit, **acted: Any) -> Response:
    blank = {"name": None, "reason": "", "sure": False, "verdict": None}
    with visit.engine.connect() as db:
        row = found(db, visit)
        told = timeline.of_case(db, row, visit.policy, visit.now)
        lines, drawn = timeline.lines(db, row, told["history"]), calendar.of_case(db, row, visit.policy, visit.now)
    return shown(visit, "case", {"row": row, **told, "lines": lines, **drawn, **blank, **acted})
