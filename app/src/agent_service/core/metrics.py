"""What Prometheus reads at /metrics, for this process alone."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# A tenth apart where answers are, so that what a share of them stays under is told to a tenth; streams last longer.
_REQUEST_SECONDS = (
    *(0.005, 0.007),
    *(round(0.01 * 1.1**step, 4) for step in range(65)),
    *(5, 6, 8, 10, 15, 20, 30, 60, 120, 300),
)
_LOOKUP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_RATIOS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1)
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
        # Model access (docs/models.md).
        self.cost_usd = Counter(
            "agent_cost_usd", "US dollars paid for model calls.", ("model", "agent"), registry=self.registry
        )
        self.unpriced_calls = Counter(
            "agent_unpriced_calls", "Model calls whose model has no price.", ("model",), registry=self.registry
        )
        self.model_retries = Counter("agent_model_retries", "Repeated model calls.", ("model",), registry=self.registry)
        self.model_fallbacks = Counter(
            "agent_model_fallbacks", "Answers of a model in another's place.", ("model",), registry=self.registry
        )
        self.degraded_answers = Counter(
            "agent_degraded_answers", "Answers given without any model.", registry=self.registry
        )
        self.breaker_state = Gauge(
            "agent_breaker_state", "0 closed, 1 half-open, 2 open.", ("model",), registry=self.registry
        )
        self.response_cache = Counter(
            "agent_response_cache", "Looks into the response cache.", ("result",), registry=self.registry
        )
        self.budget_usd = Gauge("agent_budget_usd", "The daily budget; 0 where there is none.", registry=self.registry)
        self.budget_spent_usd = Gauge(
            "agent_budget_spent_usd", "What this UTC day has cost, where there is a budget.", registry=self.registry
        )
        self.redis_errors = Counter(
            "agent_redis_errors", "Redis operations that failed; the service went on.", registry=self.registry
        )
        self.limited = Counter(
            "agent_limited", "Requests refused for being too many.", ("limit",), registry=self.registry
        )
        self.limits_local = Counter(
            "agent_limits_local",
            "Requests counted in this process alone, since Redis did not answer.",
            registry=self.registry,
        )
        self.unauthorized = Counter(
            "agent_unauthorized", "Requests without a credential that holds.", ("reason",), registry=self.registry
        )
        self.audit_lost = Counter(
            "agent_audit_lost", "Audit rows that the table did not get; the log has them.", registry=self.registry
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
        # Work in the background: depth and age come from the worker process, for its own release.
        self.queue_jobs = Gauge("agent_queue_jobs", "Jobs by state.", ("task", "state"), registry=self.registry)
        self.queue_oldest_seconds = Gauge(
            "agent_queue_oldest_seconds", "Age of the oldest job that waits.", ("task",), registry=self.registry
        )
        self.jobs = Counter("agent_jobs", "Jobs that ended, by outcome.", ("task", "outcome"), registry=self.registry)
        self.job_seconds = Histogram(
            "agent_job_seconds", "Time of a job's run.", ("task",), buckets=_MODEL_SECONDS, registry=self.registry
        )
        self.jobs_rescued = Counter(
            "agent_jobs_rescued", "Jobs taken back from workers that died.", registry=self.registry
        )
        self.outbox = Gauge("agent_outbox_entries", "Effects not sent yet.", ("kind", "state"), registry=self.registry)
        self.outbox_sends = Counter(
            "agent_outbox_sends", "Attempts to send an effect.", ("kind", "outcome"), registry=self.registry
        )
        # Telemetry (docs/telemetry.md).
        self.model_first_token_seconds = Histogram(
            "agent_model_first_token_seconds",
            "Time from a streamed model call to the first piece of its answer.",
            ("model",),
            buckets=_MODEL_SECONDS,
            registry=self.registry,
        )
        self.context_window_ratio = Histogram(
            "agent_context_window_ratio",
            "Share of the model's context window that a call's input filled, where the window is known.",
            ("model",),
            buckets=_RATIOS,
            registry=self.registry,
        )
        self.retrieval_seconds = Histogram(
            "agent_retrieval_seconds",
            "Time to look up what a turn is answered from.",
            ("source",),
            buckets=_LOOKUP_SECONDS,
            registry=self.registry,
        )
        self.feedback = Counter(
            "agent_feedback", "Ratings of answers; a changed one counts again.", ("agent", "rating"),
            registry=self.registry,
        )  # fmt: skip
        self.spans_lost = Counter("agent_spans_lost", "Spans that the collector did not take.", registry=self.registry)
        # Memory (docs/memory.md).
        self.summaries = Counter(
            "agent_summaries", "Summaries of conversations by how they ended.", ("outcome",), registry=self.registry
        )
        self.recalled = Counter("agent_recalled", "Memories given to the model.", registry=self.registry)
