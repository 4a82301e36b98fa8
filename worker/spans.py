"""What may a trace tell? Of each span only what is chosen by name, and what it is about.

The libraries that make spans put into them whatever they see: addresses with tokens, words of errors, hosts and users.
Out of that leave no parameters, no headers, no words of an error, and of an address only its path at Stripe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status
from structlog.contextvars import get_contextvars

from worker.logs import redact

if TYPE_CHECKING:
    from starlette.applications import Starlette

KEPT = frozenset(
    (
        *("case_id", "message_id", "event_id"),
        *("http.method", "http.route", "http.status_code", "error.type"),
        *("db.system", "db.statement", "celery.action", "celery.state", "celery.task_name", "messaging.message.id"),
    )
)


def begin(stripe: str, web: Starlette | None) -> None:
    """Have tasks, statements, requests and the pages of ``web`` traced; the environment says where to."""
    provider = TracerProvider()
    provider.add_span_processor(About())
    provider.add_span_processor(BatchSpanProcessor(Careful(OTLPSpanExporter(), stripe)))
    celery = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    for each in (celery, PsycopgInstrumentor(), RequestsInstrumentor()):
        each.instrument(tracer_provider=provider)
    if web is not None:
        StarletteInstrumentor.instrument_app(web, tracer_provider=provider)


class About(SpanProcessor):
    """Lets each span tell what the lines of the log tell: the case, the message or the event that it is about."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Note it at the beginning."""
        span.set_attributes(get_contextvars())


@dataclass(frozen=True)
class Careful(SpanExporter):
    """Passes on what may leave; ``stripe`` is the one address of which the path is told."""

    exporter: SpanExporter
    stripe: str

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand spans over, bare of all else; steps within a page are left out."""
        return self.exporter.export([self._bare(span) for span in spans if span.kind is not SpanKind.INTERNAL])

    def shutdown(self) -> None:
        """End."""
        self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hand over what waits."""
        return self.exporter.force_flush(timeout_millis)

    def _bare(self, span: ReadableSpan) -> ReadableSpan:
        kinds = [Event(each.name, _kept(each.attributes, {"exception.type"}), each.timestamp) for each in span.events]
        return ReadableSpan(
            redact(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._attributes(span),
            events=kinds,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _attributes(self, span: ReadableSpan) -> dict[str, Any]:
        url = str((span.attributes or {}).get("http.url", ""))
        path = {"url.path": redact(urlsplit(url).path)} if url.startswith(f"{self.stripe}/") else {}
        return {**_kept(span.attributes, KEPT), **path}


def _kept(attributes: Mapping[str, Any] | None, names: frozenset[str] | set[str]) -> dict[str, Any]:
    found = {name: value for name, value in (attributes or {}).items() if name in names}
    return {name: redact(value) if isinstance(value, str) else value for name, value in found.items()}
