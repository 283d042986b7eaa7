"""What uvicorn runs: `agent_service.main:app`."""

import gc

# Until the application has started: to look again and again at what is being imported takes a quarter of the start.
gc.disable()

from agent_service.application import create_app  # noqa: E402
from agent_service.core.langsmith import prepare_langsmith  # noqa: E402
from agent_service.core.logs import configure_logging  # noqa: E402
from agent_service.core.sentry import create_report  # noqa: E402
from agent_service.core.settings import load_settings  # noqa: E402

_settings = load_settings()
configure_logging(_settings.log_level, create_report(_settings), release=_settings.release, slot=_settings.slot)
prepare_langsmith()

app = create_app(_settings)
