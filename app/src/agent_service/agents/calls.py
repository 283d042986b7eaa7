"""How an agent asks its model: the tier the question deserves, an answer that is kept, the chain, a last resort."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBinding

from agent_service.agents.pieces import Pieces
from agent_service.core.problems import Problem
from agent_service.core.settings import ModelTier
from agent_service.core.text import storable
from agent_service.models.access import Models
from agent_service.models.cache import fingerprint, reader
from agent_service.models.failures import check_answer
from agent_service.models.providers import Model
from agent_service.models.tiers import suited
from agent_service.models.turn import ModelCall, current_turn


class ModelCalls:
    """One specialist's, each with its prompt, its tools as models are told of them, and its parameters."""

    def __init__(
        self,
        models: Models,
        agent: str,
        tier: ModelTier,
        prompt: str,
        tools: list[dict[str, Any]],
        parameters: dict[str, Any],
    ) -> None:
        self._models = models
        self._agent = agent
        self._tier = tier
        self._prompt = SystemMessage(prompt)
        self._tools = tools
        self._parameters = parameters
        self._bindings: dict[int, Runnable[Any, AIMessage]] = {}

    async def ask(self, messages: Sequence[BaseMessage], pieces: Pieces | None = None) -> AIMessage:
        """What the model says to it; to PIECES as it comes."""
        asked = [self._prompt, *messages]

        async def attempt(model: BaseChatModel) -> AIMessage:
            message = await (self._stream(model, asked, pieces) if pieces else self._reply(model, asked))
            message.name = self._agent
            check_answer(message)
            return message

        chain = await self._models.chain(self._suited(messages))
        key = self._key(asked, chain[0])
        if key and (kept := await self._models.cache.find(key)):
            return await self._kept(chain[0], kept, pieces)
        turn = current_turn()
        try:
            message = await self._models.ask(self._agent, chain, attempt, pieces.restart if pieces else None)
        except Problem:
            if not self._models.settings.degraded_answer:
                raise
            return await self._degraded(pieces)
        # What a fallback says is good enough for now, not for as long as an answer is kept.
        if key and turn.model == chain[0].name:
            await self._models.cache.keep(key, message)
        return message

    def _suited(self, messages: Sequence[BaseMessage]) -> ModelTier:
        settings = self._models.settings
        if not settings.model_tiering:
            return self._tier
        asked = next((m.text for m in reversed(messages) if isinstance(m, HumanMessage)), "")
        return suited(self._tier, asked, settings.model_tier_minimum, settings.model_tier_maximum)

    def _key(self, asked: list[BaseMessage], model: Model) -> str | None:
        if not self._models.cache.enabled:
            return None
        return fingerprint(model.place, reader(current_turn(), asked), self._parameters, self._tools, asked)

    async def _reply(self, model: BaseChatModel, asked: list[BaseMessage]) -> AIMessage:
        bound = self._bound(model)
        if reply := getattr(model, "reply", None):
            assert isinstance(bound, RunnableBinding)
            message: AIMessage = await reply(asked, **bound.kwargs)
            return message
        return await bound.ainvoke(asked)

    async def _stream(self, model: BaseChatModel, asked: list[BaseMessage], pieces: Pieces) -> AIMessage:
        pieces.begin()
        chunks: list[AIMessageChunk] = []
        async for chunk in self._bound(model).astream(asked):
            assert isinstance(chunk, AIMessageChunk)
            chunks.append(chunk)
            await pieces.add(chunk)
        message = message_chunk_to_message(add_ai_message_chunks(*chunks)) if chunks else AIMessage("")
        assert isinstance(message, AIMessage)
        return message

    def _bound(self, model: BaseChatModel) -> Runnable[Any, AIMessage]:
        """Made once for each model: they live as long as the process."""
        if id(model) not in self._bindings:
            self._bindings[id(model)] = (
                model.bind_tools([*self._tools], **self._parameters) if self._tools else model.bind(**self._parameters)
            )
        return self._bindings[id(model)]

    async def _kept(self, model: Model, text: str, pieces: Pieces | None) -> AIMessage:
        turn = current_turn()
        turn.model, turn.from_cache = model.name, True
        turn.calls.append(ModelCall(datetime.now(UTC), self._agent, model.name, 0, "cached", 0, 0, 0, Decimal(0)))
        return await self._say(text, model.name, pieces)

    async def _degraded(self, pieces: Pieces | None) -> AIMessage:
        turn = current_turn()
        turn.model, turn.degraded = "none", True
        self._models.count_degraded()
        if turn.sending and pieces:
            await pieces.restart()
        return await self._say(self._models.settings.degraded_answer, "none", pieces)

    async def _say(self, text: str, name: str, pieces: Pieces | None) -> AIMessage:
        """An answer that no model gives."""
        if pieces:
            await pieces.say(storable(text))
        return AIMessage(
            text,
            usage_metadata=UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0),
            response_metadata={"finish_reason": "stop", "model_name": name},
        )
