"""What happens to every request before a route sees it: identity, measure, size."""

import re
import time
import uuid
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_service.api.problems import respond
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem, internal_error
from agent_service.core.tracing import INVALID_SPAN, TRACE_HEADERS, Span, SpanKind, Tracing, failed

# What the balancer and Prometheus ask, from inside the fleet.
OPERATIONS = frozenset({"/health", "/ready", "/metrics"})

# Who calls these cannot send a key: each checks a secret of its own.
WEBHOOKS = frozenset({"/webhook/uaz"})
# The chat page is the same for everybody, and asks for the key itself.
PAGE = "/"
OPEN = OPERATIONS | WEBHOOKS | {PAGE}
# Browsers cannot send a header here: without one, the first message has to bring the credential.
SOCKET = "/api/chat/ws"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = get_logger("agent_service.requests")


class Context:
    """Give the request an id, measure it, write its line, and turn what nobody caught into a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in OPERATIONS:
            await self._serve(scope, receive, send, INVALID_SPAN)
            return
        headers = Headers(scope=scope)
        carrier = {name: value for name in TRACE_HEADERS if (value := headers.get(name))}
        attributes = {"http.request.method": scope["method"]}
        with self._tracing.root(scope["method"], SpanKind.SERVER, carrier, attributes) as span:
            await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", "no-store")
                if session := state.get("echo_session_id"):
                    headers["X-Session-Id"] = session
                headers.update(state.get("headers", {}))
            await send(message)

        started = time.perf_counter()
        counted = scope["path"] not in OPERATIONS
        if counted:
            self._metrics.active.inc()
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.error("unhandled", exc_info=error)
            if status:
                raise
            problem = internal_error()
            await respond(problem, request_id)(scope, receive, send_with_headers)
        finally:
            if counted:
                self._metrics.active.dec()
            finish(self._metrics, scope, status, time.perf_counter() - started, counted, span)


def finish(
    metrics: Metrics, scope: Scope, status: int, seconds: float, counted: bool = True, span: Span = INVALID_SPAN
) -> None:
    """Count and log a request that is over, or a message of a socket."""
    # The route's own path, since a client's would make as many series as there are clients.
    route = getattr(scope.get("route"), "path", "unknown")
    method = scope.get("method", "WEBSOCKET")
    state = scope["state"]
    # A client that left before any answer is counted as Nginx does.
    status = status or 499
    metrics.requests.labels(route, str(status)).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    if span.is_recording():
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {"http.route": route, "http.response.status_code": status, "agent.request_id": state["request_id"]}
        )
        if status >= 500:
            failed(span, state.get("log", {}).get("problem", str(status)))
    write = logger.info if counted else logger.debug
    write(
        "request",
        method=method,
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 1),
        **state.get("log", {}),
    )


class BodyLimit:
    """Read a body up to the limit, then hand it on; a larger one is refused."""

    def __init__(self, app: ASGIApp, limit: int, limits: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = limit
        # Of paths that take more.
        self._limits = limits or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            limit = self._limits.get(scope["path"], self._limit)
            body = await self._read(receive, limit)
        except ClientDisconnect:
            return
        if body is None:
            problem = Problem(413, "body-too-large", f"A body may have {limit} bytes.")
            await respond(problem, scope["state"]["request_id"])(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive, limit: int) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message["body"]
            # uvicorn reads and drops the rest, so that a client still sending gets the reason and no reset.
            if len(body) > limit:
                return None
            if not message.get("more_body", False):
                return bytes(body)
