"""OpenTelemetry's own ASGI middleware works around the server, as docs/operating.md says."""

from __future__ import annotations

import re
from pathlib import Path

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.testclient import TestClient

from cache_builder.format.wire import ROWS
from logit_server.app import create_app
from logit_server.settings import Settings
from tests.logit_server.processes import ROOT

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def test_a_request_is_a_span_of_the_trace_that_its_client_began(cache_path: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = OpenTelemetryMiddleware(create_app(Settings(caches=(str(cache_path),))), tracer_provider=provider)
    with TestClient(app, "http://localhost") as client:
        headers = {"Content-Type": ROWS, "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        response = client.post("/v1/caches/synthetic/records", content=bytes(8), headers=headers)
        assert response.status_code == 200
    (span,) = (span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert span.attributes is not None
    assert 200 in span.attributes.values()


def test_the_documented_program_is_whole() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "operating.md").read_text(), re.DOTALL)
    compile(program, "traced_server.py", "exec")
    assert "serve(Settings.checked(), around=traced)" in program
    for line in re.findall(r"^from logit_server.*$", program, re.MULTILINE):
        exec(line, {})
