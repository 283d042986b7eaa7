"""Local servers in the place of what telemetry is sent to."""

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from servers import wait_for


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


class Backend:
    """Takes whatever is sent and keeps it, with what it was compressed by taken off."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _take(self) -> None:
                body = self._body()
                match self.headers.get("Content-Encoding"):
                    case "gzip":
                        body = gzip.decompress(body)
                    case "deflate":
                        body = zlib.decompress(body)
                backend.received.append(Received(self.path, dict(self.headers), body))
                backend.gate.wait(60)
                answer = b"" if "x-protobuf" in self.headers.get("Content-Type", "") else b"{}"
                self.send_response(backend.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = _take

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def bytes(self) -> bytes:
        return b"\n".join(one.body for one in self.received)

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Span:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    children: list["Span"] = field(default_factory=list)

    def tree(self) -> Iterator["Span"]:
        yield self
        for child in self.children:
            yield from child.tree()

    def find(self, name: str) -> "Span":
        return next(span for span in self.tree() if span.name == name)


class Collector(Backend):
    """An OpenTelemetry collector's receiver: OTLP over HTTP, protobuf."""

    def spans(self) -> list[Span]:
        found = []
        for one in list(self.received):
            assert one.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(one.body).resource_spans:
                about = _attributes(resource.resource.attributes)
                for scope in resource.scope_spans:
                    found += [
                        Span(
                            span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                            span.status.code == 2, _attributes(span.attributes), about,
                        )
                        for span in scope.spans
                    ]  # fmt: skip
                    assert not any(span.events for span in scope.spans)
        return found

    def tree(self, trace_id: str, *names: str, seconds: float = 20) -> Span:
        """The one tree of a trace, once it has the spans of these names."""

        def there() -> bool:
            return {span.name for span in self.spans() if span.trace_id == trace_id} >= set(names)

        wait_for(there, seconds, f"the spans {names}, there are {[span.name for span in self.spans()]}")
        spans = {span.span_id: span for span in self.spans() if span.trace_id == trace_id}
        roots = []
        for span in spans.values():
            parent = spans.get(span.parent_id)
            (parent.children if parent else roots).append(span)
        assert len(roots) == 1, [root.name for root in roots]
        return roots[0]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, str(kind))


def lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
