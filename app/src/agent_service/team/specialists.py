"""The agents of the team, compiled once: each with its prompt, its tools and its way to call the model."""

import functools
import importlib
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph.state import CompiledStateGraph
from langsmith import set_runtime_overrides

from agent_service.agents.calls import ModelCalls
from agent_service.agents.offline import OFFLINE
from agent_service.agents.pieces import Pieces
from agent_service.models.access import Models
from agent_service.team.definition import GENERAL, Specialist, Team
from agent_service.team.mcp import McpServers
from agent_service.team.opening import Opening
from agent_service.tools.calling import Asker, ToolCalls

Agent = CompiledStateGraph[Any, Any, Any, Any]
Tools = dict[str, list[BaseTool]]


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    agent: Agent
    opening: Opening
    calls_tools: bool

    async def answer(self, messages: list[AnyMessage], asker: Asker) -> AIMessage:
        message = await self.opening.ask(messages, asker)
        if message.tool_calls:
            state = await self.agent.ainvoke({"messages": messages}, context=replace(asker, opening=message))
            message = state["messages"][-1]
        return message

    async def stream(self, messages: list[AnyMessage], asker: Asker, pieces: Pieces) -> AIMessage:
        """The same, its pieces handed on as they come."""
        message = await self.opening.stream(messages, asker, pieces)
        if message.tool_calls:
            run = self.agent.astream(
                {"messages": messages},
                context=replace(asker, opening=message),
                stream_mode=["messages", "values", "custom"],
            )
            async for mode, part in run:
                content: Any = part
                if mode == "values":
                    message = content["messages"][-1]
                elif mode == "custom":
                    await pieces.put(content)
                else:
                    await pieces.take(*content)
        return message


class Specialists:
    def __init__(self, team: Team, tools: Tools, servers: McpServers, models: Models, tool_calls: ToolCalls) -> None:
        self._team = team
        self._tools = tools
        self._servers = servers
        self._models = models
        self._tool_calls = tool_calls
        self._members: dict[str, Member] = {}
        self._generation = servers.generation
        # Langchain wraps each middleware in a step of LangSmith's, which visits a thread twice even where it is off.
        set_runtime_overrides(aio_to_thread=_without_thread)
        self._compile()

    def find(self, id: str) -> Member:
        # Servers come and go seldom, and a message must not meet the tools of one that is gone.
        if self._servers.generation != self._generation:
            self._generation = self._servers.generation
            self._compile(of_servers_only=True)
        return self._members.get(id) or self._members[GENERAL]

    def _compile(self, of_servers_only: bool = False) -> None:
        for specialist in self._team.specialists:
            if specialist.mcp_servers or not of_servers_only:
                self._members[specialist.id] = self._member(specialist)

    def _member(self, specialist: Specialist) -> Member:
        model = self._models.first(specialist.tier)
        tools = [*self._tools[specialist.id], *self._servers.tools(specialist.mcp_servers)]
        calls = ModelCalls(self._models, specialist.id, specialist.tier)
        middleware: list[AgentMiddleware[Any, Any, Any]] = [calls]
        parameters = specialist.parameters.model_dump(exclude_none=True)
        described = [convert_to_openai_tool(one) for one in tools]
        if tools or parameters:
            middleware.insert(0, _Bound(parameters, described))
        if tools:
            middleware.insert(0, self._tool_calls)
        agent = create_agent(
            model.chat,
            tools,
            system_prompt=specialist.prompt,
            middleware=middleware,
            context_schema=Asker,
            name=specialist.id,
        )
        opening = Opening(specialist.id, calls, model.chat, specialist.prompt, described, parameters)
        return Member(specialist.id, agent, opening, bool(tools) and model.name != OFFLINE)


class _Bound(AgentMiddleware[Any, Any, Any]):
    """Hands the specialist's parameters on with each call, and its tools as they were described once."""

    def __init__(self, parameters: dict[str, Any], described: list[dict[str, Any]]) -> None:
        super().__init__()
        self._parameters = parameters
        self._described: list[BaseTool | dict[str, Any]] = [*described]

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> ModelResponse[Any]:
        settings = {**request.model_settings, **self._parameters}
        response: ModelResponse[Any] = await handler(request.override(model_settings=settings, tools=self._described))
        return response


async def _without_thread(
    default: Callable[..., Any], context: Context, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    return context.run(function, *args, **kwargs)


def load_tools(team: Team) -> Tools:
    """The functions that the team names, or the end of the process with one line for each that is not there."""
    tools: Tools = {}
    faults = []
    for specialist in team.specialists:
        tools[specialist.id] = []
        for position, path in enumerate(specialist.tools):
            try:
                tools[specialist.id].append(_load(path))
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                faults.append(f"specialist {specialist.id}: tools.{position}: {path}: {error}")
    if faults:
        raise SystemExit("\n".join(faults))
    return tools


@functools.cache
def _load(path: str) -> BaseTool:
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if isinstance(found, BaseTool):
        return found
    if not callable(found):
        raise TypeError("is no function")
    made: BaseTool = tool(found)
    return made
