"""WhatsApp through UazAPI: what its webhook sends, and how a text is sent back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_service.core.settings import Settings
from agent_service.core.text import printable_text
from agent_service.integrations.base import RestClient, State

NAME = "uaz"
TEXT = "uaz_text"
# What one message may have; a longer answer becomes several.
PART_CHARACTERS = 4_000
# WhatsApp's own are far shorter.
ID_CHARACTERS = 200

_ID = re.compile(rf"[\x21-\x7e]{{1,{ID_CHARACTERS}}}")
_NUMBER = re.compile(r"[0-9]{5,20}")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A text that somebody wrote to the service's number."""

    id: str
    chat: str
    number: str
    text: str


def incoming(document: Any, limit: int) -> Incoming | None:
    """The text to answer, or None for all else that a webhook is sent: receipts, groups, media, the service's own.

    Two shapes are sent, by the version and the setting: EventType with message, or event with data.
    """
    if not isinstance(document, dict):
        return None
    kind = document.get("EventType", document.get("event"))
    message = document.get("message", document.get("data"))
    if kind not in ("messages", "message") or not isinstance(message, dict):
        return None
    if any(message.get(name) for name in ("fromMe", "isGroup", "wasSentByApi")):
        return None
    identity = message.get("messageid") or message.get("id")
    chat = message.get("chatid")
    # A chat may be named by an id that hides the number; the number is beside it then.
    number = next((found for name in ("sender_pn", "chatid", "sender") if (found := _number(message.get(name)))), None)
    text = message.get("text")
    if not (isinstance(identity, str) and _ID.fullmatch(identity) and isinstance(chat, str) and _ID.fullmatch(chat)):
        return None
    if number is None or not isinstance(text, str):
        return None
    text = printable_text(text).strip()[:limit]
    return Incoming(identity, chat, number, text) if text else None


def _number(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    number, _, server = value.partition("@")
    return number if server in ("", "s.whatsapp.net", "c.us") and _NUMBER.fullmatch(number) else None


def parts(text: str) -> list[str]:
    """Pieces that fit a message each, cut between lines or words where there are any."""
    pieces = []
    while len(text) > PART_CHARACTERS:
        head = text[:PART_CHARACTERS]
        cut = max(head.rfind("\n"), head.rfind(" ")) + 1
        cut = cut if cut > PART_CHARACTERS // 2 else PART_CHARACTERS
        pieces.append(text[:cut].rstrip())
        text = text[cut:]
    return [piece for piece in (*pieces, text) if piece.strip()]


class Uaz:
    name = NAME
    kind = TEXT

    def __init__(self, settings: Settings) -> None:
        headers = {"token": settings.uaz_token.get_secret_value()}
        self._client = RestClient(settings.uaz_url, headers, settings.integration_timeout_seconds)

    async def send(self, payload: Mapping[str, Any], key: str) -> None:
        # Its own field beside the header: it comes back in UazAPI's records.
        await self._client.post("/send/text", {**payload, "track_id": key}, key)

    async def check(self) -> State:
        return await self._client.check("/instance/status")

    async def close(self) -> None:
        await self._client.close()
