"""How an agent asks its model: the tier the question deserves, an answer that is kept, the chain, a last resort."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata

from agent_service.core.problems import Problem
from agent_service.core.settings import ModelTier
from agent_service.core.text import storable
from agent_service.models.access import Models
from agent_service.models.cache import fingerprint, reader
from agent_service.models.failures import check_answer
from agent_service.models.providers import Model
from agent_service.models.tiers import suited
from agent_service.models.turn import ModelCall, current_turn

Response = ModelResponse[Any]


class Restart:
    """Among the pieces of an answer: what was sent so far is void, the answer begins again."""


RESTART = Restart()


class ModelCalls(AgentMiddleware[Any, Any, Any]):
    def __init__(self, models: Models, agent: str, tier: ModelTier = "standard") -> None:
        super().__init__()
        self._models = models
        self._agent = agent
        self._tier = tier

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response | AIMessage:
        opening = request.runtime.context.opening
        if opening and isinstance(request.messages[-1], HumanMessage):
            return ModelResponse(result=[opening])

        async def attempt(model: BaseChatModel) -> Response:
            response = await handler(request.override(model=model))
            for message in response.result:
                if isinstance(message, AIMessage):
                    check_answer(message)
            return response

        chain = await self._models.chain(self._suited(request))
        key = self._key(request, chain[0])
        if key and (kept := await self._models.cache.find(key)):
            return self._kept(request, chain[0], kept)
        turn = current_turn()
        try:
            response = await self._models.ask(
                self._agent, chain, attempt, restart=lambda: request.runtime.stream_writer(RESTART)
            )
        except Problem:
            if not self._models.settings.degraded_answer:
                raise
            return self._degraded(request)
        last = response.result[-1]
        # What a fallback says is good enough for now, not for as long as an answer is kept.
        if key and turn.model == chain[0].name and isinstance(last, AIMessage):
            await self._models.cache.keep(key, last)
        return response

    def _suited(self, request: ModelRequest[Any]) -> ModelTier:
        settings = self._models.settings
        if not settings.model_tiering:
            return self._tier
        asked = next((m.text for m in reversed(request.messages) if isinstance(m, HumanMessage)), "")
        return suited(self._tier, asked, settings.model_tier_minimum, settings.model_tier_maximum)

    def _key(self, request: ModelRequest[Any], model: Model) -> str | None:
        if not self._models.cache.enabled or request.response_format is not None:
            return None
        prompt = [request.system_message] if request.system_message else []
        return fingerprint(
            model.place,
            reader(current_turn(), request.messages),
            {"settings": request.model_settings, "tool_choice": request.tool_choice},
            request.tools,
            [*prompt, *request.messages],
        )

    def _kept(self, request: ModelRequest[Any], model: Model, text: str) -> AIMessage:
        turn = current_turn()
        turn.model, turn.from_cache = model.name, True
        turn.calls.append(ModelCall(datetime.now(UTC), self._agent, model.name, 0, "cached", 0, 0, 0, Decimal(0)))
        return self._say(request, text, model.name)

    def _degraded(self, request: ModelRequest[Any]) -> AIMessage:
        turn = current_turn()
        turn.model, turn.degraded = "none", True
        self._models.count_degraded()
        if turn.sending:
            request.runtime.stream_writer(RESTART)
        return self._say(request, self._models.settings.degraded_answer, "none")

    def _say(self, request: ModelRequest[Any], text: str, name: str) -> AIMessage:
        """An answer that no model streams."""
        request.runtime.stream_writer(storable(text))
        return AIMessage(
            text,
            usage_metadata=UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0),
            response_metadata={"finish_reason": "stop", "model_name": name},
        )
