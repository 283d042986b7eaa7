"""One cheap model call that names a member of the team. Whatever goes wrong with it, the rules' answer stands."""

import asyncio
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, Field, ValidationError

from agent_service.core.logs import get_logger
from agent_service.models.access import Models
from agent_service.models.failures import model_problem
from agent_service.team.definition import Team
from agent_service.team.router import Route

# As whom it asks, in metrics and costs.
NAME = "router"
# What a message is about stands at its beginning or its end.
CHARACTERS = 2000

logger = get_logger(__name__)


class _Choice(BaseModel):
    agent: str
    intent: str | None = None
    certainty: float = Field(ge=0, le=1)


class Choices:
    """What a model is asked, and what its answer means."""

    def __init__(self, team: Team) -> None:
        self._intents = {specialist.id: set(specialist.intents) for specialist in team.specialists}
        self._prompt = SystemMessage(_prompt(team))
        self.schema = _schema(team)

    def question(self, message: str, last: str | None) -> list[BaseMessage]:
        return [self._prompt, HumanMessage(_shown(message, last))]

    def read(self, parsed: Any) -> Route | None:
        """The choice, or None where it names what there is not."""
        try:
            choice = _Choice.model_validate(parsed)
        except ValidationError:
            return None
        intents = self._intents.get(choice.agent)
        intent = choice.intent or None
        if intents is None or (intent is not None and intent not in intents):
            return None
        return Route(choice.agent, intent, round(choice.certainty, 3))


class Classifier:
    def __init__(self, team: Team, models: Models, seconds: float) -> None:
        self._choices = Choices(team)
        self._models = models
        self._seconds = seconds
        self._choosing: dict[int, Runnable[Any, Any]] = {}

    async def classify(self, message: str, last: str | None) -> Route | None:
        """The model's choice, or None where it fails, is slow or names what there is not."""
        question = self._choices.question(message, last)

        async def attempt(model: BaseChatModel) -> Any:
            return await self._choice(model).ainvoke(question)

        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._models.ask(NAME, await self._models.chain("economy"), attempt)
        except Exception as error:
            logger.warning("classifier_failed", code=model_problem(error).code)
            return None
        route = self._choices.read(answer["parsed"])
        if route is None:
            logger.warning("classifier_answer_refused")
        return route

    def _choice(self, model: BaseChatModel) -> Runnable[Any, Any]:
        """The model, bound to the schema once: it is there for as long as the process."""
        if id(model) not in self._choosing:
            self._choosing[id(model)] = model.with_structured_output(self._choices.schema, include_raw=True)
        return self._choosing[id(model)]


def _prompt(team: Team) -> str:
    lines = ["Decide which member of a team answers a message. Do not answer it. The team:"]
    for specialist in team.specialists:
        lines.append(f"- {specialist.id}: {specialist.description}")
        lines += [f"  - intent {name}: {intent.description}" for name, intent in specialist.intents.items()]
    return "\n".join(lines)


def _schema(team: Team) -> dict[str, Any]:
    agents = [specialist.id for specialist in team.specialists]
    intents = [intent for specialist in team.specialists for intent in specialist.intents]
    return {
        "title": "route",
        "description": "Name who answers the message.",
        "type": "object",
        "properties": {
            "agent": {"type": "string", "enum": agents},
            "intent": {"type": "string", "enum": ["", *intents], "description": "One of the agent's, or empty"},
            "certainty": {"type": "number", "description": "From 0 to 1: how sure the choice is"},
        },
        "required": ["agent", "intent", "certainty"],
    }


def _shown(message: str, last: str | None) -> str:
    if len(message) > CHARACTERS:
        message = f"{message[: CHARACTERS // 2]} … {message[-CHARACTERS // 2 :]}"
    before = f"The message before was answered by {last}.\n" if last else ""
    return f"{before}The message:\n{message}"
