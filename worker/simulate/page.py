"""How does a comparison look in a browser? One page that needs nothing else: no request leaves it, no script runs."""

from __future__ import annotations

from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.simulate import charts, view
from worker.simulate.compare import Comparison
from worker.simulate.figures import MEANS, RATIOS, ratios_of


def page(found: Comparison) -> str:
    """Return a comparison as an HTML page."""
    made = Environment(
        loader=PackageLoader("worker"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": "{:.1%}".format, "count": lambda number: format_decimal(number, locale="en")}
    return made.get_template("simulate.html.j2").render(
        found=found,
        heading=view.heading(found),
        caution=view.CAUTION,
        names=view.names_of(found),
        ratios=ratios_of(found.policies[0].told),
        each_recovery=RATIOS["attempts_per_recovery"],
        differences=found.differences,
        means=MEANS,
        view=view,
        charts=charts,
        colours=charts.colours(found),
    )
