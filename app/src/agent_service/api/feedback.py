"""What users say of answers."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent_service.api.access import CallerAccess
from agent_service.api.problems import documented
from agent_service.api.schemas import SessionId, Text, UserId
from agent_service.memory.feedback import Feedback, store_feedback

COMMENT_CHARACTERS = 4000

Scale = Literal["thumbs", "stars"]

router = APIRouter(tags=["feedback"], responses=documented(403, 404, 503))

# What the validator below says, for the document alone.
_RATINGS: list[Any] = [
    {"properties": {"rating": {"enum": [-1, 1]}, "scale": {"enum": ["thumbs", None]}}},
    {"properties": {"rating": {"enum": [2, 3, 4, 5]}, "scale": {"enum": ["stars", None]}}},
    {"properties": {"rating": {"enum": [1]}, "scale": {"const": "stars"}}, "required": ["scale"]},
]


def _rating(value: int) -> int:
    if value not in (-1, 1, 2, 3, 4, 5):
        raise ValueError("must be -1 or 1, or 1 to 5")
    return value


class FeedbackRequest(BaseModel):
    """A rating of an answer: a thumb, -1 or 1, or stars, 1 to 5."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "anyOf": _RATINGS,
            "examples": [
                {"session_id": "2f1c9a52-0b0e-4a8e-9d55-5f1b6a2f7d11", "rating": 1, "comment": "Just what I needed."}
            ],
        },
    )

    session_id: SessionId
    request_id: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._\-]{1,64}$",
            description="The X-Request-Id of the answer; without it the conversation's newest answer is meant.",
        ),
    ] = None
    rating: Annotated[int, AfterValidator(_rating), Field(json_schema_extra={"enum": [-1, 1, 2, 3, 4, 5]})]
    scale: Scale | None = Field(default=None, description="What 1 means: thumbs, unless this says stars.")
    comment: Text | None = Field(default=None, max_length=COMMENT_CHARACTERS)
    user_id: UserId | None = None

    @model_validator(mode="after")
    def _fits_scale(self) -> "FeedbackRequest":
        if self.rating not in ((-1, 1) if self.chosen_scale == "thumbs" else range(1, 6)):
            raise ValueError("rating: does not belong to this scale")
        return self

    @property
    def chosen_scale(self) -> Scale:
        return self.scale or ("thumbs" if self.rating <= 1 else "stars")


class FeedbackResponse(BaseModel):
    session_id: str
    # Of the answer that was rated.
    request_id: str | None
    agent: str | None
    scale: Scale
    rating: int


@router.post("/api/feedback")
async def feedback(request: Request, body: FeedbackRequest, access: CallerAccess) -> FeedbackResponse:
    user_id = access.acts_for(body.user_id)
    rated = await store_feedback(
        request.app.state.pool,
        Feedback(
            session_id=body.session_id,
            request_id=body.request_id,
            scale=body.chosen_scale,
            rating=body.rating,
            comment=body.comment,
            user_id=user_id,
            given_by=f"key:{access.caller.name}" if user_id is None else f"user:{user_id}",
            own=access.own,
        ),
    )
    if rated.new:
        name = {-1: "down", 1: "up"}[body.rating] if body.chosen_scale == "thumbs" else str(body.rating)
        request.app.state.metrics.feedback.labels(rated.agent or "unknown", name).inc()
    return FeedbackResponse(
        session_id=body.session_id,
        request_id=rated.request_id,
        agent=rated.agent,
        scale=body.chosen_scale,
        rating=body.rating,
    )
