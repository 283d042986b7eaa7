import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import free_port
from service import APP, environment

from agent_service.team.definition import SHIPPED, load_team
from agent_service.team.specialists import load_tools

INTENTS = {
    "financial": ["financial_analysis", "budget_planning", "cost_optimization"],
    "cashflow": ["cashflow_monitoring", "revenue_projection"],
    "marketing_sales": ["marketing_strategy", "campaign_management", "lead_qualification", "sales_funnel"],
    "hr": ["hr_recruitment", "performance_management", "policy_consultation"],
    "general": [],
}


def general(**changes: Any) -> dict[str, Any]:
    return {"id": "general", "name": "G", "description": "All else.", "prompt": "Answer.", **changes}


def refused(path: Path, document: Any) -> str:
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        load_tools(load_team(path))
    return str(caught.value.code)


def test_shipped_team_is_the_agreed_one() -> None:
    team = load_team()
    assert {specialist.id: list(specialist.intents) for specialist in team.specialists} == INTENTS
    tools = load_tools(team)
    assert all(len(tools[id]) >= 2 for id in INTENTS if id != "general")
    assert tools["general"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tier": "cheap"}, "specialist general: tier: Input should be 'economy', 'standard' or 'strong'"),
        ({"prompt": ""}, "specialist general: prompt: String should have at least 1 character"),
        ({"id": "Big One"}, "specialist Big One: id: "),
        ({"mood": "good"}, "specialist general: mood: Extra inputs are not permitted"),
        ({"parameters": {"temperature": 3}}, "specialist general: parameters.temperature: "),
        ({"keywords": {"en": ["cash^x"]}}, "specialist general: keywords.en: 'cash^x' is no keyword"),
        ({"intents": {"chat": {}}}, "specialist general: intents.chat.description: is missing"),
        (
            {"tools": ["agent_service.nothing.here"]},
            "specialist general: tools.0: agent_service.nothing.here: No module",
        ),
        (
            {"tools": ["agent_service.tools.hr.nothing"]},
            "specialist general: tools.0: agent_service.tools.hr.nothing: ",
        ),
        ({"tools": ["agent_service.tools.hr.POLICIES"]}, "is no function"),
        ({"mcp_servers": ["crm"]}, "specialist general: mcp_servers: crm is not declared"),
    ],
)
def test_fault_is_one_line_that_names_specialist_and_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    message = refused(tmp_path / "team.yml", {"specialists": [general(**change)]})
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"specialists": []}, "specialist general is missing"),
        ({"specialists": [general(), general()]}, "specialist general is there twice"),
        ({"specialists": [{"name": "N"}]}, "specialist number 1: id: is missing"),
        ({}, "specialists: is missing"),
        ("specialists: [", "is no YAML"),
        ({"specialists": [general()], "mcp_servers": {"crm": {"transport": "pigeon"}}}, "mcp_servers: crm: "),
    ],
)
def test_faults_of_the_whole(tmp_path: Path, document: Any, said: str) -> None:
    assert said in refused(tmp_path / "team.yml", document)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nowhere\.yml: cannot be read"):
        load_team(tmp_path / "nowhere.yml")


def test_process_refuses_to_start_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "team.yml"
    path.write_text(yaml.safe_dump({"specialists": [general(tier="cheap")]}))
    command = [sys.executable, "-m", "uvicorn", "agent_service.main:app", "--port", str(free_port())]
    ended = subprocess.run(
        command, cwd=APP, env=environment(AGENT_TEAM_FILE=str(path)), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0
    said = ended.stderr.splitlines()
    assert said == [f"{path}: specialist general: tier: Input should be 'economy', 'standard' or 'strong'"]


def test_shipped_file_is_in_the_package() -> None:
    assert SHIPPED.parent.name == "team"
