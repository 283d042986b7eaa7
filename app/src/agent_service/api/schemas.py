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
# What the validators below say, as far as a pattern can say it: for the document alone.
_CONTROLS = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f"
_TEXT_PATTERN = rf"^[^{_CONTROLS}]*[^\s{_CONTROLS}][^{_CONTROLS}]*$"
_NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"
_SESSION_PATTERN = r"^[!-~]{1,128}$"


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


Text = Annotated[
    str,
    AfterValidator(_text),
    Field(
        description="Text without control characters but tab and line ends. How long it may be depends on the tier.",
        examples=["How is our cash flow this month?"],
        json_schema_extra={"minLength": 1, "pattern": _TEXT_PATTERN},
    ),
]
# Visible ASCII: the value also travels in a header.
SessionId = Annotated[
    str,
    AfterValidator(_session),
    Field(
        description="The conversation that the message belongs to; a new one is begun without.",
        examples=["2f1c9a52-0b0e-4a8e-9d55-5f1b6a2f7d11"],
        json_schema_extra={"pattern": _SESSION_PATTERN},
    ),
]
Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str)]
SessionHeader = Annotated[SessionId | None, Header(alias="X-Session-Id")]
UserId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="Who asks, told by the holder of an API key. A token speaks for its own user, whatever this says.",
        examples=["ana"],
        json_schema_extra={"pattern": _NAME_PATTERN},
    ),
    AfterValidator(_name),
]


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
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "response": "Your balance is expected to stay positive.",
                    "session_id": "2f1c9a52-0b0e-4a8e-9d55-5f1b6a2f7d11",
                    "agent": "general",
                    "intent": None,
                    "confidence": None,
                    "model": "deepseek-v4-flash",
                    "usage": {
                        "input_tokens": 31,
                        "output_tokens": 12,
                        "total_tokens": 43,
                        "cached_tokens": 0,
                        "cost_usd": "0.0000077",
                        "from_cache": False,
                    },
                    "degraded": False,
                }
            ]
        },
    )

    response: str
    session_id: str
    agent: str
    # Null where the message is about nothing that the team is for.
    intent: str | None
    # Null where nothing was decided.
    confidence: float | None
    model: str
    usage: UsageBody | None
    # Whether no model answered and this is the text for that case.
    degraded: bool = False

    @classmethod
    def of(cls, answer: Answer) -> "ChatResponse":
        return cls.model_validate(answer)


class ProblemBody(BaseModel):
    """An answer other than success (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:agent:problem:too-many-requests",
                    "title": "Too many requests",
                    "status": 429,
                    "detail": "Tier free allows 10 requests a day; the next day, by UTC, begins in 3600 s.",
                    "request_id": "0f8b1c6e5d3a4f7e9b2c1d0e3f4a5b6c",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None


def new_session_id() -> str:
    return str(uuid.uuid4())
