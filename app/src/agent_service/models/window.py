"""How much a model can be given at once."""

from collections.abc import Iterable

from agent_service.agents.offline import OFFLINE
from agent_service.core.settings import Settings
from agent_service.models.providers import Model

# Of a model that nothing is known of.
UNKNOWN_TOKENS = 128_000


def window_tokens(settings: Settings, models: Iterable[Model]) -> int:
    """The window of the smallest model that may be asked, since any of them may have to answer."""
    if settings.context_tokens:
        return settings.context_tokens
    known = [(model.chat.profile or {}).get("max_input_tokens") for model in models if model.name != OFFLINE]
    return min((tokens or UNKNOWN_TOKENS for tokens in known), default=UNKNOWN_TOKENS)
