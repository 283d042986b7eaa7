"""What uvicorn runs: `agent_service.main:app`."""

from agent_service.application import create_app
from agent_service.core.logs import configure_logging
from agent_service.core.settings import load_settings

_settings = load_settings()
configure_logging(_settings.log_level, release=_settings.release, slot=_settings.slot)

app = create_app(_settings)
