"""Who answers a message: the rules where they are sure, else the conversation so far or one cheap model call."""

from dataclasses import dataclass

from langchain_core.messages.ai import UsageMetadata

from agent_service.core.metrics import Metrics
from agent_service.team.classifier import Classifier
from agent_service.team.definition import GENERAL
from agent_service.team.router import Route, Router

# Bytes, since a Chinese or Korean character says as much as three letters. What is longer says itself what it is about.
FOLLOW_UP = 80


@dataclass(frozen=True, slots=True)
class Decision:
    route: Route
    usage: UsageMetadata | None = None
    """What deciding cost, where a model was asked."""


class Routing:
    def __init__(self, router: Router, classifier: Classifier | None, metrics: Metrics) -> None:
        self._router = router
        self._classifier = classifier
        self._metrics = metrics

    async def decide(self, message: str, last: str | None) -> Decision:
        """LAST is who answered the message before."""
        verdict = self._router.route(message, last)
        if verdict.sure:
            return self._decided("rules", Decision(verdict.route))
        if not verdict.known and last not in (None, GENERAL) and len(message.encode()) <= FOLLOW_UP:
            return self._decided("conversation", Decision(verdict.route))
        if self._classifier:
            route, usage = await self._classifier.classify(message, last)
            if route:
                return self._decided("model", Decision(route, usage))
            return self._decided("fallback", Decision(verdict.route, usage))
        return self._decided("fallback", Decision(verdict.route))

    def _decided(self, by: str, decision: Decision) -> Decision:
        self._metrics.routed.labels(decision.route.agent, by).inc()
        return decision
