"""A CRM with a plain REST interface: notes go there, by paths that the settings name."""

from collections.abc import Mapping
from typing import Any

from agent_service.core.settings import Settings
from agent_service.integrations.base import RestClient, State
from agent_service.memory.database import Connection
from agent_service.work import events, outbox
from agent_service.work.events import Consumer, Event

NAME = "crm"
NOTE = "crm_note"
NOTE_CHARACTERS = 10_000


class Crm:
    name = NAME
    kind = NOTE

    def __init__(self, settings: Settings) -> None:
        token = settings.crm_token.get_secret_value()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = RestClient(settings.crm_url, headers, settings.integration_timeout_seconds)
        self._notes = settings.crm_notes_path
        self._health = settings.crm_check_path

    async def send(self, payload: Mapping[str, Any], key: str) -> None:
        await self._client.post(self._notes, payload, key)

    async def check(self) -> State:
        return await self._client.check(self._health)

    async def close(self) -> None:
        await self._client.close()


async def _note(borrowed: Connection, event: Event) -> None:
    match event.type:
        case events.ANALYSED:
            row = await (
                await borrowed.execute("SELECT result ->> 'summary' FROM analyses WHERE id = %s", [event.subject])
            ).fetchone()
            text = f"Analysis finished: {row[0]}" if row and row[0] else "Analysis finished."
        case _:
            text = "Message received on WhatsApp."
    note = {
        "subject": event.user_id or event.subject,
        "text": text[:NOTE_CHARACTERS],
        "source": event.type,
        "reference": event.subject,
        "at": event.at.isoformat(),
    }
    await outbox.put(borrowed, f"{NAME}:event:{event.id}", NOTE, note)


notes = Consumer("crm_notes", (events.ANALYSED, events.RECEIVED), _note)
