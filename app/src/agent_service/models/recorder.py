"""Watches every call of one model, whoever makes it: tokens, cost, time, and whether its answer is on its way."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.text import storable
from agent_service.core.tracing import INVALID_SPAN, Span, SpanKind, begin, failed
from agent_service.models.failures import check_answer, model_problem
from agent_service.models.prices import Prices
from agent_service.models.providers import Model
from agent_service.models.turn import ModelCall, current_turn


@dataclass(slots=True)
class _Running:
    started: float
    span: Span
    speaking: bool = False


class Recorder(AsyncCallbackHandler):
    # Awaited where it is called: a task for each token would cost more than what is done here.
    run_inline = True

    def __init__(self, model: Model, prices: Prices, metrics: Metrics, texts: bool) -> None:
        self._model = model.name
        self._provider = model.place.partition(":")[0]
        self._window = (model.chat.profile or {}).get("max_input_tokens")
        self._prices = prices
        self._metrics = metrics
        # Whether traces hold what is asked and answered.
        self._texts = texts
        self._running: dict[UUID, _Running] = {}

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self.begin(run_id, messages, kwargs.get("invocation_params", {}))

    async def on_llm_new_token(
        self,
        token: str | Sequence[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        if not token:
            return
        current_turn().sending = True
        running = self._running.get(run_id)
        if running and not running.speaking:
            running.speaking = True
            seconds = time.perf_counter() - running.started
            self._metrics.model_first_token_seconds.labels(self._model).observe(seconds)
            running.span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if isinstance(message, AIMessage):
            self.end(run_id, message)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.fail(run_id, error)

    def begin(self, run_id: UUID, messages: list[list[BaseMessage]], parameters: Mapping[str, Any]) -> None:
        span = begin(f"chat {self._model}", SpanKind.CLIENT, self._asked(parameters))
        if self._texts and span.is_recording():
            span.set_attribute("gen_ai.input.messages", _told(message for batch in messages for message in batch))
        self._running[run_id] = _Running(time.perf_counter(), span)

    def end(self, run_id: UUID, message: AIMessage) -> None:
        self._record(run_id, outcome(message), message)

    def fail(self, run_id: UUID, error: BaseException) -> None:
        # A turn that ends, by its client or its time, cancels the call.
        self._record(run_id, model_problem(error).code if isinstance(error, Exception) else "cancelled", None)

    def _record(self, run_id: UUID, outcome: str, message: AIMessage | None) -> None:
        running = self._running.pop(run_id, None) or _Running(time.perf_counter(), INVALID_SPAN)
        seconds = time.perf_counter() - running.started
        if running.span.is_recording():
            self._end(running.span, outcome, message)
        turn = current_turn()
        at = datetime.now(UTC)
        usage = message.usage_metadata if message else None
        if usage is None:
            turn.calls.append(ModelCall(at, turn.agent, self._model, round(seconds * 1000), outcome))
            return
        asked, answered = usage["input_tokens"], usage["output_tokens"]
        cached = usage.get("input_token_details", {}).get("cache_read") or 0
        cost = self._prices.cost(self._model, at, asked, cached, answered)
        if self._window:
            self._metrics.context_window_ratio.labels(self._model).observe(asked / self._window)
        self._metrics.tokens.labels(self._model, "input").inc(asked)
        self._metrics.tokens.labels(self._model, "output").inc(answered)
        if cost is None:
            self._metrics.unpriced_calls.labels(self._model).inc()
        else:
            self._metrics.cost_usd.labels(self._model, turn.agent).inc(float(cost))
        turn.calls.append(
            ModelCall(at, turn.agent, self._model, round(seconds * 1000), outcome, asked, answered, cached, cost)
        )

    def _asked(self, parameters: Mapping[str, Any]) -> dict[str, str | float]:
        asked: dict[str, str | float] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self._model,
            "gen_ai.agent.name": current_turn().agent,
        }
        for name in ("temperature", "top_p", "max_tokens"):
            if isinstance(value := parameters.get(name), int | float):
                asked[f"gen_ai.request.{name}"] = value
        return asked

    def _end(self, span: Span, outcome: str, message: AIMessage | None) -> None:
        if message:
            about = message.response_metadata
            span.set_attribute("gen_ai.response.model", str(about.get("model_name") or self._model))
            if reason := about.get("finish_reason") or about.get("stop_reason"):
                span.set_attribute("gen_ai.response.finish_reasons", [str(reason)])
            if usage := message.usage_metadata:
                span.set_attribute("gen_ai.usage.input_tokens", usage["input_tokens"])
                span.set_attribute("gen_ai.usage.output_tokens", usage["output_tokens"])
                cached = usage.get("input_token_details", {}).get("cache_read") or 0
                span.set_attribute("gen_ai.usage.cache_read.input_tokens", cached)
            if self._texts:
                span.set_attribute("gen_ai.output.messages", _told([message]))
        if outcome != "ok":
            failed(span, outcome)
        span.end()


def _told(messages: Iterable[BaseMessage]) -> str:
    """As the GenAI conventions write messages down."""
    roles = {"human": "user", "ai": "assistant"}
    return json.dumps(
        [
            {
                "role": roles.get(message.type, message.type),
                "parts": [{"type": "text", "content": storable(message.text)}],
            }
            for message in messages
        ],
        ensure_ascii=False,
    )


def outcome(message: AIMessage) -> str:
    """`ok`, or why the answer is none."""
    try:
        check_answer(message)
    except Problem as problem:
        return problem.code
    return "ok"
