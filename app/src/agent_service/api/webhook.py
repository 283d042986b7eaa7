"""Messages from WhatsApp by UazAPI: checked, stored, queued, acknowledged; answered later."""

import hashlib
import hmac
import json
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from agent_service.api.background import Background
from agent_service.api.problems import documented
from agent_service.core.problems import Problem
from agent_service.integrations.uaz import incoming
from agent_service.work.messages import receive

router = APIRouter(tags=["webhooks"], responses=documented(400, 403, 404, 413, 429, 500, 503))


class Acknowledgement(BaseModel):
    status: Literal["accepted", "duplicate", "ignored"]


@router.post(
    "/webhook/uaz",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def uaz(request: Request) -> Acknowledgement:
    background: Background = request.app.state.background
    secret = background.settings.uaz_webhook_secret.get_secret_value()
    if not secret:
        raise Problem(404, "not-found", "There is nothing at /webhook/uaz.")
    body = await request.body()
    document = _parsed(body)
    if not _allowed(request, secret.encode(), body, document):
        raise Problem(403, "forbidden", "The webhook's token or signature is missing or wrong.")
    if document is None:
        raise Problem(400, "invalid-json", "The body is not JSON.")
    message = incoming(document, background.settings.message_max_characters)
    if message is None:
        return Acknowledgement(status="ignored")
    request_id = request.scope["state"]["request_id"]
    new = await receive(background.pool, background.settings.release, message, request_id)
    return Acknowledgement(status="accepted" if new else "duplicate")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _allowed(request: Request, secret: bytes, body: bytes, document: Any) -> bool:
    """By a signature of the body, or by a token: in a header, or where UazAPI puts its instance's."""
    signature = request.headers.get("x-webhook-signature")
    if signature is not None:
        wanted = hmac.new(secret, body, hashlib.sha256).hexdigest()
        return _same(signature.removeprefix("sha256=").lower(), wanted.encode())
    token = request.headers.get("x-webhook-token") or request.headers.get("token")
    if token is None and isinstance(document, dict):
        token = document.get("token")
    return isinstance(token, str) and _same(token, secret)


def _same(given: str, wanted: bytes) -> bool:
    # Digests have one length, so the comparison tells nothing about the secret's.
    digests = (hashlib.sha256(value).digest() for value in (given.encode("utf-8", "replace"), wanted))
    return hmac.compare_digest(*digests)
