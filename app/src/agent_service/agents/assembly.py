"""The conversation as the settings want it: one way to put it together, for the API and for the worker."""

from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel

from agent_service.agents.calls import ModelCalls
from agent_service.agents.conversation import Conversation
from agent_service.agents.general import create_general
from agent_service.agents.models import create_model
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.database import Pool
from agent_service.memory.history import History
from agent_service.memory.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Assembly:
    model_name: str
    model: BaseChatModel
    calls: ModelCalls
    history: History
    conversation: Conversation


def assemble(settings: Settings, metrics: Metrics, pool: Pool, sessions: Sessions) -> Assembly:
    model_name, model = create_model(settings)
    calls = ModelCalls(model_name, metrics)
    release = settings.release if settings.queue else None
    history = History(pool, settings.history_messages, settings.history_characters, release)
    agent = create_general(model, calls)
    conversation = Conversation(agent, model_name, history, sessions, settings.turn_seconds)
    return Assembly(model_name, model, calls, history, conversation)
