"""Chat models of OpenAI's protocol, asked without what their clients do for types that the service never uses.

The client's own `create` looks through all of a request for values to convert, each tool's schema too, and builds typed
objects of the answer, of which langchain makes dictionaries again, in a thread; its HTTP client is slower than all of
that, the more so the more calls are on their way.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai.chat_models.base import BaseChatOpenAI
from langsmith.utils import tracing_is_enabled
from pydantic import Field, PrivateAttr

from agent_service.models.recorder import Recorder
from agent_service.models.wire import Wire


class Direct(BaseChatOpenAI):
    """To be mixed into a provider's class. Streams go the usual way, but for how long each chunk is waited for."""

    # That of calls that block, which the service never makes. What is there already is not made.
    client: Any = Field(default=True, exclude=True)
    # The library's limit for each chunk waits with asyncio.wait_for, which in Python 3.11 takes a cancellation for the
    # chunk that came in the same moment: the answer would go on without whoever asked for it. `_astream` has another.
    stream_chunk_timeout: float | None = None
    _wire: Wire | None = PrivateAttr(None)

    async def reply(self, messages: list[BaseMessage], **kwargs: Any) -> AIMessage:
        """As `ainvoke`, told to the recorder alone: to look for whom else to tell costs as much as the call."""
        body = self._get_request_payload(messages, **kwargs)
        if tracing_is_enabled() or self._is_special(body):
            return await self.ainvoke(messages, **kwargs)
        run_id = uuid.uuid4()
        assert isinstance(self.callbacks, list)
        [recorder] = self.callbacks
        assert isinstance(recorder, Recorder)
        recorder.begin(run_id, [messages], body)
        try:
            result = self._create_chat_result(await self._post(body))
        except BaseException as error:
            recorder.fail(run_id, error)
            raise
        generation = result.generations[0]
        message = generation.message
        assert isinstance(message, AIMessage)
        message.id = message.id or str(run_id)
        message.response_metadata = {
            **(result.llm_output or {}), **message.response_metadata, **(generation.generation_info or {})
        }  # fmt: skip
        recorder.end(run_id, message)
        return message

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        assert isinstance(self.request_timeout, int | float)
        stream = super()._astream(*args, **kwargs)
        assert isinstance(stream, AsyncGenerator)
        async with aclosing(stream) as chunks:
            while True:
                async with asyncio.timeout(self.request_timeout):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self._get_request_payload(messages, stop=stop, **kwargs)
        if self._is_special(body):
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        return self._create_chat_result(await self._post(body))

    async def close(self) -> None:
        if self._wire:
            await self._wire.close()

    def _is_special(self, body: dict[str, Any]) -> bool:
        return "response_format" in body or self._use_responses_api(body)

    async def _post(self, body: dict[str, Any]) -> Any:
        extra = body.pop("extra_body", None)
        if self._wire is None:
            assert isinstance(self.request_timeout, int | float)
            self._wire = Wire(self.request_timeout)
        url, headers = self._server
        return await self._wire.post(url, headers, body | extra if extra else body)

    @cached_property
    def _server(self) -> tuple[str, dict[str, str]]:
        client = self.root_async_client
        told = {name: value for name, value in client.default_headers.items() if isinstance(value, str)}
        url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        return url, {**told, "Authorization": f"Bearer {client.api_key}"}
