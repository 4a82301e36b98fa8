"""Where did the time go, across processes? OpenTelemetry traces, for those who name a collector and install the extra.

The standard variables of OpenTelemetry configure them; what of a span leaves is said in ``worker/spans.py``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from worker.logs import log

if TYPE_CHECKING:
    from starlette.applications import Starlette

COLLECTOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def set_up(role: str, engine: Engine, stripe: str, web: Starlette | None = None) -> None:
    """Send the traces of this process to the collector that the environment names, if it names one."""
    if not any(os.environ.get(name) for name in COLLECTOR):
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", f"dunning-{role}")
    os.environ.setdefault("OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", "healthz,readyz,metrics")
    try:
        from worker import spans
    except ImportError as error:
        advice = "install dunning[otel], or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        log.warning("no traces are sent", missing=error.name, advice=advice)
        return
    spans.begin(stripe, web)
    engine.dispose()  # what was connected before is not traced
    log.info("traces are sent")
