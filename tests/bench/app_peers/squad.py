"""agent-squad's orchestrator behind one route: its classifier, four agents, its memory in the process."""

from __future__ import annotations

import uuid
from typing import Any

from agent_squad.agents import OpenAIAgent, OpenAIAgentOptions
from agent_squad.classifiers import OpenAIClassifier, OpenAIClassifierOptions
from agent_squad.orchestrator import AgentSquad
from fastapi import FastAPI
from pydantic import BaseModel

MODEL = "deepseek-v4-flash"
AGENTS = {
    "financial": "Reads financial statements, plans budgets and finds costs to save.",
    "cashflow": "Watches the cash flow and projects revenue and balances.",
    "marketing-sales": "Plans marketing and campaigns, qualifies leads and works on the sales funnel.",
    "hr": "Recruits, manages performance and answers questions about policies.",
}

app = FastAPI()
squad = AgentSquad(classifier=OpenAIClassifier(OpenAIClassifierOptions(api_key="local", model_id=MODEL)))
for name, description in AGENTS.items():
    squad.add_agent(OpenAIAgent(OpenAIAgentOptions(name=name, description=description, api_key="local", model=MODEL)))


class Chat(BaseModel):
    message: str


@app.get("/ready")
async def ready() -> str:
    return "ok"


@app.post("/api/chat")
async def chat(body: Chat) -> dict[str, Any]:
    session_id = str(uuid.uuid4())
    answer = await squad.route_request(body.message, "bench", session_id)
    # Its failures are texts too; one that is not the model's must not be counted as an answer.
    assert answer.metadata.agent_id == "cashflow", answer
    return {"response": answer.output.content[0]["text"], "session_id": session_id, "agent": answer.metadata.agent_id}
