"""How the systems stand that the service writes to."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel

from agent_service.api.access import CallerAccess
from agent_service.api.background import Background
from agent_service.api.problems import documented
from agent_service.core.problems import Problem
from agent_service.memory.database import connection

router = APIRouter(tags=["operations"], responses=documented(403, 404, 503))

_ENTRIES = """
SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'dead'), max(sent_at)
FROM outbox WHERE kind = %s
"""


class IntegrationStatus(BaseModel):
    name: str
    status: Literal["ok", "degraded", "off"]
    # What its server answered or how the connection failed, where it is degraded.
    error: str | None = None
    milliseconds: float | None = None
    checked_at: AwareDatetime | None = None
    # Effects not sent yet, those given up, and when the last one was sent.
    waiting: int = 0
    dead: int = 0
    last_sent_at: AwareDatetime | None = None


@router.get("/api/integrations/{name}/status")
async def integration_status(request: Request, name: str, access: CallerAccess) -> IntegrationStatus:
    access.check_operator()
    background: Background = request.app.state.background
    if name not in background.integrations:
        known = ", ".join(background.integrations)
        raise Problem(404, "integration-unknown", f"There is no such integration; there are: {known}.")
    integration = background.integrations[name]
    if integration is None:
        return IntegrationStatus(name=name, status="off")
    state = await integration.check()
    async with connection(background.pool) as borrowed:
        row = await (await borrowed.execute(_ENTRIES, [integration.kind])).fetchone()
    assert row
    waiting, dead, last_sent_at = row
    return IntegrationStatus(
        name=name,
        status="ok" if state.error is None else "degraded",
        error=state.error,
        milliseconds=state.milliseconds,
        checked_at=datetime.fromtimestamp(state.checked_at, UTC) if state.checked_at else None,
        waiting=waiting,
        dead=dead,
        last_sent_at=last_sent_at,
    )
