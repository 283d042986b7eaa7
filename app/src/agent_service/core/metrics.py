"""What Prometheus reads at /metrics, for this process alone."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120, 300)
_MODEL_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    def __init__(self, name: str, release: str, slot: str) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        Info("agent_service", "What runs here.", registry=self.registry).info(
            {"name": name, "release": release, "slot": slot}
        )
        self.requests = Counter("agent_requests", "Requests answered.", ("route", "status"), registry=self.registry)
        self.request_seconds = Histogram(
            "agent_request_seconds",
            "Time from a request to the end of its answer.",
            ("route",),
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self.first_token_seconds = Histogram(
            "agent_first_token_seconds",
            "Time from a streamed request to the first piece of its answer.",
            buckets=_MODEL_SECONDS,
            registry=self.registry,
        )
        self.active = Gauge("agent_active_requests", "Requests being answered.", registry=self.registry)
        self.tokens = Counter("agent_tokens", "Tokens by direction.", ("model", "direction"), registry=self.registry)
        self.model_seconds = Histogram(
            "agent_model_seconds",
            "Time of a model call, with its retries.",
            ("model",),
            buckets=_MODEL_SECONDS,
            registry=self.registry,
        )
        self.model_errors = Counter(
            "agent_model_errors", "Model calls that failed for good.", ("model", "code"), registry=self.registry
        )
        self.redis_errors = Counter(
            "agent_redis_errors", "Redis operations that failed; the service went on.", registry=self.registry
        )
        self.routed = Counter(
            "agent_routed",
            "Messages by who answers them and by whom that was decided: rules, conversation, model or fallback.",
            ("agent", "by"),
            registry=self.registry,
        )
        self.tool_calls = Counter(
            "agent_tool_calls", "Calls of tools by how they ended.", ("tool", "outcome"), registry=self.registry
        )
