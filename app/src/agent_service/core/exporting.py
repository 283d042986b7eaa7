"""Where spans go: to a collector by OTLP over HTTP, as lines into the log, or both."""

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.core.tracing import endpoint_of_environment

EXPORT_SECONDS = 5
CLOSE_SECONDS = 3

logger = get_logger(__name__)
# Named for whoever collects the stream, not after the module.
_stream = get_logger("agent_service.spans")


class Exporting:
    def __init__(self, settings: Settings, metrics: Metrics, process: str) -> None:
        resource = Resource.create(
            {
                "service.name": settings.name,
                "service.version": settings.release,
                "agent.slot": settings.slot,
                "agent.process": process,
            }
        )
        self._provider = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.trace_ratio)), resource, shutdown_on_exit=False
        )
        if settings.trace_endpoint or endpoint_of_environment():
            self._provider.add_span_processor(BatchSpanProcessor(_Watched(_exporter(settings), metrics)))
        if settings.log_spans:
            self._provider.add_span_processor(_Lines())
        self.tracer = self._provider.get_tracer("agent_service", settings.release)

    def close(self) -> None:
        # In a thread that nobody waits for at the end: a collector that is away would keep the process.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)


class _Watched(SpanExporter):
    """An exporter whose failures are counted, and news once."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._metrics = metrics
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            result = SpanExportResult.FAILURE
            if not self._failing:
                logger.warning("spans_lost", exc_info=error)
                self._failing = True
        lost = result is not SpanExportResult.SUCCESS
        if lost:
            self._metrics.spans_lost.inc(len(spans))
        if lost and not self._failing:
            logger.warning("spans_lost", spans=len(spans))
        elif self._failing and not lost:
            logger.info("spans_taken_again")
        self._failing = lost
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Lines(SpanProcessor):
    """A line for each span, so that a request's tree can be read without any backend."""

    def on_end(self, span: ReadableSpan) -> None:
        known = span.get_span_context()
        if known is None or not known.trace_flags.sampled:
            return
        fields: dict[str, Any] = {
            "trace_id": format(known.trace_id, "032x"),
            "span_id": format(known.span_id, "016x"),
            "parent_id": format(span.parent.span_id, "016x") if span.parent else None,
            "name": span.name,
            "kind": span.kind.name.lower(),
            "milliseconds": round(((span.end_time or 0) - (span.start_time or 0)) / 1e6, 1),
            "failed": span.status.status_code is StatusCode.ERROR,
            "attributes": dict(span.attributes or {}),
        }
        _stream.info("span", **fields)


def _exporter(settings: Settings) -> SpanExporter:
    headers = dict(
        pair.strip().split("=", 1) for pair in settings.trace_headers.get_secret_value().split(",") if "=" in pair
    )
    # Where it is the environment's, the exporter reads it as its documentation says.
    endpoint = f"{settings.trace_endpoint.rstrip('/')}/v1/traces" if settings.trace_endpoint else None
    return OTLPSpanExporter(endpoint=endpoint, headers=headers or None, timeout=EXPORT_SECONDS)
