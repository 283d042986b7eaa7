"""The generated reference is current, and whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import STRATEGIES
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import ROLES_OF_GROUPS
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs/reference/variables.md"
KNOWN = load_known()


def test_the_page_is_current():
    done = subprocess.run([sys.executable, TOP / "tests/tools/reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", sorted(KNOWN.roles))
def test_every_variable_is_described(role):
    text = PAGE.read_text(encoding="utf-8")
    for name, option in KNOWN.roles[role].items():
        assert f"| `{name}` |" in text
        assert option.description, name


@pytest.mark.parametrize("role", sorted(KNOWN.roles))
def test_a_roles_variables_carry_its_name(role):
    assert [name for name in KNOWN.roles[role] if not name.startswith(f"{role}_")] == []


def plays():
    return [play for play in yaml.safe_load((TOP / "playbooks/site.yml").read_text()) if "hosts" in play]


def test_preflight_knows_which_roles_site_gives_to_whom():
    given = {}
    for play in plays():
        roles = [entry["role"].removeprefix("agentfleet.vm.") for entry in play.get("roles", [])]
        if roles:
            given[play["hosts"]] = (*given.get(play["hosts"], ()), *roles)
    assert given == {group: roles for group, roles in ROLES_OF_GROUPS.items() if roles}


def entered(tasks):
    """The entry points of roles that tasks include."""
    included = [task.get("ansible.builtin.include_role") or {} for task in tasks]
    return [f"{role['name'].removeprefix('agentfleet.vm.')}/{role['tasks_from']}" for role in included if role]


def test_site_asks_for_a_certificate_when_the_edge_is_up_and_fails_when_all_else_is_done():
    edge = next(play for play in plays() if play["name"] == "Edge")
    assert "roles" in edge, "roles come before a play's tasks"
    assert entered(edge["tasks"]) == ["tls/issue"]
    everything = yaml.safe_load((TOP / "playbooks/site.yml").read_text())
    assert entered(everything[-1]["tasks"]) == ["tls/judge"]


def playbooks():
    # Preflight alone speaks for site.
    return {path.stem for path in (TOP / "playbooks").glob("*.yml")} - {"preflight"}


def test_every_playbook_says_which_options_it_takes():
    assert set(KNOWN.playbooks) == playbooks()


@pytest.mark.parametrize("playbook", sorted(playbooks()))
def test_an_option_that_is_announced_is_used(playbook):
    text = (TOP / f"playbooks/{playbook}.yml").read_text()
    text += "".join(path.read_text() for path in (TOP / "playbooks/tasks").rglob("*.yml"))
    assert [name for name in KNOWN.playbooks.get(playbook, {}) if name not in text] == []


def test_the_strategies_offered_are_those_there_are():
    assert KNOWN.playbooks["deploy"]["strategy"].choices == tuple(STRATEGIES)
