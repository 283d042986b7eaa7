"""The least that an agent service can be: one route, one call of the model, nothing kept."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

PROMPT = "You are the cash-flow specialist of a company. Answer in the language of the question, briefly."

app = FastAPI()
client = AsyncOpenAI(max_retries=0)


class Chat(BaseModel):
    message: str


@app.get("/ready")
async def ready() -> str:
    return "ok"


@app.post("/api/chat")
async def chat(body: Chat) -> dict[str, Any]:
    messages: Any = [{"role": "system", "content": PROMPT}, {"role": "user", "content": body.message}]
    answer = await client.chat.completions.create(model="deepseek-v4-flash", messages=messages)
    return {"response": answer.choices[0].message.content, "model": answer.model, "usage": answer.usage}
