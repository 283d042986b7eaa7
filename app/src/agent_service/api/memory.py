"""What is remembered of a user beyond conversations: to be seen, and to be deleted, by that user."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agent_service.api.access import Access, CallerAccess
from agent_service.api.problems import documented
from agent_service.api.schemas import UserId
from agent_service.core.problems import Problem
from agent_service.memory.long_term import LongTerm

router = APIRouter(tags=["memory"], responses=documented(404, 503))

MemoryId = Annotated[int, Field(ge=1, lt=2**63, description="One memory's id; all are meant without.", examples=[7])]


class MemoryBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    content: str
    # The conversation that it was taken from.
    session_id: str | None
    created_at: AwareDatetime


class Memories(BaseModel):
    """What is remembered, the newest first."""

    user_id: str
    memories: list[MemoryBody]


class Forgotten(BaseModel):
    user_id: str
    deleted: int


@router.get("/api/memory")
async def memories(
    request: Request, access: CallerAccess, user_id: Annotated[UserId | None, Query()] = None
) -> Memories:
    user = _user(access, user_id)
    long_term: LongTerm = request.app.state.long_term
    return Memories(user_id=user, memories=[MemoryBody.model_validate(one) for one in await long_term.list(user)])


@router.delete("/api/memory")
async def forget(
    request: Request,
    access: CallerAccess,
    user_id: Annotated[UserId | None, Query()] = None,
    id: Annotated[MemoryId | None, Query()] = None,
) -> Forgotten:
    user = _user(access, user_id)
    long_term: LongTerm = request.app.state.long_term
    return Forgotten(user_id=user, deleted=await long_term.forget(user, id))


def _user(access: Access, user_id: str | None) -> str:
    user = access.acts_for(user_id)
    if user is None:
        raise Problem(404, "user-unknown", "Say by user_id whose memory is meant: a key is nobody's own.")
    return user
