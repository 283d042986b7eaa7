"""Errors to Sentry, where its address is set: types, places and ids, never texts or variables."""

import atexit
import sys
from typing import Any

from structlog.typing import EventDict

from agent_service.core.logs import Report
from agent_service.core.settings import Settings

CLOSE_SECONDS = 2

# Fields of a line that lead from an error to its request.
_TAGS = ("request_id", "session_id", "trace_id", "job_id", "task", "problem", "code", "routine")


def create_report(settings: Settings) -> Report | None:
    """What sends an error's line to Sentry; None where it is not set, or its package is not there."""
    dsn = settings.sentry_dsn.get_secret_value()
    if not dsn:
        return None
    try:
        from sentry_sdk import Client
        from sentry_sdk.utils import event_from_exception
    except ImportError:
        print("AGENT_SENTRY_DSN is set and nothing is sent: install agent-service[sentry]", file=sys.stderr)
        return None
    client = Client(
        dsn=dsn,
        release=settings.release,
        environment=settings.name,
        # None of what it does by itself: it would patch the model's libraries and collect their texts.
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        include_source_context=False,
        send_default_pii=False,
        max_breadcrumbs=0,
        server_name=None,
    )
    atexit.register(client.close, timeout=CLOSE_SECONDS)

    def report(line: EventDict, error: BaseException | None) -> None:
        event: dict[str, Any] = {"level": line["level"], "logger": line.get("logger", "")}
        if error is not None:
            event |= event_from_exception(error, client.options)[0]
            for one in event["exception"]["values"]:
                # It quotes rows, prompts and keys.
                one["value"] = ""
        # Of the service's own lines the event is a name; libraries write what they like.
        own = event["logger"].startswith("agent_service")
        event["message"] = line["event"] if own else "error in a library"
        event["tags"] = {
            "slot": settings.slot,
            **{name: str(line[name]) for name in _TAGS if line.get(name) is not None},
        }
        client.capture_event(event)  # type: ignore[arg-type]

    return report
