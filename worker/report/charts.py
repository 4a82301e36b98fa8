"""Which pictures does a report have? Each is told to Vega-Lite, and drawn twice: for a phone and for a desk."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

from markupsafe import Markup

from worker.charts import both
from worker.report.cohort import WINDOW, Report
from worker.report.figures import MEANS, Period, Share
from worker.report.view import ARM_TITLES, TITLES

MOST_BARS = 30
LETTER = 7.5  # pixels, at the size of our labels
LENGTHS = {"day": timedelta(days=1), "week": timedelta(weeks=1), "month": timedelta(days=30)}
# In the order in which they are stacked; told apart in light and in dark, also by those who see few colours.
COLOURS = dict(zip(MEANS, ("#009e73", "#0072b2", "#e69f00", "#d55e00", "#cc79a7"), strict=True))
BAR = "#56b4e9"
SCALE = {"domain": [TITLES[means] for means in MEANS], "range": list(COLOURS.values())}
BY_MEANS = {"field": "means", "type": "nominal", "scale": SCALE, "legend": None}  # the page has the legend
APART = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 12}
DAYS = {"title": None, "format": "%Y-%m-%d", "labelBound": True, **APART}
SHARE = {"type": "quantitative", "axis": {"format": ".0%", "title": None, **APART}}

Spec = dict[str, Any]


def over_time(report: Report) -> Markup:
    """Draw the recovered share of every period, by means; fainter where some cases have not had their 30 days."""
    spec = {
        "height": 220,
        "data": {"values": [box for period in report.periods for box in _boxes(report, period)]},
        "mark": "rect",
        "encoding": {
            "x": {"field": "begins", "type": "temporal", "scale": {"type": "utc"}, "axis": DAYS},
            "x2": {"field": "ends"},
            "y": {"field": "low", **SHARE},
            "y2": {"field": "high"},
            "color": BY_MEANS,
            "opacity": {"condition": {"test": "datum.final", "value": 1}, "value": 0.5},
        },
    }
    return both(spec, f"Recovered share by {report.step} of the failure and by means; the table has the numbers")


def _boxes(report: Report, period: Period) -> Iterator[Spec]:
    """Yield what one period shows: a box for each means, one upon the other, and a little room to the next period."""
    length, below = LENGTHS[report.step], 0
    begins = datetime.combine(period.begins, time(), UTC)
    width = {"begins": begins.isoformat(), "ends": (begins + 0.92 * length).isoformat()}
    for means in MEANS:
        above = below + period.recovered[means]
        shares = {"low": below / period.cases, "high": above / period.cases}
        yield {**width, **shares, "means": TITLES[means], "final": begins + length + WINDOW <= report.now}
        below = above


def curve(report: Report) -> Markup:
    """Draw which share of all cases was back by each day after its failure, by means."""
    rows = [
        {"day": day, "means": TITLES[means], "order": order, "share": count / report.total.cases}
        for order, means in enumerate(MEANS)
        for day, count in enumerate(report.curve[means])
    ]
    spec = {
        "height": 220,
        "data": {"values": rows},
        "mark": {"type": "area", "interpolate": "step-after"},
        "encoding": {
            "x": {"field": "day", "type": "quantitative", "title": "days since the failure", "scale": {"nice": False}},
            "y": {"field": "share", **SHARE},
            "color": BY_MEANS,
            "order": {"field": "order"},
        },
    }
    return both(spec, "Share of all cases that was back by each day after the failure; the table has the numbers")


def groups(report: Report) -> Markup:
    """Draw the recovered share of the first groups as bars, each with its interval."""
    rows = [{"group": group.group, **_bar(group.back)} for group in report.groups[:MOST_BARS]]
    spec = {
        "height": {"step": 24},
        "data": {"values": rows},
        "encoding": {"y": _names(rows, "group")},
        "layer": [
            {"mark": {"type": "bar", "color": BAR, "opacity": 0.6}, "encoding": {"x": {"field": "share", **SHARE}}},
            _whiskers(SHARE),
        ],
    }
    return both(spec, f"Recovered share by {report.question.by}, with 95 % intervals; the table has the numbers")


def _names(rows: list[Spec], name: str) -> Spec:
    """Return the axis of names, with room enough for them whichever font a browser has."""
    room = LETTER * max(len(row[name]) for row in rows)
    axis = {"title": None, "minExtent": room, "labelLimit": room, "ticks": False, "domain": False}
    return {"field": name, "type": "nominal", "sort": None, "axis": axis}


def _bar(share: Share) -> Spec:
    """Return a share and the ends of its interval."""
    low, high = share.interval or (0.0, 1.0)
    return {"share": share.value, "low": low, "high": high}


def _whiskers(scale: Spec) -> Spec:
    """Return the intervals of bars or points."""
    mark = {"type": "rule", "color": "currentColor", "strokeWidth": 2}
    return {"mark": mark, "encoding": {"x": {"field": "low", **scale}, "x2": {"field": "high"}}}


def arms(report: Report) -> Markup:
    """Draw the recovered share of each arm as a point with its interval."""
    rows = [
        {
            "arm": ARM_TITLES[arm.name],
            "share": arm.back.value,
            "low": arm.back.interval[0],
            "high": arm.back.interval[1],
        }
        for arm in report.arms
        if arm.back.interval
    ]
    return both(
        _points(rows, "arm", SHARE), "Recovered share of each arm, with 95 % intervals; the table has the numbers"
    )


def lifts(report: Report) -> Markup:
    """Draw by how much one arm exceeds another as a point with its interval; the line at 0 is no difference."""
    rows = [
        {"lift": f"{ARM_TITLES[lift.of.name]} over {ARM_TITLES[lift.over.name]}", "share": lift.points}
        | {"low": lift.interval[0], "high": lift.interval[1]}
        for lift in report.lifts
    ]
    zero = {"condition": {"test": "datum.value == 0", "value": 1}, "value": 0.25}
    axis = {"format": "+.0f", "title": "percentage points", "gridOpacity": zero, **APART}
    spec = _points(rows, "lift", {"type": "quantitative", "axis": axis})
    return both(spec, "Differences between arms, with 95 % intervals; the table has the numbers")


def _points(rows: list[Spec], name: str, scale: Spec) -> Spec:
    """Return points with their intervals, one below the other."""
    mark = {"type": "point", "filled": True, "size": 90, "opacity": 1, "color": BAR}
    point = {"mark": mark, "encoding": {"x": {"field": "share", **scale, "scale": {"zero": False}}}}
    return {
        "height": {"step": 34},
        "data": {"values": rows},
        "encoding": {"y": _names(rows, name)},
        "layer": [_whiskers(scale), point],
    }
