"""The OpenAPI document: what FastAPI knows of the routes, and what all of them have in common."""

from typing import Any

from fastapi import FastAPI

from agent_service.api.middleware import OPEN
from agent_service.api.schemas import ProblemBody

_ABOUT = """\
Agents that answer in conversations. Every answer other than success is a problem document (RFC 9457); its `request_id`
finds the request in the service's log, and answers carry it as `X-Request-Id`.

**WebSocket** `/api/chat/ws`: a conversation over one socket. Send the body of `POST /api/chat` as a text message, as
often as you like; without a `session_id` it goes on with the socket's last one. What comes back are the events of
`POST /api/chat/stream` as `{"event": "token" | "restart" | "done" | "error", "data": {…}}`; `done` and `error` end an
answer, and messages are answered one after another. Send `Authorization` with the handshake; where that cannot be, as
in a browser, send `{"authorization": "Bearer <key or token>"}` as the first message. Each message is checked, counted
and recorded as a request is. The service closes with 1000 (idle), 1003 (not text), 1008 (no credential that holds) or
1012 (it restarts: connect anew).
"""


def install(app: FastAPI) -> None:
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = build()
        document["info"]["description"] = _ABOUT
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = ProblemBody.model_json_schema()
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a user's token (JWT)."}
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _finish(operation, is_open=path in OPEN)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _finish(operation: dict[str, Any], is_open: bool) -> None:
    if not is_open:
        operation["security"] = [{"bearer": []}]
    for status in ("429", "503"):
        if answer := operation["responses"].get(status):
            answer["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
            }
