"""The shipped team and its rules, made once for all services of a process and of what is forked from it.

They are the most of what a start costs, and nobody changes them. ProcessService reads them as a host does.
"""

from pathlib import Path

from agent_service.agents import assembly
from agent_service.team.definition import SHIPPED, Team, load_team
from agent_service.team.router import Router

_team = load_team()
_router = Router(_team)


def _load(path: Path) -> Team:
    return _team if path == SHIPPED else load_team(path)


def _route(team: Team) -> Router:
    return _router if team is _team else Router(team)


def share() -> None:
    assembly.load_team = _load
    assembly.Router = _route  # type: ignore[assignment,misc]
