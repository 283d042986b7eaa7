"""Chat models of OpenAI's protocol, asked without what their clients do for types that the service never uses.

The client's own `create` looks through all of a request for values to convert, each tool's schema too, builds typed
objects of the answer, and langchain makes dictionaries of those again, in a thread: a third of what a turn costs.
"""

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_openai.chat_models.base import BaseChatOpenAI


class Direct(BaseChatOpenAI):
    """To be mixed into a provider's class. Streams go the usual way."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self._get_request_payload(messages, stop=stop, **kwargs)
        if "response_format" in body or self._use_responses_api(body):
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        body |= body.pop("extra_body", None) or {}
        answer: Any = await self.root_async_client.post("/chat/completions", cast_to=object, body=body)
        return self._create_chat_result(answer)
