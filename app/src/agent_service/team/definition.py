"""The team as configuration: team.yml, read and checked once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agent_service.core.settings import ModelTier
from agent_service.team.keywords import Keyword, listed, parse

GENERAL = "general"
SHIPPED = Path(__file__).with_name("team.yml")

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Filled = Annotated[str, Field(min_length=1)]


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return listed(value)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise ValueError("must be words between commas, or a list of them")


def _keywords(value: Any) -> tuple[Keyword, ...]:
    return tuple(map(parse, _listed(value)))


# By language. As one text they are read many times faster than as a list: YAML makes much of each of its parts.
Words = dict[str, Annotated[list[str], BeforeValidator(_listed)]]
Keywords = dict[str, Annotated[tuple[Keyword, ...], BeforeValidator(_keywords)]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(_Part):
    """What is handed on with each call of the model; what is not set is the model's own default."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)


class Intent(_Part):
    description: Filled
    keywords: Keywords = {}


class Specialist(_Part):
    id: Identifier
    name: Filled
    description: Filled
    prompt: Filled
    tier: ModelTier = "standard"
    parameters: Parameters = Parameters()
    # Of the specialist as a whole: they tell who is meant, and not for what.
    keywords: Keywords = {}
    intents: dict[Identifier, Intent] = {}
    tools: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]] = []
    mcp_servers: list[str] = []


class StdioServer(_Part):
    """A program that the service starts; `${NAME}` in a value is read from a credential or the environment."""

    transport: Literal["stdio"]
    command: Filled
    args: list[str] = []
    env: dict[str, str] = {}


class HttpServer(_Part):
    transport: Literal["streamable_http"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    headers: dict[str, str] = {}


McpServer = Annotated[StdioServer | HttpServer, Field(discriminator="transport")]


class Team(_Part):
    specialists: list[Specialist]
    mcp_servers: dict[Identifier, McpServer] = {}
    # Small words that say nothing, also not inside a keyword of several words.
    ignored_words: Words = {}
    # Common words that are never taken for a misspelt keyword.
    common_words: Words = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        ids = [specialist.id for specialist in self.specialists]
        intents = [intent for specialist in self.specialists for intent in specialist.intents]
        for what, names in (("specialist", ids), ("intent", intents)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} {twice[0]} is there twice")
        if GENERAL not in ids:
            raise ValueError(f"specialist {GENERAL} is missing: it answers what belongs to nobody")
        for specialist in self.specialists:
            for server in specialist.mcp_servers:
                if server not in self.mcp_servers:
                    raise ValueError(f"specialist {specialist.id}: mcp_servers: {server} is not declared")
        return self

    def without_words(self) -> "Team":
        """The same, less what nobody but the router reads, and which takes megabytes."""
        bare = [
            specialist.model_copy(
                update={
                    "keywords": {},
                    "intents": {
                        name: intent.model_copy(update={"keywords": {}}) for name, intent in specialist.intents.items()
                    },
                }
            )
            for specialist in self.specialists
        ]
        return self.model_copy(update={"specialists": bare, "ignored_words": {}, "common_words": {}})

    def find(self, id: str) -> Specialist | None:
        return next((specialist for specialist in self.specialists if specialist.id == id), None)


def load_team(path: Path = SHIPPED) -> Team:
    """Read the team, or end the process with one line for each fault."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return Team.model_validate(document)
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SystemExit(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise SystemExit("\n".join(f"{path}: {fault}" for fault in _faults(error, document))) from None


def _faults(error: ValidationError, document: Any) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        place = [str(part) for part in fault["loc"]]
        if len(place) > 1 and place[0] == "specialists":
            place = [f"specialist {_name(document, int(place[1]))}", *place[2:]]
        reason = "is missing" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
        yield ": ".join(part for part in (place[0] if place else "", ".".join(place[1:]), reason) if part)


def _name(document: Any, position: int) -> str:
    """A specialist's id where it has one, else its place in the file."""
    declared = document["specialists"][position]
    return str(declared["id"]) if isinstance(declared, dict) and declared.get("id") else f"number {position + 1}"
