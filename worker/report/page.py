"""How does a report look in a browser? One page that needs nothing else: no request leaves it, no script runs in it.

``page`` is the whole page, ``fragment`` what stands in its middle, for a page of another's; that one needs ``style``.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from babel.numbers import format_compact_currency, get_currency_precision
from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.locales import money
from worker.report import charts, view
from worker.report.cohort import Report
from worker.report.figures import MEANS, PERCENTILES

LARGE = 100_000


def page(report: Report) -> str:
    """Return a report as an HTML page."""
    return _made("report.html.j2", report)


def fragment(report: Report) -> str:
    """Return a report as a piece of HTML, to stand in a page that has our ``style``."""
    return _made("report_body.html.j2", report)


def style() -> str:
    """Return the style sheet of a report."""
    return _templates().get_template("report.css.j2").render()


def _made(template: str, report: Report) -> str:
    return (
        _templates()
        .get_template(template)
        .render(
            report=report,
            total=report.total,
            told=report.total.as_json(),
            heading=view.heading(report),
            state=view.state(report),
            means=MEANS,
            percentiles=PERCENTILES,
            titles=view.TITLES,
            arm_titles=view.ARM_TITLES,
            colours=charts.COLOURS,
        )
    )


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("worker"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": view.percent, "span": view.span, "number": _number}
    made.globals |= {"money": money, "short": _short, "charts": charts, "lift_title": view.lift_title}
    return made


def _short(amount_minor: int, currency: str) -> str:
    """Return an amount for a heading: a large one in thousands or millions."""
    amount = Decimal(amount_minor).scaleb(-get_currency_precision(currency.upper()))
    if amount < LARGE:
        return money(amount_minor, currency)
    return format_compact_currency(amount, currency.upper(), locale="en", fraction_digits=1)


def _number(value: Any, digits: int = 1) -> str:
    """Return a number with its thousands apart; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
