"""Who answers a message: the rules where they are sure, else the conversation so far or one cheap model call."""

from agent_service.core.metrics import Metrics
from agent_service.core.tracing import span
from agent_service.team.classifier import Classifier
from agent_service.team.definition import GENERAL
from agent_service.team.router import Route, Router

# Bytes, since a Chinese or Korean character says as much as three letters. What is longer says itself what it is about.
FOLLOW_UP = 80


class Routing:
    def __init__(self, router: Router, classifier: Classifier | None, metrics: Metrics) -> None:
        self._router = router
        self._classifier = classifier
        self._metrics = metrics

    async def decide(self, message: str, last: str | None) -> Route:
        """LAST is who answered the message before."""
        with span("route") as opened:
            by, route = await self._decide(message, last)
            opened.set_attributes({"agent.route.by": by, "gen_ai.agent.name": route.agent})
        self._metrics.routed.labels(route.agent, by).inc()
        return route

    async def _decide(self, message: str, last: str | None) -> tuple[str, Route]:
        verdict = self._router.route(message, last)
        if verdict.sure:
            return "rules", verdict.route
        if not verdict.known and last not in (None, GENERAL) and len(message.encode()) <= FOLLOW_UP:
            return "conversation", verdict.route
        if self._classifier and (route := await self._classifier.classify(message, last)):
            return "model", route
        return "fallback", verdict.route
