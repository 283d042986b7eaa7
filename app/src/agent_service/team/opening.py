"""The first call of an agent's model, without the graph around it.

Most turns are this one call, and a graph that stands by for tools costs as much again as asking the model does. Where
the model asks for a tool, the graph takes the answer as its own first step, and goes on from there.
"""

from typing import Any

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, SystemMessage
from langgraph.runtime import Runtime

from agent_service.agents.calls import ModelCalls
from agent_service.tools.calling import Asker


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

    async def ask(self, messages: list[AnyMessage], asker: Asker) -> AIMessage:
        request: ModelRequest[Any] = ModelRequest(
            model=self._model,
            messages=messages,
            system_message=self._prompt,
            tools=[*self._tools],
            state={"messages": messages},
            runtime=Runtime(context=asker),
            model_settings=self._parameters,
        )
        response = await self._calls.awrap_model_call(request, self._call)
        message: BaseMessage = response if isinstance(response, AIMessage) else response.result[-1]
        assert isinstance(message, AIMessage)
        return message

    async def _call(self, request: ModelRequest[Any]) -> ModelResponse[Any]:
        """As the graph's own node calls it."""
        settings = request.model_settings
        model = request.model.bind_tools(request.tools, **settings) if request.tools else request.model.bind(**settings)
        message = await model.ainvoke([self._prompt, *request.messages])
        message.name = self._agent
        return ModelResponse(result=[message])
