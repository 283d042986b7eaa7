"""How the tools that a model asks for are called: for whom, for how long, and what the model is told of failures."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, get_type_hints

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg
from pydantic import InstanceOf, ValidationError

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.tracing import Span, failed, span
from agent_service.memory.database import Pool

logger = get_logger(__name__)


class ToolError(Exception):
    """Something that the model can mend or has to tell: its text is what the model reads."""


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a tool works."""

    user_id: str | None
    session_id: str
    pool: Pool

    def user(self) -> str:
        """Whose rows a tool may read and write."""
        if self.user_id is None:
            raise ToolError("It is not known who asks, so nothing can be stored or looked up: user_id is needed.")
        return self.user_id


# A tool's parameter of this type is filled in for it; the model is told nothing of it.
Asking = Annotated[InstanceOf[Asker], InjectedToolArg()]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a turn may do with tools."""

    seconds: float
    rounds: int
    metrics: Metrics


class ToolCalls:
    """A failing, slow or endlessly repeated tool is told to the model, and never fails the turn."""

    def __init__(self, tools: Sequence[BaseTool], limits: Limits) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._asking = {tool.name: _asking(tool) for tool in tools}
        self._limits = limits

    async def carry_out(self, calls: list[ToolCall], asker: Asker, rounds: int) -> list[ToolMessage]:
        """All CALLS of one of the model's messages at once; ROUNDS counts these messages."""
        if rounds > self._limits.rounds + 1:
            raise Problem(502, "model-tool-loop", "The model went on asking for tools.", source="model")
        return await asyncio.gather(*(self._traced(call, asker, rounds) for call in calls))

    async def _traced(self, call: ToolCall, asker: Asker, rounds: int) -> ToolMessage:
        # What a model makes up has no place among the names of metrics.
        name = call["name"] if call["name"] in self._tools else "unknown"
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call["id"] or "",
        }
        with span(f"execute_tool {name}", attributes=attributes) as opened:
            message = await self._told(call, asker, rounds, opened)
        self._limits.metrics.tool_calls.labels(name, "failed" if message.status == "error" else "done").inc()
        return message

    async def _told(self, call: ToolCall, asker: Asker, rounds: int, opened: Span) -> ToolMessage:
        name = call["name"]
        try:
            if rounds > self._limits.rounds:
                raise ToolError("No more calls in this turn: answer with what is known.")
            if not (tool := self._tools.get(name)):
                raise ToolError(f"{name} is not a valid tool: there are {', '.join(self._tools) or 'none'}.")
            arguments = {**call["args"], **dict.fromkeys(self._asking[name], asker)}
            async with asyncio.timeout(self._limits.seconds):
                result = await tool.ainvoke(ToolCall(type="tool_call", id=call["id"], name=name, args=arguments))
        except Exception as error:
            failed(opened, type(error).__qualname__)
            return ToolMessage(_reason(name, error), tool_call_id=call["id"] or "", name=name, status="error")
        assert isinstance(result, ToolMessage)
        if result.status == "error":
            failed(opened, "refused")
        return result


def _asking(tool: BaseTool) -> list[str]:
    """The parameters that take the asker."""
    function = getattr(tool, "coroutine", None) or getattr(tool, "func", None)
    # Those of MCP servers have a schema of their own, and nobody of this process among their arguments.
    if not function or isinstance(tool.args_schema, dict):
        return []
    return [name for name, hint in get_type_hints(function, include_extras=True).items() if hint == Asking]


def _reason(name: str, error: Exception) -> str:
    match error:
        case ToolError():
            return str(error)
        case ValidationError():
            faults = error.errors(include_url=False, include_context=False)
            told = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
            return "The tool takes no such arguments. " + "; ".join(told)
        case TimeoutError():
            logger.warning("tool_slow", tool=name)
            return "The tool did not answer in time."
        case Problem():
            logger.warning("tool_failed", tool=name, code=error.code)
            return error.detail
    # Its text may quote rows or secrets.
    logger.warning("tool_failed", tool=name, exc_info=error)
    return "The tool failed."
