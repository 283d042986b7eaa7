"""What surrounds every call of a tool: who asks, how long it may take, and failures that the model is told of."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain.tools.tool_node import ToolCallRequest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

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
    """For whom a tool works; tools get it as `runtime.context`."""

    user_id: str | None
    session_id: str
    pool: Pool
    # The model's answer to the question itself, where it was asked before the graph: see team/opening.py.
    opening: AIMessage | None = None

    def user(self) -> str:
        """Whose rows a tool may read and write."""
        if self.user_id is None:
            raise ToolError("It is not known who asks, so nothing can be stored or looked up: user_id is needed.")
        return self.user_id


class ToolCalls(AgentMiddleware[Any, Any, Any]):
    """A failing, slow or endlessly repeated tool is told to the model, and never fails the turn."""

    def __init__(self, seconds: float, rounds: int, metrics: Metrics) -> None:
        super().__init__()
        self._seconds = seconds
        self._rounds = rounds
        self._metrics = metrics

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        name = request.tool_call["name"] if request.tool else "unknown"
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": request.tool_call["id"] or "",
        }
        with span(f"execute_tool {name}", attributes=attributes) as opened:
            return await self._call(request, handler, name, opened)

    async def _call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
        name: str,
        opened: Span,
    ) -> ToolMessage | Command[Any]:
        rounds = _rounds(request.state["messages"])
        if rounds > self._rounds + 1:
            raise Problem(502, "model-tool-loop", "The model went on asking for tools.", source="model")
        try:
            if rounds > self._rounds:
                raise ToolError("No more calls in this turn: answer with what is known.")
            async with asyncio.timeout(self._seconds):
                result = await handler(request)
        except GraphBubbleUp:
            raise
        except Exception as error:
            self._metrics.tool_calls.labels(name, "failed").inc()
            failed(opened, type(error).__qualname__)
            return ToolMessage(
                self._reason(name, error), tool_call_id=request.tool_call["id"], name=name, status="error"
            )
        refused = isinstance(result, ToolMessage) and result.status == "error"
        self._metrics.tool_calls.labels(name, "failed" if refused else "done").inc()
        if refused:
            failed(opened, "refused")
        return result

    def _reason(self, name: str, error: Exception) -> str:
        match error:
            case ToolError():
                return str(error)
            case TimeoutError():
                logger.warning("tool_slow", tool=name)
                return "The tool did not answer in time."
            case Problem():
                logger.warning("tool_failed", tool=name, code=error.code)
                return error.detail
        # Its text may quote rows or secrets.
        logger.warning("tool_failed", tool=name, exc_info=error)
        return "The tool failed."


def _rounds(messages: list[Any]) -> int:
    """How often the model has asked for tools since the user's last message."""
    rounds = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        rounds += isinstance(message, AIMessage) and bool(message.tool_calls)
    return rounds
