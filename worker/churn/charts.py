"""Which picture does churn have? The customers lost in each month, by kind, one kind upon the other."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from worker.charts import both
from worker.churn.figures import Month
from worker.churn.sql import KINDS

# In the order in which they are stacked; told apart in light and in dark, also by those who see few colours.
COLOURS = dict(zip(KINDS, ("#56b4e9", "#d55e00", "#cc79a7", "#8a8a8a"), strict=True))


def months(found: Sequence[Month]) -> Markup:
    """Draw the customers lost in each month; the page has the legend, and the table the numbers."""
    rows = [
        {"month": f"{month.begins:%b}", "number": number, "kind": kind, "order": order, "lost": month.lost[kind]}
        for number, month in enumerate(found)
        for order, kind in enumerate(KINDS)
    ]
    names = [f"{month.begins:%b}" for month in found]
    total = sum(sum(month.lost.values()) for month in found)
    axis = {"title": None, "tickMinStep": 1, "tickCount": 5, "format": "d"}
    spec = {
        "height": 220,
        "data": {"values": rows},
        "mark": "bar",
        "encoding": {
            "x": {"field": "month", "type": "ordinal", "sort": names, "title": None, "axis": {"labelAngle": 0}},
            "y": {"field": "lost", "type": "quantitative", "axis": axis},
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": list(KINDS), "range": list(COLOURS.values())},
                "legend": None,
            },
            "order": {"field": "order"},
        },
    }
    return both(spec, f"Customers lost in each of {len(names)} months, by kind: {total} together; the table has them")
