"""Every error as problem JSON, whoever raised it."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from agent_service.core.problems import Problem

_MEANINGS = {
    400: "The request cannot be read.",
    401: "No API key or token that holds.",
    403: "What is asked for is another user's, or the webhook's secret is wrong.",
    404: "There is no such thing.",
    409: "Another request is in the way.",
    413: "The body, or the prompt for the caller's tier, is too large.",
    415: "A document is of a kind that is not read.",
    422: "A field is missing, not known or not acceptable.",
    429: "More requests than the tier or the address may send.",
    500: "The service failed.",
    502: "The model failed.",
    503: "The database or the model cannot be used for now.",
    504: "The model did not answer in time.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that routes answer with, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _MEANINGS[status], "content": {"application/problem+json": {"schema": schema}}}
        for status in statuses
    }


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def respond(problem: Problem, request_id: str | None) -> Response:
    return ProblemResponse(problem.document(request_id), problem.status, problem.headers)


def note(scope: Scope, problem: Problem) -> None:
    """Have the request's line in the log name the problem."""
    scope["state"].setdefault("log", {})["problem"] = problem.code


def install(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    details = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not offered here.",
    }
    problem = Problem(
        error.status_code,
        phrase.lower().replace(" ", "-"),
        details.get(error.status_code, str(error.detail)),
        headers={**(error.headers or {}), **(_allow(request) if error.status_code == 405 else {})},
    )
    return _answer(request, problem)


def _allow(request: Request) -> dict[str, str]:
    """All methods of a path that several routes share; each knows only its own."""
    contexts = iter_route_contexts(request.app.routes)
    methods = {method for route in contexts if route.path == request.url.path for method in route.methods or ()}
    return {"Allow": ", ".join(sorted(methods))} if methods else {}


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, invalid(error.errors()))


def invalid(errors: Sequence[Any]) -> Problem:
    """From what pydantic finds wrong with a request."""
    faults = [_fault(fault) for fault in errors]
    if any(fault["type"] == "json_invalid" for fault in errors):
        return Problem(400, "invalid-json", f"The body is not JSON: {faults[0]['reason']}.")
    detail = "; ".join(f"{fault['field']}: {fault['reason']}" for fault in faults)
    return Problem(422, "invalid-request", detail, errors=faults)


def _fault(fault: dict[str, Any]) -> dict[str, str]:
    """Name the field and the reason; the value stays where it came from."""
    place = [str(part) for part in fault["loc"] if part not in ("body", "query", "header")]
    reasons = {
        "missing": "is missing",
        "string_unicode": "contains a lone surrogate",
        "extra_forbidden": "is not known",
        "model_attributes_type": "must be a JSON object, sent as application/json",
    }
    reason = reasons.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "json_invalid":
        reason = str(fault.get("ctx", {}).get("error", "it cannot be parsed"))
    return {"field": _printable(".".join(place)) or "body", "reason": reason}


def _printable(name: str) -> str:
    """A field's name is the client's own text."""
    return name.encode("ascii", "backslashreplace").decode()[:64]


def _answer(request: Request, problem: Problem) -> Response:
    note(request.scope, problem)
    return respond(problem, request.scope["state"]["request_id"])
