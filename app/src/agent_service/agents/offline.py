"""A model that answers without a network: for trying the service out, and for measuring everything but the model."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import cycle, islice
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

OFFLINE = "offline"

_TEXT = (
    "This answer comes from the offline model, because no key of a real model is set. "
    "It reads your message, keeps the conversation and counts tokens as a real one would, "
    "but it does not think."
)


class OfflineModel(BaseChatModel):
    tokens: int
    tokens_per_second: float = 0

    @property
    def _llm_type(self) -> str:
        return OFFLINE

    def _words(self) -> Iterator[str]:
        for position, word in enumerate(islice(cycle(_TEXT.split()), self.tokens)):
            yield word if position == 0 else f" {word}"

    def _usage(self, messages: list[BaseMessage]) -> UsageMetadata:
        asked = sum(len(message.text) // 4 + 1 for message in messages)
        return UsageMetadata(input_tokens=asked, output_tokens=self.tokens, total_tokens=asked + self.tokens)

    def bind_tools(self, tools: Any, **kwargs: Any) -> "OfflineModel":
        """It does not think, so it never calls one."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = AIMessage(
            content="".join(self._words()),
            usage_metadata=self._usage(messages),
            response_metadata={"model_name": OFFLINE, "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # The inherited one would spend a thread on this.
        return self._generate(messages)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for position, word in enumerate(self._words()):
            # Unlimited still yields to the loop: a long answer must not hold up other requests.
            pause = 1 / self.tokens_per_second if self.tokens_per_second and position else 0
            await asyncio.sleep(pause)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager:
                await run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=self._usage(messages),
                response_metadata={"model_name": OFFLINE, "finish_reason": "stop"},
                chunk_position="last",
            )
        )
