#!/usr/bin/python
"""Boot, power off or remove the local hosts of a lab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_hosts
short_description: Boot, power off or remove local systemd hosts
description:
  - V(up) makes the bridge and boots what does not run, on the disks that an earlier boot left.
  - V(off) pulls the plug and keeps the disks. V(down) ends the hosts and removes disks, bridge and rules.
  - Finds its processes by the directory they run in, and never touches anything else.
options:
  state:
    description: What the hosts are to be.
    type: str
    choices: [up, "off", down]
    default: up
  name:
    description: The lab's name; at most eleven letters, digits or dashes.
    type: str
    required: true
  network:
    description: IPv4 network of the lab's bridge; its first address is the controller's.
    type: str
    required: true
  network6:
    description: IPv6 network of the lab's bridge.
    type: str
    required: true
  directory:
    description: Where the lab keeps what it makes.
    type: path
    required: true
  suites:
    description: The hosts' names, and the Debian release that each boots.
    type: dict
    default: {}
  addresses:
    description: The hosts' names, and the IPv4 address of each; the IPv6 address ends in the same number.
    type: dict
    default: {}
  images:
    description: Root file system of each suite.
    type: dict
    default: {}
  authorized_key:
    description: Public SSH key that may log in as root.
    type: str
    default: ""
  binds:
    description: Directories of the controller that every host shares, outside to inside.
    type: dict
    default: {}
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Remove the lab
  agentfleet.vm.lab_hosts:
    state: down
    name: lab
    network: 10.77.0.0/24
    network6: fd77::/64
    directory: /var/lib/agentfleet-lab
"""

RETURN = r"""
hosts:
  description: Names of the hosts that were booted, powered off or removed.
  type: list
  elements: str
  returned: always
known_hosts:
  description: The hosts' public keys, as SSH's known_hosts wants them.
  type: list
  elements: str
  returned: when state is up
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import lab as labs


def up(lab: labs.Lab, hosts: list[labs.Host], images: dict[str, str], check: bool) -> dict[str, object]:
    waiting = [host.name for host in hosts if not labs.nspawn_processes(lab.root_of(host.name))]
    if check:
        return {"changed": bool(waiting), "hosts": waiting, "known_hosts": []}
    made = labs.network_up(lab)
    booted = labs.hosts_up(lab, hosts, {suite: Path(path) for suite, path in images.items()})
    return {"changed": made or bool(booted), "hosts": booted, "known_hosts": labs.known_hosts_lines(lab, hosts)}


def off(lab: labs.Lab, hosts: list[labs.Host], check: bool) -> dict[str, object]:
    running = [host.name for host in hosts if labs.nspawn_processes(lab.root_of(host.name))]
    if not check:
        for name in running:
            labs.power_off(lab, name)
    return {"changed": bool(running), "hosts": running}


def down(lab: labs.Lab, check: bool) -> dict[str, object]:
    names = labs.known_hosts(lab)
    if check:
        return {"changed": bool(names), "hosts": names}
    removed = [name for name in names if labs.remove_host(lab, name)]
    changed = labs.network_down(lab)
    return {"changed": changed or bool(removed), "hosts": removed}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["up", "off", "down"], "default": "up"},
            "name": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "network6": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "suites": {"type": "dict", "default": {}},
            "addresses": {"type": "dict", "default": {}},
            "images": {"type": "dict", "default": {}},
            "authorized_key": {"type": "str", "default": "", "no_log": False},
            "binds": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        lab = labs.Lab(
            name=wanted["name"],
            network=wanted["network"],
            network6=wanted["network6"],
            directory=Path(wanted["directory"]),
            authorized_key=wanted["authorized_key"],
            binds=tuple(sorted(wanted["binds"].items())),
        )
        addresses = wanted["addresses"]
        hosts = [
            labs.Host(name, suite, addresses[name], labs.address6(wanted["network6"], addresses[name]))
            for name, suite in sorted(wanted["suites"].items())
        ]
        if wanted["state"] == "up":
            result = up(lab, hosts, wanted["images"], module.check_mode)
        elif wanted["state"] == "off":
            result = off(lab, hosts, module.check_mode)
        else:
            result = down(lab, module.check_mode)
    except labs.LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
