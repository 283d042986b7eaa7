"""Look for what would make a playbook fail, before it changes anything; see modules/preflight.py for its options."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader

# Each task runs in a process of its own, which would load all files of filters for the first one that it needs and read
# the roles' variables anew (45 and 80 ms, measured). The first task of a playbook is this one, and what its plugin
# loads is there in all others.
from ansible_collections.agentfleet.vm.plugins.filter import (  # noqa: F401
    containers,
    deploy,
    finding_lines,
    fleet_status,
    gates,
    log_table,
    restore,
    routine_report,
    service,
    teardown_lines,
)
from ansible_collections.agentfleet.vm.plugins.filter.fleet import fleet_address, fleet_encrypted
from ansible_collections.agentfleet.vm.plugins.module_utils import host_check
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.server_urls import UrlError, database_of, redis_of
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import TRUE_WORDS
from ansible_collections.agentfleet.vm.plugins.module_utils.tls import Wish, judge_tls
from ansible_collections.agentfleet.vm.plugins.module_utils.topology import Address, judge_topology
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Known, Variable, judge_variables, roles_of
from ansible_collections.agentfleet.vm.plugins.plugin_utils.access import access_to
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import (
    Evaluation,
    find_place,
    role_variables,
)
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

load_known()
role_variables()
# The first that is asked for has all of Ansible's own loaded (30 ms).
filter_loader.get("default")
test_loader.get("defined")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={"playbook": {"type": "str", "required": True}, "host": {"type": "bool", "default": True}},
        )[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = load_known()
        if wanted["playbook"] not in known.playbooks:
            raise AnsibleError(f"meta/options.yml does not say which options {wanted['playbook']}.yml takes")

        self._vars: dict[str, Any] = task_vars or {}
        self._host = str(self._vars["inventory_hostname"])
        self._groups = [str(group) for group in self._vars["group_names"]]
        self._place = find_place(str(self._vars.get("inventory_dir") or "."))
        self._evaluation = Evaluation(self._templar, self._vars)

        variables = self._evaluation.inventory(self._host)
        findings = self._judge_variables(variables, known, wanted["playbook"])
        if self._host == str(self._vars["ansible_play_hosts_all"][0]):
            findings += self._judge_fleet(variables)
            result["encrypted"] = fleet_encrypted(self._vars["groups"]["all"], self._vars["hostvars"])
        if "edge" in self._groups:
            findings += judge_tls(self._host, self._wish(), self._place.inventory)
        if wanted["host"]:
            findings += self._judge_host(known)
        if "agents" in self._groups:
            findings += self._judge_servers(ask=wanted["host"] and not findings)
        result["findings"] = [finding.to_dict() for finding in findings]
        result["changed"] = False
        return result

    def _judge_variables(self, variables: dict[str, Variable], known: Known, playbook: str) -> list[Finding]:
        defaults = [
            name for role in roles_of(self._groups) for name in known.roles.get(role, {}) if name not in variables
        ]
        lacking = {name: lacks for name in defaults if (lacks := self._evaluation.lacks(name))}
        return judge_variables(self._host, self._groups, variables, lacking, known, playbook, self._place)

    def _judge_fleet(self, variables: dict[str, Variable]) -> list[Finding]:
        groups = {str(group): [str(host) for host in hosts] for group, hosts in self._vars["groups"].items()}
        hostvars = self._vars["hostvars"]
        addresses = {}
        for host in groups["all"]:
            theirs = hostvars[host]
            addresses[host] = Address(
                ssh=str(theirs.get("ansible_host", host)),
                port=int(theirs.get("ansible_port", 22)),
                fleet=fleet_address(host, hostvars),
            )
        first = groups.get("agents", [])[:1]
        given = set(hostvars.raw_get(first[0])) if first else set(variables)
        return judge_topology(groups, addresses, given, self._place.inventory)

    def _judge_host(self, known: Known) -> list[Finding]:
        access = self._access()
        script = host_check.script(self._python(), host_check.DISK_PATHS)
        try:
            answer = self._low_level_execute_command(script)
        except AnsibleConnectionFailure as error:
            return [host_check.judge_connection(self._host, str(error), access)]
        except AnsibleError as error:
            # A password for sudo that is wrong, or needed and not there.
            return [host_check.judge_silence(self._host, str(error), access)]
        report = host_check.parse(answer["stdout"])
        if report is None:
            return [host_check.judge_silence(self._host, answer["stderr"] or answer["stdout"], access)]
        values = {
            name: self._evaluation.value(name, option.default)
            for role in roles_of(self._groups)
            for name, option in known.roles.get(role, {}).items()
            if name.endswith(("_name", "_port", "_instances", "_repository"))
        }
        minimum = "fleet_minimum_free_mb"
        findings = host_check.judge_host(
            self._host,
            report,
            host_check.claims(self._groups, values, monitored=bool(self._vars["groups"].get("monitoring"))),
            int(self._evaluation.value(minimum, known.fleet[minimum].default)),
            int(time.time()),
            bool(self._task.check_mode),
            self._place.inventory,
            access,
        )
        if "edge" in self._groups:
            name = str(self._evaluation.value("_balancer_backend", "agent"))
            findings += host_check.judge_services(self._host, name, self._wants(), report.services)
            if str(self._evaluation.value("fleet_tls_change", False)).lower() not in TRUE_WORDS:
                findings += host_check.judge_encryption(self._host, name, self._wants(), report.services)
        return findings

    def _judge_servers(self, ask: bool) -> list[Finding]:
        """What keeps the service from a PostgreSQL or Redis elsewhere; they are asked from the host itself."""
        findings: list[Finding] = []
        arguments: dict[str, Any] = {}
        for kind, read in (("database", database_of), ("redis", redis_of)):
            url, file = f"agent_{kind}_url", f"agent_{kind}_ca_file"
            try:
                server = read(str(self._evaluation.value(url) or ""))
            except UrlError as error:
                findings.append(Finding(f"'{url}' {error}", "Correct it where it is set", self._host))
                continue
            path = self._at_home(str(self._evaluation.value(file) or ""))
            if path and not os.path.isfile(path):
                text = f"'{file}' is {path}, which is no file on this machine"
                findings.append(Finding(text, "Put it there, or correct the path", self._host))
            elif server.get("sslmode") == "verify-ca" and not path:
                text = f"'{url}' says sslmode=verify-ca, and '{file}' is not set"
                findings.append(Finding(text, "Set it, or say verify-full for the host's own authorities", self._host))
            elif server:
                arguments |= {kind: server, f"{kind}_ca": Path(path).read_text(encoding="utf-8") if path else ""}
        if not ask or not arguments:
            return findings
        told = self._execute_module("agentfleet.vm.servers", arguments, task_vars=self._vars)
        if told.get("failed"):
            text = f"cannot ask the service's database and Redis: {told.get('msg', 'no reason given')}"
            return [*findings, Finding(text, "Mend it there", self._host)]
        return [*findings, *(Finding(found["text"], found["mend"], self._host) for found in told["findings"])]

    def _at_home(self, path: str) -> str:
        """A path on the controller; a relative one is the inventory's."""
        home = str(self._vars.get("inventory_dir") or ".")
        return os.path.join(home, os.path.expanduser(path)) if path else ""

    def _wants(self) -> host_check.Held:
        """What the service shall have on this edge."""
        servers = self._evaluation.value("_balancer_servers", [])
        return host_check.Held(
            port=host_check.number({"port": self._evaluation.value("balancer_port")}, "port", 0),
            site=str(self._evaluation.value("edge_server_name", "")),
            addresses=frozenset(str(server["address"]) for server in servers),
            encrypted=fleet_encrypted(self._vars["groups"]["all"], self._vars["hostvars"]),
        )

    def _wish(self) -> Wish:
        """How the edge shall come by its certificate."""

        def value(name: str) -> str:
            return str(self._evaluation.value(name) or "")

        files = {
            name: self._at_home(value(name))
            for name in ("tls_certificate_file", "tls_key_file", "tls_acme_ca")
            if value(name)
        }
        names = self._evaluation.value("tls_names")
        return Wish(
            mode=value("tls_mode"),
            # A value of a wrong type has its own line already.
            names=[str(name) for name in names] if isinstance(names, (list, tuple)) else [],
            mail=value("tls_mail"),
            staging=value("tls_staging").lower() in TRUE_WORDS,
            directory=value("tls_acme_directory"),
            files=files,
            absent=frozenset(name for name, path in files.items() if not os.path.isfile(path)),
        )

    def _python(self) -> str:
        path = str(self._evaluation.value("ansible_python_interpreter", "/usr/bin/python3"))
        return path if path.startswith("/") else "/usr/bin/python3"

    def _access(self) -> host_check.Access:
        return access_to(self._host, self._evaluation, self._place)
