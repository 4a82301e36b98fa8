"""How do numbers become pictures? A Vega-Lite description becomes one SVG, without a browser and without a network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import vl_convert
from markupsafe import Markup

VEGA_LITE = "5.20"  # the version of the language, not of the library
FONT = "system-ui, sans-serif"
# Colours that differ in lightness too, for those who see few of them (Okabe and Ito); text is the page's own colour.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
AXIS = {"labelColor": "currentColor", "titleColor": "currentColor", "domainColor": "currentColor", "gridOpacity": 0.25}
SIZES = {"narrow": 340, "wide": 920}  # pixels: for a phone and for a desk
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**AXIS, "tickColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400},
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "orient": "top"},
    "text": {"color": "currentColor"},
    "range": {"category": list(PALETTE)},
}


def svg(spec: Mapping[str, Any], label: str) -> str:
    """Return the picture of a Vega-Lite description as an SVG element of class ``marks``; the page gives it its room.

    ``label`` says in words what it shows, for those who cannot see it. Raises ``ValueError`` for a wrong description.
    """
    drawn: str = vl_convert.vegalite_to_svg({"config": CONFIG, **spec}, vl_version=VEGA_LITE)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def both(spec: Mapping[str, Any], label: str) -> Markup:
    """Return the picture in both widths, each in an element of that class; the page shows the one that fits."""
    base = {"autosize": {"type": "fit-x", "contains": "padding"}, **spec}
    drawn = (f'<div class="{name}">{svg({**base, "width": width}, label)}</div>' for name, width in SIZES.items())
    return Markup("").join(map(Markup, drawn))  # Vega has escaped the texts of the picture
