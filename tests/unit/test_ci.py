"""The pipeline for users: every playbook, option, input and secret that it names exists, and none is in a script."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

TOP = Path(__file__).resolve().parents[2]
WORKFLOWS = TOP / ".github/workflows"
PIPELINE = yaml.safe_load((WORKFLOWS / "deploy.yml").read_text())
# YAML 1.1 reads the key `on` as true.
CALL = PIPELINE[True]["workflow_call"]
STEPS: list[dict[str, Any]] = [step for job in PIPELINE["jobs"].values() for step in job["steps"]]
SCRIPTS = [str(step["run"]) for step in STEPS if "run" in step]
PAGE = (TOP / "docs/ci.md").read_text()


def played(script: str) -> list[list[str]]:
    """The words of each call of ansible-playbook."""
    calls = []
    for line in script.splitlines():
        words = shlex.split(line) if line.startswith("ansible-playbook ") else []
        if words:
            calls.append(words)
    return calls


CALLS = [words for script in SCRIPTS for words in played(script)]


def playbook_of(words: list[str]) -> str:
    return next(word for word in words if word.startswith("agentfleet.vm.")).removeprefix("agentfleet.vm.")


def given(words: list[str]) -> set[str]:
    return {value for flag, value in itertools.pairwise(words) if flag == "-e"}


def test_it_builds_deploys_and_smokes_in_this_order() -> None:
    assert [playbook_of(words) for words in CALLS] == ["build", "deploy", "smoke"]
    assert PIPELINE["jobs"]["deploy"]["needs"] == "check"
    assert PIPELINE["jobs"]["deploy"]["if"] == "github.ref_type == 'tag'"


@pytest.mark.parametrize("words", CALLS, ids=playbook_of)
def test_a_playbook_and_its_options_exist(words: list[str]) -> None:
    playbook = playbook_of(words)
    assert (TOP / f"playbooks/{playbook}.yml").is_file()
    assert {option.partition("=")[0] for option in given(words)} <= set(load_known().extra(playbook))
    assert words[words.index("-i") + 1] == "$INVENTORY"


def test_what_is_deployed_is_what_was_built() -> None:
    build, deploy, _smoke = CALLS
    assert given(build) < given(deploy)


def test_a_default_strategy_is_one() -> None:
    choices = load_known().playbooks["deploy"]["strategy"].choices
    assert CALL["inputs"]["strategy"]["default"] in choices


def test_nothing_that_a_caller_gives_becomes_part_of_a_script() -> None:
    for script in SCRIPTS:
        assert "${{" not in script


def test_every_input_is_used_and_every_used_one_is_declared() -> None:
    used = set(re.findall(r"inputs\.(\w+)", (WORKFLOWS / "deploy.yml").read_text()))
    assert used == set(CALL["inputs"])


def test_a_variable_of_a_script_is_set() -> None:
    ours = set(PIPELINE["env"])
    for holder in (*PIPELINE["jobs"].values(), *STEPS):
        ours |= set(holder.get("env", {}))
    runner = {"GITHUB_ENV", "GITHUB_REF_NAME", "GITHUB_REPOSITORY", "GITHUB_WORKSPACE", "RUNNER_TEMP", "HOME"}
    for script in SCRIPTS:
        read = set(re.findall(r"\$([A-Z_]+)", script)) | set(re.findall(r"environ\[['\"]([A-Z_]+)", script))
        assert read <= ours | runner


def test_the_page_names_the_secrets_and_calls_the_workflow_as_it_is() -> None:
    text = (WORKFLOWS / "deploy.yml").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(re.findall(r"secrets\.(\w+)", text))
    caller = yaml.safe_load("\n".join(line[4:] for line in PAGE.splitlines() if line.startswith("    ")))
    job = caller["jobs"]["service"]
    assert set(job["with"]) <= set(CALL["inputs"])
    owner_and_name = "agentfleet/agentfleet"
    assert job["uses"] == f"{owner_and_name}/.github/workflows/deploy.yml@main"
    assert owner_and_name in yaml.safe_load((TOP / "galaxy.yml").read_text())["repository"]
    assert len(PAGE.splitlines()) < 40


def test_files_that_a_workflow_or_the_page_names_exist() -> None:
    assert (TOP / ".ci/run").is_file()
    for name in re.findall(r"`(\w+\.yml)`", PAGE):
        assert name == "vault.yml" or (TOP / "playbooks" / name).is_file()
