"""What a model's failures mean: to a client, to a retry, and to the breaker."""

import asyncio

from langchain_core.messages import AIMessage

from agent_service.core.problems import Problem

# A call may be repeated where the model has said nothing yet and another attempt may fare better. Not after a timeout:
# the user waited for that once.
REPEATABLE = frozenset({"model-busy", "model-failed", "model-unreachable", "model-cut-off"})
# What says that the model is unwell. A refusal or an empty answer may be the question's fault.
UNWELL = REPEATABLE | {"model-timeout"}


def model_problem(error: Exception) -> Problem:
    """Say what a failed call means, without quoting the provider: its texts may hold parts of keys and prompts."""
    if isinstance(error, Problem):
        return error
    # By name: the clients of all providers use the same ones, and most are not loaded.
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status_code", None)
    if names & {"APITimeoutError", "TimeoutException"} or isinstance(error, asyncio.TimeoutError):
        return _problem(504, "model-timeout", "The model did not answer in time.")
    if status == 429:
        wait = round(asked_wait(error)) or 10
        return _problem(503, "model-busy", "The model refuses more requests for now.", str(wait))
    if status in (401, 403):
        return _problem(502, "model-refused", "The model's server refuses the service's key.")
    if status is not None and 400 <= status < 500:
        return _problem(502, "model-refused", f"The model's server refused the call ({status}).")
    if status is not None and status >= 500:
        return _problem(502, "model-failed", "The model's server failed.")
    if names & {"APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"}:
        return _problem(502, "model-unreachable", "The connection to the model failed.")
    return _problem(502, "model-failed", "The model's answer could not be read.")


def asked_wait(error: Exception) -> float:
    """The seconds that a provider asks to wait, 0 where it names none."""
    headers = getattr(getattr(error, "response", error), "headers", None) or {}
    wait = headers.get("retry-after", "")
    return float(wait) if wait.isdigit() else 0.0


def resting(seconds: float) -> Problem:
    """The answer while a breaker is open."""
    return _problem(
        503, "model-resting", "The model failed too often and is left alone for a moment.", str(max(1, round(seconds)))
    )


def check_answer(message: AIMessage) -> None:
    """Refuse an answer that broke off: a connection that closes early looks like an end."""
    metadata = message.response_metadata
    reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    if reason == "insufficient_system_resource":
        raise _problem(503, "model-busy", "The model ran out of capacity while it answered.", "10")
    if reason is None:
        raise _problem(502, "model-cut-off", "The model's answer broke off.")
    if not message.text.strip() and not message.tool_calls:
        raise _problem(502, "model-empty", "The model gave an empty answer.")


def _problem(status: int, code: str, detail: str, retry_after: str | None = None) -> Problem:
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Problem(status, code, detail, source="model", headers=headers)
