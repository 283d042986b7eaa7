"""The conversation as the settings want it: one way to put it together, for the API and for the worker."""

from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from agent_service.agents.conversation import Conversation
from agent_service.agents.offline import OFFLINE
from agent_service.agents.summaries import Summaries
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.database import Pool
from agent_service.memory.embeddings import Embedder
from agent_service.memory.history import History
from agent_service.memory.long_term import LongTerm
from agent_service.memory.redis import Rest
from agent_service.memory.sessions import Sessions
from agent_service.models.access import Models
from agent_service.team.classifier import Classifier
from agent_service.team.definition import SHIPPED, Team, load_team
from agent_service.team.mcp import McpServers
from agent_service.team.router import Router
from agent_service.team.routing import Routing
from agent_service.team.specialists import Specialists, Tools, load_tools
from agent_service.tools.calling import Limits


@dataclass(frozen=True, slots=True)
class Declared:
    """The team as it is configured. Read before anything is started: its faults end the process in a line each."""

    team: Team
    tools: Tools
    router: Router


@dataclass(frozen=True, slots=True)
class Assembly:
    models: Models
    history: History
    sessions: Sessions
    long_term: LongTerm
    summaries: Summaries
    servers: McpServers
    conversation: Conversation

    async def close(self) -> None:
        await self.summaries.close()
        await self.servers.close()
        await self.models.close()


def read_team(settings: Settings) -> Declared:
    team = load_team(Path(settings.team_file or SHIPPED))
    # Before the libraries of models: what putting the keywords together took and let go of, they take up again.
    return Declared(team.without_words(), load_tools(team), Router(team))


async def assemble(
    settings: Settings, declared: Declared, metrics: Metrics, pool: Pool, redis: Redis, rest: Rest
) -> Assembly:
    team = declared.team
    models = Models(settings, metrics, pool, redis, rest)
    release = settings.release if settings.queue else None
    history = History(pool, metrics, settings.history_messages, settings.history_characters, release)
    sessions = Sessions(settings, redis, rest)
    servers = McpServers(team.mcp_servers, settings.mcp_seconds)
    await servers.open()
    limits = Limits(settings.tool_seconds, settings.tool_rounds, metrics)
    specialists = Specialists(team, declared.tools, servers, models, limits)
    classifier = None
    if settings.classifier_seconds and models.first("economy").name != OFFLINE:
        classifier = Classifier(team, models, settings.classifier_seconds)
    routing = Routing(declared.router, classifier, metrics)
    long_term = LongTerm(settings, pool, Embedder(settings, redis, rest), metrics)
    summaries = Summaries(settings, pool, models, long_term, metrics)
    conversation = Conversation(
        specialists, routing, models, history, sessions, long_term, summaries, pool, settings.turn_seconds
    )
    return Assembly(models, history, sessions, long_term, summaries, servers, conversation)
