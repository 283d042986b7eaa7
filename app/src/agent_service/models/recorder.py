"""Watches every call of one model, whoever makes it: tokens, cost, time, and whether its answer is on its way."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.models.failures import check_answer, model_problem
from agent_service.models.prices import Prices
from agent_service.models.turn import ModelCall, current_turn


class Recorder(AsyncCallbackHandler):
    # Awaited where it is called: a task for each token would cost more than what is done here.
    run_inline = True

    def __init__(self, model: str, prices: Prices, metrics: Metrics) -> None:
        self._model = model
        self._prices = prices
        self._metrics = metrics
        self._started: dict[UUID, float] = {}

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._started[run_id] = time.perf_counter()

    async def on_llm_new_token(
        self,
        token: str | Sequence[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        if token:
            current_turn().sending = True

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if isinstance(message, AIMessage):
            self._record(run_id, outcome(message), message)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        # A turn that ends, by its client or its time, cancels the call.
        self._record(run_id, model_problem(error).code if isinstance(error, Exception) else "cancelled", None)

    def _record(self, run_id: UUID, outcome: str, message: AIMessage | None) -> None:
        seconds = time.perf_counter() - self._started.pop(run_id, time.perf_counter())
        turn = current_turn()
        at = datetime.now(UTC)
        usage = message.usage_metadata if message else None
        if usage is None:
            turn.calls.append(ModelCall(at, turn.agent, self._model, round(seconds * 1000), outcome))
            return
        asked, answered = usage["input_tokens"], usage["output_tokens"]
        cached = usage.get("input_token_details", {}).get("cache_read") or 0
        cost = self._prices.cost(self._model, at, asked, cached, answered)
        self._metrics.tokens.labels(self._model, "input").inc(asked)
        self._metrics.tokens.labels(self._model, "output").inc(answered)
        if cost is None:
            self._metrics.unpriced_calls.labels(self._model).inc()
        else:
            self._metrics.cost_usd.labels(self._model, turn.agent).inc(float(cost))
        turn.calls.append(
            ModelCall(at, turn.agent, self._model, round(seconds * 1000), outcome, asked, answered, cached, cost)
        )


def outcome(message: AIMessage) -> str:
    """`ok`, or why the answer is none."""
    try:
        check_answer(message)
    except Problem as problem:
        return problem.code
    return "ok"
