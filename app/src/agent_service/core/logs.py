"""JSON lines on stdout: events and identifiers, never message bodies or secrets."""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

Logger = structlog.stdlib.BoundLogger


# What is told of each line of an error beside the log: its fields, and what was raised.
Report = Callable[[EventDict, BaseException | None], None]

_ENCODER = json.JSONEncoder(ensure_ascii=False, default=repr)


def configure_logging(level: str, report: Report | None = None, **context: str) -> None:
    """Send the service's and its libraries' records through one JSON formatter."""
    structlog.reset_defaults()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Context({name: value for name, value in context.items() if value}),
        _name_trace,
        *([_Reporter(report)] if report else []),
        _describe_exception,
    ]
    stream = sys.stdout
    # Not through the standard library's handlers, which take twice as long as all that is done here.
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda name: _Lines(name, stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries stay at warning: at debug the model client writes whole requests.
    root.setLevel(logging.WARNING)
    logging.getLogger("agent_service").setLevel(level.upper())
    # A stream of its own in the same place: whatever the level, it is whole.
    logging.getLogger("agent_service.audit").setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_quotes_no_query)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


class _Lines:
    """Writes what was rendered for it; from which level on is the standard library's to say."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._known = logging.getLogger(name)
        self.disabled = self._known.disabled
        self.getEffectiveLevel = self._known.getEffectiveLevel
        self._stream = stream

    def info(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = warning = error = critical = info


def _render(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return _ENCODER.encode(event)


def get_logger(name: str) -> Logger:
    return structlog.stdlib.get_logger(name)


def _quotes_no_query(record: logging.LogRecord) -> bool:
    """uvicorn tells of every socket with what stands in its address."""
    return '"WebSocket %s"' not in str(record.msg)


class _Context:
    def __init__(self, context: dict[str, str]) -> None:
        self._context = context

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {**event, **self._context}


def _name_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The trace that a line belongs to, and its span where spans are made."""
    current = trace.get_current_span()
    known = current.get_span_context()
    if known.is_valid:
        event.setdefault("trace_id", format(known.trace_id, "032x"))
        if current.is_recording():
            event.setdefault("span_id", format(known.span_id, "016x"))
    return event


def _describe_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Keep an exception's types and places, not its texts: those quote rows, prompts and keys."""
    error = _raised(event.pop("exc_info", None))
    event.pop("exc_text", None)
    if error is None:
        return event
    event["exception"] = [f"{type(cause).__module__}.{type(cause).__qualname__}" for cause in _chain(error)]
    event["frames"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)][-12:]
    return event


class _Reporter:
    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if event.get("level") in ("error", "critical"):
            self._report(event, _raised(event.get("exc_info")))
        return event


def _raised(info: Any) -> BaseException | None:
    if not info:
        return None
    return info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]


def _chain(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return causes
