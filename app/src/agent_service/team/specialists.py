"""The team at work: each specialist with its prompt, its tools and its way to ask the model."""

import functools
import importlib
from dataclasses import dataclass

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent_service.agents.calls import ModelCalls
from agent_service.agents.offline import OFFLINE
from agent_service.agents.pieces import Pieces
from agent_service.models.access import Models
from agent_service.team.definition import GENERAL, Specialist, Team
from agent_service.team.mcp import McpServers
from agent_service.tools.calling import Asker, Limits, ToolCalls

Tools = dict[str, list[BaseTool]]


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    calls: ModelCalls
    tools: ToolCalls
    calls_tools: bool

    async def answer(self, messages: list[AnyMessage], asker: Asker, pieces: Pieces | None = None) -> AIMessage:
        """Ask the model and carry out what it wants done, until it answers; PIECES get it as it comes."""
        told = [*messages]
        rounds = 0
        while (message := await self.calls.ask(told, pieces)).tool_calls:
            rounds += 1
            told += [message, *await self.tools.carry_out(message.tool_calls, asker, rounds)]
        return message


class Specialists:
    def __init__(self, team: Team, tools: Tools, servers: McpServers, models: Models, limits: Limits) -> None:
        self._team = team
        self._tools = tools
        self._servers = servers
        self._models = models
        self._limits = limits
        self._members: dict[str, Member] = {}
        self._generation = servers.generation
        self._assemble()

    def find(self, id: str) -> Member:
        # Servers come and go seldom, and a message must not meet the tools of one that is gone.
        if self._servers.generation != self._generation:
            self._generation = self._servers.generation
            self._assemble(of_servers_only=True)
        return self._members.get(id) or self._members[GENERAL]

    def _assemble(self, of_servers_only: bool = False) -> None:
        for specialist in self._team.specialists:
            if specialist.mcp_servers or not of_servers_only:
                self._members[specialist.id] = self._member(specialist)

    def _member(self, specialist: Specialist) -> Member:
        tools = [*self._tools[specialist.id], *self._servers.tools(specialist.mcp_servers)]
        calls = ModelCalls(
            self._models,
            specialist.id,
            specialist.tier,
            specialist.prompt,
            [convert_to_openai_tool(one) for one in tools],
            specialist.parameters.model_dump(exclude_none=True),
        )
        thinks = self._models.first(specialist.tier).name != OFFLINE
        return Member(specialist.id, calls, ToolCalls(tools, self._limits), bool(tools) and thinks)


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
