"""The chat model that the settings ask for, and what its failures mean to a client."""

import asyncio
from typing import Any

import httpx2
import openai
from langchain_core.language_models import BaseChatModel
from langchain_deepseek import ChatDeepSeek

from agent_service.agents.offline import OFFLINE, OfflineModel
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings


def create_model(settings: Settings) -> tuple[str, BaseChatModel]:
    """The model and the name that answers carry."""
    if not settings.model_key.get_secret_value():
        offline = OfflineModel(tokens=settings.offline_tokens, tokens_per_second=settings.offline_tokens_per_second)
        return OFFLINE, offline
    thinking = {} if settings.model_thinking == "unset" else {"thinking": {"type": settings.model_thinking}}
    return settings.model, ChatDeepSeek(
        model_name=settings.model,
        api_key=settings.model_key,
        base_url=settings.model_url,
        timeout=settings.model_timeout_seconds,
        max_retries=settings.model_retries,
        stream_usage=True,
        stream_chunk_timeout=settings.model_timeout_seconds,
        extra_body=thinking or None,
    )


async def check_model(model: BaseChatModel) -> None:
    """Fail unless the model's server answers and takes the key; costs no tokens."""
    if isinstance(model, ChatDeepSeek):
        await model.root_async_client.with_options(max_retries=0, timeout=2).models.list()


def model_problem(error: Exception) -> Problem:
    """Say what a failed call means, without quoting the provider: its texts may hold parts of keys and prompts."""
    match error:
        case Problem():
            return error
        case openai.APITimeoutError() | httpx2.TimeoutException() | asyncio.TimeoutError():
            return _problem(504, "model-timeout", "The model did not answer in time.")
        case openai.RateLimitError():
            wait = error.response.headers.get("retry-after", "")
            return _problem(
                503, "model-busy", "The model refuses more requests for now.", wait if wait.isdigit() else "10"
            )
        case openai.APIStatusError() if error.status_code >= 500:
            return _problem(502, "model-failed", "The model's server failed.")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return _problem(502, "model-refused", "The model's server refuses the service's key.")
        case openai.APIStatusError():
            return _problem(502, "model-refused", f"The model's server refused the call ({error.status_code}).")
        case openai.APIConnectionError() | httpx2.TransportError():
            return _problem(502, "model-unreachable", "The connection to the model failed.")
        case _:
            return _problem(502, "model-failed", "The model's answer could not be read.")


def check_answer(text: str, metadata: dict[str, Any]) -> None:
    """Refuse an answer that broke off: a connection that closes early looks like an end."""
    reason = metadata.get("finish_reason")
    if reason == "insufficient_system_resource":
        raise _problem(503, "model-busy", "The model ran out of capacity while it answered.", "10")
    if reason is None:
        raise _problem(502, "model-cut-off", "The model's answer broke off.")
    if not text.strip():
        raise _problem(502, "model-empty", "The model gave an empty answer.")


def _problem(status: int, code: str, detail: str, retry_after: str | None = None) -> Problem:
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Problem(status, code, detail, source="model", headers=headers)
