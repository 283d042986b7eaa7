"""The integrations there are, by name; one that the settings do not configure is None."""

from agent_service.core.settings import Settings
from agent_service.integrations.base import Integration
from agent_service.work.events import Consumer

Integrations = dict[str, Integration | None]


def create_integrations(settings: Settings) -> Integrations:
    integrations: Integrations = {"crm": None, "uaz": None}
    if settings.crm_url:
        from agent_service.integrations.crm import Crm

        integrations["crm"] = Crm(settings)
    if settings.uaz_url:
        from agent_service.integrations.uaz import Uaz

        integrations["uaz"] = Uaz(settings)
    return integrations


def create_consumers(settings: Settings) -> list[Consumer]:
    """Who is told of events: one line each."""
    consumers: list[Consumer] = []
    if settings.crm_url:
        from agent_service.integrations.crm import notes

        consumers.append(notes)
    return consumers
