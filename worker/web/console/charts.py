"""Which pictures does the console show? Each is a Vega-Lite description, and says in words what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from worker.charts import svg

Rows = Sequence[Mapping[str, Any]]
WIDE = 400
ROOM = {"left": 24, "right": 8, "top": 4, "bottom": 4}  # a browser's own font may be wider than the one measured
GREEN, RED, GREY, BLUE, VIOLET = "#009e73", "#d55e00", "#8a8a8a", "#0072b2", "#cc79a7"
COLOURS = {
    "paid": GREEN,
    "refused": RED,
    "refused, by others": "#e69f00",
    "not known yet": VIOLET,
    "observed only": GREY,
}
# Shapes differ too, for those who see few colours.
MARKS = {
    "failed": (RED, "square"),
    "paid": (GREEN, "circle"),
    "refused": (RED, "circle"),
    "other attempt": (GREY, "circle"),
    "notice": (VIOLET, "diamond"),
    "charge planned": (BLUE, "triangle-right"),
    "notice planned": (VIOLET, "triangle-down"),
    "end": (GREY, "cross"),
    "now": ("#e69f00", "triangle-left"),
}


def attempts(days: Rows) -> Markup:
    """Draw the attempts of each day, by outcome."""
    names = [name for name in COLOURS if any(each["outcome"] == name for each in days)]
    order = list(dict.fromkeys(each["day"] for each in days))
    x = {"field": "day", "type": "ordinal", "sort": order, "title": None, "axis": {"labelAngle": 0, **_every(order, 5)}}
    encoding = {"x": x, "y": _count(), "color": _colour("outcome", {name: COLOURS[name] for name in names})}
    total = sum(each["count"] for each in days)
    return _drawn(days, "bar", encoding, f"Attempts on each of the last 30 days by outcome: {total} together", 140)


def ahead(hours: Rows) -> Markup:
    """Draw how many charges are planned in each of the next hours."""
    order = [each["hour"] for each in hours]
    axis = {"labelAngle": 0, **_every(order, 3)}
    x = {"field": "hour", "type": "ordinal", "sort": order, "title": "hour (UTC)", "axis": axis}
    total = sum(each["count"] for each in hours)
    mark = {"type": "bar", "color": BLUE}
    return _drawn(hours, mark, {"x": x, "y": _count()}, f"Charges planned in the next 24 hours: {total}", 140)


def windows(stretches: Rows) -> Markup:
    """Draw when each window of a policy is open, as bars over the 24 hours of a day."""
    order = list(dict.fromkeys(each["window"] for each in stretches))
    y = {"field": "window", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 200}}
    encoding = {"x": _hour("opens"), "x2": {"field": "closes"}, "y": y, "color": _colour("days", DAYS)}
    told = "; ".join(f"{each['window']} {each['told']}" for each in stretches)
    return _drawn(stretches, {"type": "bar", "height": {"band": 0.6}}, encoding, f"Local opening hours: {told}", 200)


DAYS = {"every day": BLUE, "business days": GREEN}


def ladder(points: Rows, rules: Rows, days: int) -> Markup:
    """Draw on which day after the failure what happens at the earliest, and when silence and the case end."""
    rows = list(dict.fromkeys(each["row"] for each in points))
    scale = {"domain": [0, days + 1], "nice": False}
    x = {"field": "day", "type": "quantitative", "title": "days after the failure", "scale": scale}
    y = {"field": "row", "type": "nominal", "sort": rows, "title": None, "axis": {"labelLimit": 200, "grid": True}}
    dots = {
        "data": {"values": points},
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": BLUE},
    }
    lines = {"data": {"values": rules}, "mark": {"type": "rule", "strokeDash": [4, 3], "color": GREY}}
    names = {"type": "text", "align": "right", "dx": -4, "baseline": "top", "y": 2, "fill": "currentColor"}
    told = "; ".join(f"{each['row']}: day {each['day']:g}" for each in points)
    layer = [
        {**lines, "encoding": {"x": x}},
        {**lines, "mark": names, "encoding": {"x": x, "text": {"field": "name"}}},
        {**dots, "encoding": {"x": x, "y": y}},
    ]
    return _svg({"width": WIDE - 110, "height": 130, "layer": layer}, told)


def calendar(days: Sequence[str], opened: Rows, points: Rows, zone: str) -> Markup:
    """Draw the days of a case, one line each, with its open hours and what happens at which local hour."""
    y = {"field": "day", "type": "ordinal", "sort": list(days), "scale": {"domain": list(days)}, "title": None}
    hours = {"x": _hour("from"), "x2": {"field": "to"}, "y": y}
    kinds = [kind for kind in MARKS if any(each["kind"] == kind for each in points)]
    kind = {"field": "kind", "type": "nominal", "title": None}
    colour = {**kind, "scale": {"domain": kinds, "range": [MARKS[each][0] for each in kinds]}}
    shape = {**kind, "scale": {"domain": kinds, "range": [MARKS[each][1] for each in kinds]}}
    legend = {"columns": 3, "symbolStrokeWidth": 2}
    bars = {"type": "bar", "color": BLUE, "opacity": 0.15, "height": {"band": 0.9}}
    dots = {"type": "point", "filled": True, "size": 60, "strokeWidth": 2, "opacity": 1}
    place = {"x": _hour("hour"), "y": y, "color": {**colour, "legend": legend}, "shape": {**shape, "legend": legend}}
    layer = [
        {"data": {"values": opened}, "mark": bars, "encoding": hours},
        {"data": {"values": points}, "mark": dots, "encoding": place},
    ]
    told = "; ".join(f"{each['kind']} on {each['day']} at {each['told']}" for each in points)
    return _svg({"width": WIDE - 60, "height": {"step": 15}, "layer": layer}, f"In local time of {zone}: {told}")


def _drawn(rows: Rows, mark: Any, encoding: Mapping[str, Any], label: str, height: int) -> Markup:
    shape = {"width": WIDE - 40, "height": height}
    return _svg({**shape, "data": {"values": rows}, "mark": mark, "encoding": encoding}, label)


def _svg(spec: Mapping[str, Any], label: str) -> Markup:
    return Markup(svg({"padding": ROOM, **spec}, label))  # noqa: S704 - the library escapes what it draws, and ``svg`` the label


def _count() -> dict[str, Any]:
    return {"field": "count", "type": "quantitative", "title": None, "axis": {"tickMinStep": 1, "format": "d"}}


def _hour(name: str) -> dict[str, Any]:
    axis = {"values": list(range(0, 25, 3)), "grid": True}
    return {"field": name, "type": "quantitative", "scale": {"domain": [0, 24]}, "title": "local hour", "axis": axis}


def _colour(name: str, of: Mapping[str, str]) -> dict[str, Any]:
    return {"field": name, "type": "nominal", "title": None, "scale": {"domain": [*of], "range": [*of.values()]}}


def _every(order: Sequence[str], number: int) -> dict[str, Any]:
    return {"values": list(order[::number])}
