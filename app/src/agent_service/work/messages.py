"""Messages that came in by a webhook: stored and queued at once, answered by a job through the usual conversation."""

from psycopg.types.json import Jsonb

from agent_service.agents.conversation import Answer, Conversation, Question
from agent_service.core.problems import Problem
from agent_service.core.tracing import origin
from agent_service.guard.audit import Audit
from agent_service.integrations.uaz import TEXT, Incoming, parts
from agent_service.memory.database import Connection, Pool, connection
from agent_service.work import events, outbox
from agent_service.work.queue import Arguments, Task, finish, is_done

TASK = "answer_message"

# One statement, so one round trip: what is acknowledged is there, and what was there already is not done again.
_RECEIVE = """
WITH message AS (
    INSERT INTO inbound_messages (id, chat, sender, text, request_id)
    VALUES (%(id)s, %(chat)s, %(number)s, %(text)s, %(request_id)s)
    ON CONFLICT (id) DO NOTHING RETURNING id
), event AS (
    INSERT INTO events (type, release, user_id, subject, payload, origin)
    SELECT %(type)s, %(release)s, %(user_id)s, id, %(payload)s, %(origin)s FROM message
)
SELECT enqueue_job_v1(
    'message:' || id, %(release)s, %(task)s, jsonb_build_object('message', id, 'origin', %(origin)s::jsonb), %(lock)s
) FROM message
"""


def user_of(number: str) -> str:
    return f"whatsapp:{number}"


async def receive(pool: Pool, release: str, message: Incoming, request_id: str) -> bool:
    """Whether the message is new. Of one chat, one is answered after the other."""
    values = {
        "id": message.id,
        "chat": message.chat,
        "number": message.number,
        "text": message.text,
        "request_id": request_id,
        "type": events.RECEIVED,
        "release": release,
        "user_id": user_of(message.number),
        "payload": Jsonb({"channel": "whatsapp", "characters": len(message.text)}),
        "origin": Jsonb(origin()),
        "task": TASK,
        "lock": f"chat:{message.chat}",
    }
    async with connection(pool, "receive message") as borrowed:
        return await (await borrowed.execute(_RECEIVE, values)).fetchone() is not None


def answering(pool: Pool, conversation: Conversation, audit: Audit) -> Task:
    async def run(arguments: Arguments) -> None:
        key, identity = arguments["key"], arguments["message"]
        if await is_done(pool, key):
            return
        query = "SELECT chat, sender, text, request_id FROM inbound_messages WHERE id = %s"
        async with connection(pool, "read message") as borrowed:
            row = await (await borrowed.execute(query, [identity])).fetchone()
        if row is None:
            return
        chat, number, text, request_id = row

        async def effects(borrowed: Connection, answer: Answer) -> None:
            await finish(borrowed, key)
            for position, part in enumerate(parts(answer.response)):
                payload = {"number": number, "text": part}
                await outbox.put(borrowed, f"{key}:{position}", TEXT, payload, lane=f"chat:{chat}")
            await borrowed.execute(
                "UPDATE inbound_messages SET state = 'answered', answered_at = now() WHERE id = %s", [identity]
            )

        question = Question(text, session_of(chat), user_of(number), request_id)
        with audit.job(TASK, question.user_id, request_id):
            await conversation.answer(question, effects)

    async def failed(borrowed: Connection, arguments: Arguments, problem: Problem) -> None:
        await borrowed.execute("UPDATE inbound_messages SET state = 'failed' WHERE id = %s", [arguments["message"]])

    return Task(TASK, run, failed)


def session_of(chat: str) -> str:
    return f"whatsapp:{chat}"[:128]
