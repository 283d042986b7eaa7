"""The one agent there is: a general assistant."""

from typing import Any

from langchain.agents import create_agent
from langgraph.graph.state import CompiledStateGraph

from agent_service.agents.calls import ModelCalls
from agent_service.models.access import Models

NAME = "general"

PROMPT = """\
You are a helpful assistant of a company. Answer in the language of the user's last message.
Be correct first and brief second. Say so when you do not know, and ask when a question is unclear.
"""

Agent = CompiledStateGraph[Any, Any, Any, Any]


def create_general(models: Models) -> Agent:
    return create_agent(models.chat(), system_prompt=PROMPT, middleware=[ModelCalls(models, NAME)], name=NAME)
