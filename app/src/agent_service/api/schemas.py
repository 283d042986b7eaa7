"""What clients send and get."""

import re
import uuid
from decimal import Decimal
from typing import Annotated

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from agent_service.agents.conversation import Answer
from agent_service.core.text import fault_in_name, fault_in_text, unix_lines

_SESSION = re.compile(r"[\x21-\x7e]{1,128}")


def _text(value: str) -> str:
    value = unix_lines(value)
    if fault := fault_in_text(value):
        raise ValueError(fault)
    if not value.strip():
        raise ValueError("is empty")
    return value


def _name(value: str) -> str:
    if fault := fault_in_name(value):
        raise ValueError(fault)
    return value


def _session(value: str) -> str:
    if not _SESSION.fullmatch(value):
        raise ValueError("must be 1 to 128 visible ASCII characters")
    return value


Text = Annotated[str, AfterValidator(_text)]
# Visible ASCII: the value also travels in a header.
SessionId = Annotated[str, AfterValidator(_session)]
SessionHeader = Annotated[SessionId | None, Header(alias="X-Session-Id")]
Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str)]
UserId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_name)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    session_id: SessionId | None = None
    user_id: UserId | None = None


class ChatRequest(_Request):
    message: Text


class AgentRequest(_Request):
    """The older name of the same thing."""

    input: Text


class UsageBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    # A string, since a JSON number would lose digits on its way; null where a model has no price.
    cost_usd: Money | None
    # Whether the answer was kept from before, and cost nothing.
    from_cache: bool


class ChatResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    response: str
    session_id: str
    agent: str
    # Null as long as there is nothing to choose between.
    intent: str | None = None
    confidence: float | None = None
    model: str
    usage: UsageBody | None
    # Whether no model answered and this is the text for that case.
    degraded: bool = False

    @classmethod
    def of(cls, answer: Answer) -> "ChatResponse":
        return cls.model_validate(answer)


def new_session_id() -> str:
    return str(uuid.uuid4())
