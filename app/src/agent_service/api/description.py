"""The OpenAPI document: what FastAPI knows of the routes, and what all of them have in common."""

from typing import Any

from fastapi import FastAPI

from agent_service.api.middleware import OPEN
from agent_service.api.schemas import ProblemBody

_ABOUT = """\
Agents that answer in conversations. Every answer other than success is a problem document (RFC 9457); its `request_id`
finds the request in the service's log, and answers carry it as `X-Request-Id`.
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
