"""Preflight as a playbook runs it, on inventories without a host behind them: it judges what the controller knows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECRET = "a9Xf02LmQr7TzK4sPw81"
PLAYBOOK = f"""
- name: Preflight
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Look
      ansible.builtin.import_tasks: {TOP}/playbooks/tasks/preflight.yml
      vars: {{preflight_playbook: deploy, preflight_host: false}}

- name: Later
  hosts: all,localhost
  gather_facts: false
  tasks:
    - name: Change something
      ansible.builtin.command: touch {{{{ my_trace | default('/dev/null') }}}}
      delegate_to: localhost
"""
GOOD = {
    "agent_api_key": SECRET,
    "agent_database_password": SECRET,
    "agent_redis_password": SECRET,
    "backup_key": SECRET,
    "agent_model_key": "",
    "edge_server_name": "agent.example.org",
}


class Desk:
    """An inventory of two machines, and the playbook run against it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inventory = directory / "shop"
        (self.inventory / "group_vars/all").mkdir(parents=True)
        (directory / "play.yml").write_text(PLAYBOOK)
        self.hosts(
            {
                "edge": {"hosts": {"edge1": {"ansible_host": "192.0.2.10"}}},
                "agents": {"hosts": {"agent1": {"ansible_host": "192.0.2.21"}}},
                "postgres": {"hosts": {"edge1": None}},
                "redis": {"hosts": {"edge1": None}},
            }
        )
        self.write("group_vars/all/vault.yml", GOOD)

    def hosts(self, groups: dict) -> None:
        self.write("hosts.yml", {"all": {"children": groups}})

    def write(self, name: str, content: object) -> None:
        path = self.inventory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def vault(self, *words: str) -> str:
        password = self.directory / "password"
        password.write_text("open sesame")
        command = [BIN / "ansible-vault", *words, "--vault-password-file", password]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "1000",
        }
        return subprocess.run(
            [BIN / "ansible-playbook", "-i", "shop", "play.yml", *options],
            cwd=self.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def refused(self, *options: str) -> str:
        """The output of a run that must be refused before its second play."""
        trace = self.directory / "trace"
        done = self.run(*options, "-e", f"my_trace={trace}")
        assert done.returncode == 2, done.stdout
        assert "[Later]" not in done.stdout
        assert not trace.exists()
        return done.stdout


def failed(output: str) -> dict[str, str]:
    """The failures that the recap counts, by host."""
    return dict(re.findall(r"^(\w+) +: .*failed=(\d+)", output, re.MULTILINE))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_right_inventory_goes_on(desk: Desk) -> None:
    done = desk.run("-e", f"my_trace={desk.directory}/trace")
    assert done.returncode == 0, done.stdout
    assert (desk.directory / "trace").exists()


def test_a_right_inventory_goes_on_for_a_part_of_the_fleet_and_in_a_check(desk: Desk) -> None:
    assert desk.run("--check", "--limit", "agent1").returncode == 0


def test_a_misspelt_variable_is_told_once_with_its_file_and_line(desk: Desk) -> None:
    desk.write("group_vars/all/main.yml", {"agent_name": "shop", "agnet_port": 9000})
    output = desk.refused()
    lines = [line for line in output.splitlines() if "agnet_port" in line]
    assert lines == [
        "agent1, edge1: unknown variable 'agnet_port' in shop/group_vars/all/main.yml:2; did you mean 'agent_port'?"
        " Correct it there; a variable of your own is named my_agnet_port"
    ]
    assert failed(output) == {"agent1": "1", "edge1": "0"}


def test_the_host_whose_variable_is_wrong_is_blamed(desk: Desk) -> None:
    desk.write("host_vars/agent1.yml", "agent_port: eighty\n")
    output = desk.refused("--check")
    assert "agent1: 'agent_port' in shop/host_vars/agent1.yml:1 must be a whole number, not 'eighty'" in output
    assert failed(output) == {"agent1": "1", "edge1": "0"}


def test_a_certificate_that_nobody_could_issue_is_told_by_the_edge(desk: Desk) -> None:
    desk.write("group_vars/all/main.yml", {"tls_mode": "certbot", "tls_names": ["*.example.org", "192.0.2.10"]})
    output = desk.refused()
    for line in (
        "edge1: tls_names has *.example.org, and tls_mode certbot proves names by webroot",
        "edge1: tls_names has the address 192.0.2.10, and",
        "edge1: 'tls_mail' is not set, and tls_mode certbot needs a mail address. Set it in shop",
    ):
        assert output.count(line) == 1, output


def test_a_certificate_in_files_is_looked_for_beside_the_inventory(desk: Desk) -> None:
    files = {"tls_certificate_file": "agent.pem", "tls_key_file": "~/no/such.pem"}
    desk.write("group_vars/all/main.yml", {"tls_mode": "files", **files})
    desk.write("agent.pem", "a certificate")
    lines = [line for line in desk.refused().splitlines() if "is no file on this machine" in line]
    path = os.path.expanduser("~/no/such.pem")
    assert lines == [
        f"edge1: 'tls_key_file' is {path}, which is no file on this machine. Put it there, or correct the path"
    ]


def test_a_null_is_told_with_its_file_and_line(desk: Desk) -> None:
    desk.write("group_vars/agents.yml", "agent_port:\n")
    assert "agent1: 'agent_port' in shop/group_vars/agents.yml:1 is null" in desk.refused()


def test_all_problems_are_told_at_once(desk: Desk) -> None:
    desk.write("group_vars/all/main.yml", {"agnet_port": 9000, "agent_notify": "maybe"})
    desk.write("group_vars/all/vault.yml", {**GOOD, "agent_api_key": "CHANGE-ME"})
    output = desk.refused()
    for part in ("'agnet_port'", "'agent_notify' in", "secret 'agent_api_key' in shop/group_vars/all/vault.yml:1"):
        assert part in output


def test_a_missing_secret_is_told_with_the_command(desk: Desk) -> None:
    without = {name: value for name, value in GOOD.items() if name not in ("agent_api_key", "agent_redis_password")}
    desk.write("group_vars/all/vault.yml", without)
    output = desk.refused()
    # Redis has its user's password from the agent's variable.
    assert "agent1, edge1: secret 'agent_redis_password' is not set" in output
    assert "agent1: secret 'agent_api_key' is not set. Set it in shop/group_vars/all/vault.yml, then: " in output
    assert "ansible-vault encrypt shop/group_vars/all/vault.yml" in output


def test_a_template_may_use_roles_defaults_and_facts(desk: Desk) -> None:
    templates = {
        "agent_database_name": "{{ agent_name }}_live",
        "agent_instances": "{{ ansible_facts['processor_vcpus'] }}",
        "my_key": "{{ nobody_sets_this }}",
    }
    desk.write("group_vars/all/main.yml", templates)
    assert desk.run().returncode == 0


def test_a_template_without_its_variable_is_told(desk: Desk) -> None:
    desk.write("group_vars/all/vault.yml", {**GOOD, "agent_api_key": "{{ vault_api_key }}"})
    output = desk.refused()
    assert "'agent_api_key' in shop/group_vars/all/vault.yml:1 needs 'vault_api_key', which is not set" in output


def test_a_broken_template_is_told_without_what_it_says(desk: Desk) -> None:
    desk.write(
        "group_vars/all/vault.yml", {**GOOD, "agent_api_key": "{{ 'hunter2' | b64decode | int('hunter2') / 0 }}"}
    )
    output = desk.refused()
    assert "'agent_api_key' in shop/group_vars/all/vault.yml:1 cannot be evaluated (" in output
    assert "hunter2" not in output


def test_a_secret_inside_a_vault_is_judged_and_never_shown(desk: Desk) -> None:
    desk.write("group_vars/all/vault.yml", {**GOOD, "agent_api_key": "hunter2"})
    desk.vault("encrypt", str(desk.inventory / "group_vars/all/vault.yml"))
    output = desk.refused("--vault-password-file", "password", "-vvv")
    assert "secret 'agent_api_key' in shop/group_vars/all/vault.yml:1 is shorter than 16 characters" in output
    assert "Correct it: ansible-vault edit shop/group_vars/all/vault.yml" in output
    assert "hunter2" not in output
    assert SECRET not in output


def test_a_value_that_cannot_be_decrypted_is_told(desk: Desk) -> None:
    encrypted = desk.vault("encrypt_string", "--name", "agent_api_key", SECRET)
    desk.write(
        "group_vars/all/vault.yml",
        yaml.safe_dump({**GOOD, "agent_api_key": ""}).replace("agent_api_key: ''\n", encrypted),
    )
    output = desk.refused()
    assert "'agent_api_key' in shop/group_vars/all/vault.yml:1 cannot be decrypted" in output
    assert "--ask-vault-pass" in output


def test_a_vault_without_its_password_stops_the_run_by_its_name(desk: Desk) -> None:
    path = desk.inventory / "group_vars/all/vault.yml"
    desk.vault("encrypt", str(path))
    done = desk.run()
    assert done.returncode != 0
    assert (
        "shop/group_vars/all/vault.yml is encrypted and no vault password is given: add --ask-vault-pass" in done.stdout
    )
    (desk.directory / "wrong").write_text("open poppy")
    done = desk.run("--vault-password-file", "wrong")
    assert done.returncode != 0
    assert "shop/group_vars/all/vault.yml is encrypted and the given vault password does not open it" in done.stdout


def test_wrong_options_are_told(desk: Desk) -> None:
    output = desk.refused(
        *("-e", "stratgy=blue_green", "-e", "status_format=table", "-e", "wait_seconds=soon", "-e", "strategy=purple")
    )
    for told in (
        "fleet: unknown option -e stratgy; did you mean 'strategy'?",
        "fleet: 'status_format' is an option of status.yml, routine.yml, not of deploy.yml",
        "fleet: -e wait_seconds must be a whole number, not 'soon'",
        "fleet: -e strategy must be one of ",
    ):
        assert told in output


def test_the_shape_of_the_fleet_is_judged_whole_under_limit(desk: Desk) -> None:
    desk.hosts({"edge": {"hosts": {"edge1": None}}, "agent": {"hosts": {"agent1": None}}})
    output = desk.refused("--limit", "edge1")
    assert "fleet: group 'agents' has no host to answer them (is 'agent' misspelt?)" in output
    assert "agent1: is in none of the groups" in output


def test_two_hosts_with_one_address_are_told(desk: Desk) -> None:
    desk.write("host_vars/agent1.yml", {"ansible_host": "192.0.2.10"})
    assert "edge1: has the same address as agent1: 192.0.2.10" in desk.refused()
