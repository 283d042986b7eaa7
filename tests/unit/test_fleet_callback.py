"""The callback and the report action, run by the real ansible-playbook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PLAYBOOK = """
- name: Reports
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Ordinary
      ansible.builtin.debug:
        msg: chatter
    - name: Show the result
      agentfleet.vm.report:
        text: ["name  héllo {{ 1 + 1 }}", "second line"]
        document: {name: héllo, none: null, numbers: "{{ [1, 2] | map('int') | list }}"}
    - name: Show each
      agentfleet.vm.report:
        text: "item {{ item }}"
      loop: [a, b]
    - name: Show nothing
      agentfleet.vm.report:
        text: hidden
      when: false
    - name: Fail by a module
      ansible.builtin.command: "false"
      when: breaking | default(false) | bool
    - name: Fail and go on
      ansible.builtin.command: "false"
      ignore_errors: true
      when: forgiving | default(false) | bool
    - name: Fail on demand
      ansible.builtin.fail:
        msg: told to
      when: failing | default(false) | bool
    - name: Insist on something
      ansible.builtin.assert:
        that: 1 + 1 == 3
        fail_msg: "{{ ['not so', 'at all'] | join('\\n') }}"
        quiet: true
      when: insisting | default(false) | bool
"""


@pytest.fixture
def play(tmp_path):
    playbook = tmp_path / "reports.yml"

    def run(*arguments, callback="agentfleet.vm.fleet", play_vars=""):
        playbook.write_text(PLAYBOOK.replace("  tasks:\n", f"{play_vars}  tasks:\n"))
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".collections"),
            "ANSIBLE_STDOUT_CALLBACK": callback,
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        }
        return subprocess.run(
            [program, "-i", "localhost,", playbook, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=TOP,
        )

    return run


def test_reports_are_plain_lines_and_the_rest_is_as_ever(play):
    done = play()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "name  héllo 2" in lines
    assert lines[lines.index("name  héllo 2") + 1] == "second line"
    assert [line for line in lines if line.startswith("item")] == ["item a", "item b"]
    assert not [line for line in lines if "Show" in line or "hidden" in line]
    assert any(line.startswith("TASK [Ordinary]") for line in lines)
    assert any(line.startswith("localhost") and "ok=3 " in line for line in lines)


def test_a_play_that_is_a_report_prints_nothing_else(play):
    done = play(play_vars="  vars: {report_only: true}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["name  héllo 2", "second line", "item a", "item b"]
    assert done.stderr == ""


def test_failures_of_a_report_go_to_standard_error_alone(play):
    done = play("-e", "failing=true", "-e", "forgiving=true", play_vars="  vars: {report_only: true}\n")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "item b"
    assert done.stderr.splitlines() == ["fatal: [localhost]: FAILED!", "told to"]


def test_a_module_that_fails_a_report_is_its_message(play):
    done = play("-e", "breaking=true", play_vars="  vars: {report_only: true}\n")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["fatal: [localhost]: FAILED!", "non-zero return code"]


def test_a_report_with_verbosity_shows_all(play):
    assert "TASK [Ordinary]" in play("-v", play_vars="  vars: {report_only: true}\n").stdout


def test_json_mode_prints_the_document_and_nothing_else(play):
    done = play("-e", "status_format=json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"name": "héllo", "none": None, "numbers": [1, 2]}
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_failures_in_json_mode_go_to_standard_error(play):
    done = play("-e", "status_format=json", "-e", "failing=true")
    assert done.returncode == 2
    assert json.loads(done.stdout)["name"] == "héllo"
    assert "told to" in done.stderr


@pytest.mark.parametrize(
    ("option", "lines"),
    [("failing=true", ["told to"]), ("insisting=true", ["not so", "at all"])],
    ids=["fail", "assert"],
)
def test_a_refusal_is_its_lines_and_all_of_it_with_verbosity(play, option, lines):
    done = play("-e", option)
    assert done.returncode == 2
    shown = done.stdout.splitlines()
    start = shown.index("fatal: [localhost]: FAILED!")
    assert shown[start + 1 : start + 1 + len(lines)] == lines
    assert (done.stdout + done.stderr).count(lines[0]) == 1
    assert f'"msg": "{lines[0]}' in play("-v", "-e", option).stdout


def test_another_callback_shows_the_report_as_msg(play):
    done = play(callback="default")
    assert '"name  héllo 2"' in done.stdout
    assert "TASK [Show the result]" in done.stdout
