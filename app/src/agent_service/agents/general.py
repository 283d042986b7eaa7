"""The one agent there is: a general assistant."""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langgraph.graph.state import CompiledStateGraph

from agent_service.agents.calls import ModelCalls

NAME = "general"

PROMPT = """\
You are a helpful assistant of a company. Answer in the language of the user's last message.
Be correct first and brief second. Say so when you do not know, and ask when a question is unclear.
"""

Agent = CompiledStateGraph[Any, Any, Any, Any]


def create_general(model: BaseChatModel, calls: ModelCalls) -> Agent:
    return create_agent(model, system_prompt=PROMPT, middleware=[calls], name=NAME)
