"""Which pictures does a comparison have? Each policy has one colour in all of them."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from worker.charts import PALETTE, both
from worker.intervals import wilson
from worker.simulate.compare import Comparison
from worker.simulate.figures import RATIOS

Spec = dict[str, Any]
APART = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 12}
SHARE = {"type": "quantitative", "axis": {"format": ".0%", "title": None, **APART}}
MOST = len(PALETTE)  # policies that can be told apart
LETTER = 7.5  # pixels, at the size of our labels
NIGHT = {"from": 0.5, "to": 6}


def colours(found: Comparison) -> dict[str, str]:
    """Return the colour of each policy; the page has the legend."""
    return {each.policy: colour for each, colour in zip(found.policies, PALETTE, strict=False)}


def _by_policy(found: Comparison) -> Spec:
    scale = {"domain": list(colours(found)), "range": list(colours(found).values())}
    return {"field": "policy", "type": "nominal", "scale": scale, "legend": None, "sort": None}


def curve(found: Comparison) -> Markup:
    """Draw which share was back by each day after the failure."""
    rows = [
        {"policy": each.policy, "day": day, "share": count / found.payments}
        for each in found.policies
        for day, count in enumerate(each.curve)
    ]
    spec = {
        "height": 240,
        "data": {"values": rows},
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2.5},
        "encoding": {
            "x": {"field": "day", "type": "quantitative", "title": "days since the failure", "scale": {"nice": False}},
            "y": {"field": "share", **SHARE},
            "color": _by_policy(found),
        },
    }
    return both(spec, "Share of all payments that was back by each day after the failure; the table has the numbers")


def classes(found: Comparison) -> Markup:
    """Draw the recovered share of each class of declines as points with their intervals."""
    rows = []
    for each in found.policies:
        for name, told in each.classes.items():
            won = sum(one.recovered for one in told)
            low, high = wilson(won, len(told)) or (0, 1)
            share = {"share": won / len(told), "low": low, "high": high}
            rows.append({"policy": each.policy, "class": _words(name), **share})
    rule = {"x": {"field": "low", **SHARE}, "x2": {"field": "high"}}
    spec = {
        "height": {"step": 16},
        "data": {"values": rows},
        "encoding": {**_grouped([_words(name) for name in found.policies[0].classes]), "color": _by_policy(found)},
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": rule},
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"x": {"field": "share", **SHARE}},
            },
        ],
    }
    return both(spec, "Recovered share by class of the first decline, with 95 % intervals; the table has the numbers")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _grouped(names: list[str]) -> Spec:
    """Return the axis of groups, with room for their names; the policies stand below one another in each."""
    room = LETTER * max(map(len, names))
    axis = {"title": None, "minExtent": room, "labelLimit": room, "ticks": False, "domain": False}
    group = {"field": "class", "type": "nominal", "sort": names, "axis": axis, "scale": {"paddingInner": 0.3}}
    return {"y": group, "yOffset": {"field": "policy", "sort": None}}


def hours(found: Comparison) -> Markup:
    """Draw how many charges of 1,000 payments each hour of the issuer sees; the night is shaded."""
    rows = [
        {"policy": each.policy, "hour": hour, "charges": 1000 * tried / found.payments}
        for each in found.policies
        for hour, (tried, _) in enumerate([*each.hours, each.hours[-1]])
    ]
    axis = {"values": [0, 6, 12, 18, 24], "title": "hour at the issuer"}
    spec = {
        "height": 200,
        "encoding": {"x": {"type": "quantitative", "scale": {"domain": [0, 24], "nice": False}, "axis": axis}},
        "layer": [
            {
                "data": {"values": [NIGHT]},
                "mark": {"type": "rect", "color": "#888", "opacity": 0.18},
                "encoding": {"x": {"field": "from", "type": "quantitative"}, "x2": {"field": "to"}},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2.5},
                "encoding": {
                    "x": {"field": "hour", "type": "quantitative"},
                    "y": {"field": "charges", "type": "quantitative", "axis": {"title": None, **APART}},
                    "color": _by_policy(found),
                },
            },
        ],
    }
    return both(spec, "Charges of 1,000 payments by the hour of the issuer; the table has the numbers")


def attempts(found: Comparison) -> Markup:
    """Draw how many charges each recovery took, by class and together."""
    rows, ratio = [], RATIOS["attempts_per_recovery"]
    for each in found.policies:
        for name, told in {"all": each.told, **each.classes}.items():
            value = ratio.of(told)
            rows += [] if value is None else [{"policy": each.policy, "class": _words(name), "charges": value}]
    spec = {
        "height": {"step": 16},
        "data": {"values": rows},
        "mark": {"type": "bar", "height": {"band": 0.85}},
        "encoding": {
            **_grouped(["all", *map(_words, found.policies[0].classes)]),
            "x": {"field": "charges", "type": "quantitative", "axis": {"title": None, **APART}},
            "color": _by_policy(found),
        },
    }
    return both(
        spec, "Charges for each payment that came back, by class of the first decline; the table has the numbers"
    )
