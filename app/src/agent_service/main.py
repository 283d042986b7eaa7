"""What uvicorn runs: `agent_service.main:app`."""

from agent_service.application import create_app
from agent_service.core.langsmith import prepare_langsmith
from agent_service.core.logs import configure_logging
from agent_service.core.sentry import create_report
from agent_service.core.settings import load_settings

_settings = load_settings()
configure_logging(_settings.log_level, create_report(_settings), release=_settings.release, slot=_settings.slot)
prepare_langsmith()

app = create_app(_settings)
