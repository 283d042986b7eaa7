"""The first call of an agent's model, without the graph around it.

Most turns are this one call, and a graph that stands by for tools costs as much again as asking the model does. Where
the model asks for a tool, the graph takes the answer as its own first step, and goes on from there.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    SystemMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBinding
from langgraph.runtime import Runtime

from agent_service.agents.calls import ModelCalls, Restart
from agent_service.agents.pieces import Pieces
from agent_service.tools.calling import Asker

Call = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class Opening:
    def __init__(
        self,
        agent: str,
        calls: ModelCalls,
        model: BaseChatModel,
        prompt: str,
        tools: list[dict[str, Any]],
        parameters: dict[str, Any],
    ) -> None:
        self._agent = agent
        self._calls = calls
        self._model = model
        self._prompt = SystemMessage(prompt)
        self._tools = tools
        self._parameters = parameters
        self._bindings: dict[int, Runnable[Any, AIMessage]] = {}

    async def ask(self, messages: list[AnyMessage], asker: Asker) -> AIMessage:
        return await self._ask(messages, Runtime(context=asker), self._call)

    async def stream(self, messages: list[AnyMessage], asker: Asker, pieces: Pieces) -> AIMessage:
        # What is said beside the model comes before what the model says next.
        said: deque[str | Restart] = deque()

        async def hand_on() -> None:
            while said:
                await pieces.put(said.popleft())

        async def call(request: ModelRequest[Any]) -> ModelResponse[Any]:
            await hand_on()
            chunks: list[AIMessageChunk] = []
            async for chunk in self._bound(request.model).astream([self._prompt, *request.messages]):
                assert isinstance(chunk, AIMessageChunk)
                chunks.append(chunk)
                await pieces.add(chunk)
            return self._response(message_chunk_to_message(add_ai_message_chunks(*chunks)) if chunks else AIMessage(""))

        message = await self._ask(messages, Runtime(context=asker, stream_writer=said.append), call)
        await hand_on()
        return message

    async def _ask(self, messages: list[AnyMessage], runtime: Runtime[Any], call: Call) -> AIMessage:
        request: ModelRequest[Any] = ModelRequest(
            model=self._model,
            messages=messages,
            system_message=self._prompt,
            tools=[*self._tools],
            state={"messages": messages},
            runtime=runtime,
            model_settings=self._parameters,
        )
        response = await self._calls.awrap_model_call(request, call)
        message: BaseMessage = response if isinstance(response, AIMessage) else response.result[-1]
        assert isinstance(message, AIMessage)
        return message

    async def _call(self, request: ModelRequest[Any]) -> ModelResponse[Any]:
        bound = self._bound(request.model)
        messages = [self._prompt, *request.messages]
        if reply := getattr(request.model, "reply", None):
            assert isinstance(bound, RunnableBinding)
            return self._response(await reply(messages, **bound.kwargs))
        return self._response(await bound.ainvoke(messages))

    def _bound(self, model: BaseChatModel) -> Runnable[Any, AIMessage]:
        """As the graph's own node calls it, but made once: models live as long as the process."""
        if id(model) not in self._bindings:
            self._bindings[id(model)] = (
                model.bind_tools([*self._tools], **self._parameters) if self._tools else model.bind(**self._parameters)
            )
        return self._bindings[id(model)]

    def _response(self, message: BaseMessage) -> ModelResponse[Any]:
        message.name = self._agent
        return ModelResponse(result=[message])
