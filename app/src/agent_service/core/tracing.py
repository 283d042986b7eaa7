"""Traces: one id for all that follows from a request, and spans of it where somebody wants them."""

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings

__all__ = ["INVALID_SPAN", "Span", "SpanKind"]

Attributes = Mapping[str, str | int | float | bool]

# What a job carries of the request that it follows from.
_CARRIED = ("request_id", "session_id")
_W3C = TraceContextTextMapPropagator()
TRACE_HEADERS = tuple(sorted(_W3C.fields))

# Found through the context, so that what runs for nobody's request makes no spans.
_tracer: ContextVar[Tracer | None] = ContextVar("tracer", default=None)


class Tracing:
    """What a process makes of its traces: ids alone, or spans that are exported, logged, or both."""

    def __init__(self, settings: Settings, metrics: Metrics, process: str) -> None:
        self._exporting = None
        if _wanted(settings):
            # Loaded only here: what exports takes memory and time to load.
            from agent_service.core.exporting import Exporting

            self._exporting = Exporting(settings, metrics, process)

    @contextlib.contextmanager
    def root(self, name: str, kind: SpanKind, carrier: Mapping[str, str], attributes: Attributes) -> Iterator[Span]:
        """All that is done within is one trace: the carrier's, where it has a traceparent."""
        parent = _W3C.extract(carrier, context.Context())
        if self._exporting is None:
            known = trace.get_current_span(parent).get_span_context()
            with trace.use_span(NonRecordingSpan(known if known.is_valid else _made())) as span:
                yield span
            return
        before = _tracer.set(self._exporting.tracer)
        try:
            with _opened(self._exporting.tracer, name, kind, attributes, parent) as span:
                yield span
        finally:
            _tracer.reset(before)

    def close(self) -> None:
        """Export what is left, if that takes no more than a moment."""
        if self._exporting:
            self._exporting.close()


@contextlib.contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes | None = None) -> Iterator[Span]:
    """A part of the current trace. A failure is noted by its type alone: its text may quote a message."""
    tracer = _tracer.get()
    if tracer is None:
        yield INVALID_SPAN
        return
    with _opened(tracer, name, kind, attributes) as opened:
        yield opened


def begin(name: str, kind: SpanKind, attributes: Attributes) -> Span:
    """As `span`, for what ends elsewhere: whoever begins it ends it."""
    tracer = _tracer.get()
    return tracer.start_span(name, kind=kind, attributes=dict(attributes)) if tracer else INVALID_SPAN


def failed(opened: Span, reason: str) -> None:
    opened.set_attribute("error.type", reason)
    opened.set_status(StatusCode.ERROR)


def origin() -> dict[str, str]:
    """What work that is done later, or elsewhere, has to know of what it follows from."""
    found = carried(structlog.contextvars.get_contextvars())
    _W3C.inject(found)
    return found


def carried(known: Mapping[str, str]) -> dict[str, str]:
    """The part of it that lines of the log name."""
    return {name: known[name] for name in _CARRIED if name in known}


def outgoing() -> dict[str, str]:
    """The headers by which another system joins the trace."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


@contextlib.contextmanager
def _opened(
    tracer: Tracer, name: str, kind: SpanKind, attributes: Attributes | None, parent: context.Context | None = None
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, parent, kind, dict(attributes or {}), record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            failed(opened, error.code if isinstance(error, Problem) else type(error).__qualname__)
            raise


def _wanted(settings: Settings) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return settings.log_spans or bool(settings.trace_endpoint or endpoint_of_environment())


def endpoint_of_environment() -> str:
    """The variables that every OpenTelemetry SDK reads."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((found for name in names if (found := os.environ.get(name, "").strip())), "")


def _made() -> SpanContext:
    return SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, is_remote=False)
