"""Do traces tell what each piece of work is about and how long it took, and nothing that is nobody's business?"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import Engine

from tests.worker.bench import Serve
from tests.worker.builders import START, opened
from worker.clock import set_clock
from worker.embedded import Servers

REPO = Path(__file__).parents[2]
# One task, one page, one webhook to the merchant and one error of the database, with canaries wherever they fit.
PROGRAM = """
import logging, sys, threading
from http.client import HTTPConnection
from socket import create_server
import uvicorn
from sqlalchemy import text
from worker import app, hooks, logs, tasks, traces
from worker.links import Links
from worker.settings import load_settings
from worker.web.webhooks import serve
logs.set_up()
site, settings = serve(), load_settings()
traces.set_up("worker", app.engine(), settings.stripe_api_base, site)
task = tasks.celery_app.tasks["dunning.work"].apply(args=(int(sys.argv[1]), sys.argv[2]))
listener = create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(site, log_config=None, access_log=False))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
thread.start()
link = Links.from_settings(settings).to_pay(int(sys.argv[1]), tasks.desk().now).rpartition("/")[2]
for method, path in (("POST", f"/pay/{link}"), ("GET", "/pay/canary"), ("GET", "/canary?canary"), ("GET", "/metrics")):
    line = HTTPConnection(*listener.getsockname())
    line.request(method, path, headers={"Authorization": "Bearer canary", "Cookie": "canary"})
    line.getresponse().read()
    line.close()
server.should_exit = True
thread.join()
for fail in (
    lambda: hooks.Hooks.from_settings(settings).send("m", "case.opened", tasks.desk().now, {"name": "canary"}),
    lambda: app.engine().connect().execute(text("SELECT CAST(:it AS int)"), {"it": "canary"}),
):
    try:
        fail()
    except Exception:
        pass
"""
WITHOUT = """
import sys
sys.modules["opentelemetry.instrumentation"] = None
from worker import app, logs, traces
logs.set_up()
traces.set_up("worker", app.make_engine("postgresql://"), "https://api.stripe.com")
"""
Received = list[ExportTraceServiceRequest]


@pytest.fixture
def collector() -> Iterator[tuple[str, Received]]:
    """Give the address of a collector, and what it has received."""
    received: Received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            if self.path == "/v1/traces":
                received.append(ExportTraceServiceRequest.FromString(plain))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_given: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def ran(program: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Run a program to its end; return the lines of its log."""
    whole = {**os.environ, "PYTHONPATH": str(REPO), **environment}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=REPO, env=whole, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def attributes(span: Span) -> dict[str, Any]:
    """Return the attributes of a span."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_trace_tells_the_case_and_no_secret(
    engine: Engine, running: Servers, serve: Serve, tmp_path: Path, collector: tuple[str, Received]
) -> None:
    """Of a task, its statements and its requests to the provider; of a page; of a webhook to the merchant."""
    bench, (address, received), case_id = serve(), collector, opened(engine)
    [(_, token)] = bench.claim(START)
    set_clock(tmp_path / "clock", START)
    lines = ran(
        PROGRAM,
        str(case_id),
        str(token),
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=canary",
        DUNNING_DATABASE_URL=running.database_url,
        DUNNING_BROKER_URL=running.broker_url,
        DUNNING_STRIPE_API_KEY="sk_test_canary",
        DUNNING_STRIPE_API_BASE=f"http://127.0.0.1:{bench.port}",
        DUNNING_HOME=str(tmp_path),
        DUNNING_CLOCK_FILE=str(tmp_path / "clock"),
        DUNNING_MODE="live",
        DUNNING_PUBLIC_URL="https://pay.shop.example",
        DUNNING_LINK_SECRET="canary" * 8,
        DUNNING_HOOK_URL=f"{address}/canary?token=canary",
        DUNNING_HOOK_SECRET="whsec_" + "c" * 40,
    )
    scopes = [scope for each in received for resource in each.resource_spans for scope in resource.scope_spans]
    spans = [span for scope in scopes for span in scope.spans]
    [task] = [span for span in spans if span.name == "run/dunning.work"]
    inside = [span for span in spans if span.trace_id == task.trace_id]
    assert {attributes(span).get("case_id") for span in inside} == {case_id}
    assert {name.split()[0] for name in (span.name for span in inside)} >= {"SELECT", "UPDATE", "GET"}
    assert "/v1/invoices/in_1" in {attributes(span).get("url.path") for span in inside}
    pages = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {(span.name, attributes(span)["http.status_code"]) for span in pages} >= {("GET /pay/{token:path}", 404)}
    assert not [span for span in pages if "metrics" in span.name]
    assert [span for span in spans if span.status.code == span.status.STATUS_CODE_ERROR]
    assert "canary" not in str(received)
    assert str(token) not in str(received)
    [led] = [line for line in lines if line["event"] == "link"]
    assert led["case_id"] == case_id


def test_a_collector_without_the_extra_is_told_in_one_line() -> None:
    """Somebody expects traces and would wait for ever."""
    [line] = ran(WITHOUT, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (line["event"], line["level"]) == ("no traces are sent", "warning")
    assert "dunning[otel]" in line["advice"]


def test_without_a_collector_nothing_is_loaded() -> None:
    """Who wants no traces pays nothing for them."""
    program = WITHOUT.replace("sys.modules", "#") + "assert not [name for name in sys.modules if 'opentelem' in name]\n"
    assert ran(program) == []
