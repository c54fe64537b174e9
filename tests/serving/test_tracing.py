"""Trace spans reach a receiver of OTLP, and say nothing of who sent a request or what it contained."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import importlib.util
import json
import threading
import time
import urllib.request

import orjson
import pytest

from serving.server import running
from serving.tracing import WithoutSender

EXPORTER = "opentelemetry.exporter.otlp.proto.http"
MARK = "MARKED"
PARENT = "0af7651916cd43dd8448eb211c80319c"


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Receiver(http.server.ThreadingHTTPServer):
    """Decodes what an exporter sends to `/v1/traces`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list = []

    @property
    def spans(self) -> list:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(service.ExportTraceServiceRequest.FromString(body))
        answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments) -> None:
        pass


def test_spans_cannot_have_keys_even_if_all_headers_are_to_be_recorded():
    seen: list[dict] = []

    async def app(scope, receive, send):
        seen.append(scope)

    headers = [(name, b"x") for name in (b"host", b"user-agent", b"authorization", b"x-api-key", b"cookie")]
    scope = {"type": "http", "headers": headers, "client": ("10.0.0.1", 7), "query_string": b"x"}
    asyncio.run(WithoutSender(app)(scope, None, None))
    assert seen == [{"type": "http", "headers": [(b"host", b"x")], "client": None, "query_string": b""}]


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(EXPORTER), reason="opentelemetry-exporter-otlp-proto-http is not installed")
def test_spans_reach_a_receiver_and_say_nothing_of_the_sender(workspace, buyers, server_environment, tmp_path):
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    env = server_environment(workspace)
    options = {
        "exporter_type": "otlp",
        "otlp.protocol": "http",
        "otlp.endpoint": f"http://127.0.0.1:{receiver.server_port}/v1/traces",
        "sample_rate": "1.0",
        "excluded_urls": "livez,readyz,metrics",
    }
    env["BENTOML_CONFIG_OPTIONS"] += "".join(
        f" services.qianmian.tracing.{name}={value}" for name, value in options.items()
    )
    env["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    log = tmp_path / "server.log"
    with log.open("wb") as handle, running(workspace, env=env, log=handle) as url:
        for path, body in (
            ("/v1/recommendations", {"user_id": buyers[0]}),
            ("/v1/recommendations", {"user_id": MARK}),
            ("/v1/profile", {"user_id": MARK}),
            ("/v1/lookalike", {"seed_user_ids": buyers[:30], "size": 5}),
        ):
            headers = {
                "user-agent": MARK,
                "cookie": MARK,
                "authorization": MARK,
                "traceparent": f"00-{PARENT}-b7ad6b7169203331-01",
            }
            request = urllib.request.Request(f"{url}{path}?{MARK}", orjson.dumps(body), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.headers["x-request-id"]
                assert json.load(answer)["model"]
        deadline = time.monotonic() + 30
        while not {"/v1/recommendations", "/v1/profile", "/v1/lookalike"} <= targets(receiver):
            assert time.monotonic() < deadline, (targets(receiver), log.read_text())
            time.sleep(0.1)
    receiver.shutdown()
    assert {span.trace_id.hex() for span in receiver.spans} == {PARENT}, "spans continue the trace of the client"
    said = "".join(map(str, receiver.requests))
    for private in (MARK, buyers[0], "user_agent", "peer.ip", "client.address"):
        assert private not in said, private
    assert "qianmian" in said


def targets(receiver: Receiver) -> set[str]:
    """The paths that spans name."""
    names = ("http.target", "url.path")
    return {
        attribute.value.string_value
        for span in receiver.spans
        for attribute in span.attributes
        if attribute.key in names
    }
