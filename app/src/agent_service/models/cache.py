"""Exact answers kept for a while in Redis: the same question, in the same context, of the same reader."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, messages_to_dict
from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.redis import Rest
from agent_service.models.turn import TurnCalls


def reader(turn: TurnCalls, messages: Sequence[BaseMessage]) -> str:
    """Who may get this answer again: whoever has the same key, only for what neither a person nor a tool has shaped."""
    if turn.user_id is not None:
        return f"{turn.caller} user:{turn.user_id}"
    if turn.opening and not any(isinstance(message, ToolMessage) for message in messages):
        return f"{turn.caller} all"
    return f"{turn.caller} session:{turn.session_id}"


def fingerprint(
    model: str,
    for_whom: str,
    parameters: dict[str, Any],
    tools: Sequence[dict[str, Any]],
    messages: Sequence[BaseMessage],
) -> str:
    """One name for all that shapes an answer."""
    shaped = {
        "model": model,
        "reader": for_whom,
        "parameters": parameters,
        "tools": tools,
        # Ids are made anew for each turn and shape nothing.
        "messages": [
            {**message["data"], "id": None, "type": message["type"]} for message in messages_to_dict(messages)
        ],
    }
    return hashlib.sha256(json.dumps(shaped, sort_keys=True, default=str).encode()).hexdigest()


class ResponseCache:
    def __init__(self, settings: Settings, metrics: Metrics, redis: Redis, rest: Rest) -> None:
        self._seconds = settings.response_cache_seconds
        self._prefix = f"{settings.name}:answer:"
        self._metrics = metrics
        self._redis = redis
        self._rest = rest

    @property
    def enabled(self) -> bool:
        return self._seconds > 0

    async def find(self, key: str) -> str | None:
        if self._rest:
            return None
        try:
            found = await self._redis.get(self._prefix + key)
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            return None
        self._metrics.response_cache.labels("miss" if found is None else "hit").inc()
        return None if found is None else str(found)

    async def keep(self, key: str, message: AIMessage) -> None:
        """Keep an answer; a wish to use a tool is none."""
        if self._rest or message.tool_calls or message.invalid_tool_calls:
            return
        try:
            # Half of a surrogate pair in an answer has no bytes to be kept as.
            await self._redis.set(self._prefix + key, message.text.encode("utf-8", "replace"), ex=self._seconds)
        except (RedisError, OSError) as error:
            self._rest.begin(error)
