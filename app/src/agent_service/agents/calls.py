"""What surrounds every model call: time, tokens, and failures that are told apart from the service's own."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage

from agent_service.agents.models import check_answer, model_problem
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem

logger = get_logger(__name__)


class ModelCalls(AgentMiddleware[Any, Any, Any]):
    def __init__(self, model: str, metrics: Metrics) -> None:
        super().__init__()
        self._model = model
        self._metrics = metrics

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        started = time.perf_counter()
        try:
            response = await handler(request)
            for message in response.result:
                if isinstance(message, AIMessage):
                    # A call of a tool has no text, and may be cut off like any answer.
                    text = message.text or ("tool" if message.tool_calls else "")
                    check_answer(text, message.response_metadata)
        except Exception as error:
            problem = model_problem(error)
            self._metrics.model_errors.labels(self._model, problem.code).inc()
            logger.warning("model_failed", code=problem.code, exc_info=error)
            if isinstance(error, Problem):
                raise
            raise problem from error
        finally:
            self._metrics.model_seconds.labels(self._model).observe(time.perf_counter() - started)
        for message in response.result:
            if isinstance(message, AIMessage):
                count_tokens(self._metrics, self._model, message)
        return response


def count_tokens(metrics: Metrics, model: str, message: AIMessage) -> None:
    if usage := message.usage_metadata:
        metrics.tokens.labels(model, "input").inc(usage["input_tokens"])
        metrics.tokens.labels(model, "output").inc(usage["output_tokens"])
