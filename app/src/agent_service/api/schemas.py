"""What clients send and get."""

import re
import uuid
from typing import Annotated

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


class ChatResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    response: str
    session_id: str
    agent: str
    # Null where the message is about nothing that the team is for.
    intent: str | None
    # Null where nothing was decided.
    confidence: float | None
    model: str
    usage: UsageBody | None

    @classmethod
    def of(cls, answer: Answer) -> "ChatResponse":
        return cls.model_validate(answer)


def new_session_id() -> str:
    return str(uuid.uuid4())
