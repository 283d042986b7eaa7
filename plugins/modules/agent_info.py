#!/usr/bin/python
"""What one host knows of the service that it has a part in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_info
short_description: What a host knows of the service that it has a part in
description:
  - Slots, releases, instances with their ports and health, and what was changed by hand, on a host that runs the
    service; the balancer's servers, the current release, figures of the last requests and the certificate on an edge;
    backups and alerts on the hosts that have them. Changes nothing.
  - It needs no options, so it is asked ad hoc, as in C(ansible agents -m agentfleet.vm.agent_info). The playbook
    C(status) asks it of every host.
options:
  name:
    description: Name of the service.
    type: str
    default: agent
  parts:
    description: What the host shall have of the fleet; what it has is found out unless this is given.
    type: list
    elements: str
    choices: [agent, edge, backup, monitoring]
  certificate:
    description: The edge's certificate; the one that role tls makes for the service unless set.
    type: path
  socket:
    description: HAProxy's runtime socket.
    type: path
    default: /run/haproxy/admin.sock
  prometheus:
    description: Where Prometheus answers on the host itself.
    type: str
    default: http://127.0.0.1:9090
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
# Of every agent host, from a shell: ansible agents -m agentfleet.vm.agent_info
- name: Look at the host
  agentfleet.vm.agent_info:
  register: seen

- name: Look at the second service, where it is expected to run
  agentfleet.vm.agent_info:
    name: shop
    parts: [agent]
"""

RETURN = r"""
os:
  description: The operating system.
  type: str
  returned: always
  sample: Debian 13
disk_free_percent:
  description: Free space of the fullest of the file systems of V(/), V(/opt) and V(/var).
  type: int
  returned: always
parts:
  description: What the host has of the fleet.
  type: list
  elements: str
  returned: always
  sample: [agent]
versions:
  description: Debian's version of each installed package that the fleet stands on.
  type: dict
  returned: always
  sample: {"nginx": "1.26.3-3+deb13u1"}
slots:
  description: Release and state of each slot; null on a host that does not run the service.
  type: dict
  returned: always
instances:
  description: >-
    Each process of the service with its C(unit), C(state), C(restarts), C(port) and C(health), which is V(ok) or what
    it says instead; null on a host that does not run the service.
  type: list
  elements: dict
  returned: always
workers:
  description: State of each worker's unit; null on a host that does not run the service.
  type: dict
  returned: always
releases:
  description: Releases on the host, oldest first; null on a host that does not run the service.
  type: list
  elements: str
  returned: always
drift:
  description: What is not as it was put there, a line each; null on a host that does not run the service.
  type: list
  elements: str
  returned: always
host_generation:
  description: Number of the newest lease that wrote on the host; null where none did.
  type: int
  returned: always
traffic:
  description: The balancer's servers; null on a host that is no edge, or when HAProxy does not answer.
  type: dict
  returned: always
release:
  description: The release that the edge's director knows as current.
  type: str
  returned: always
lease:
  description: Who has the fleet's lease, for what, and in how many seconds it ends; null when it is free.
  type: dict
  returned: always
generation:
  description: Number of the fleet's newest lease, as the edge knows it.
  type: int
  returned: always
rollout:
  description: What the director has under way; null when there is nothing.
  type: dict
  returned: always
history:
  description: Deploys and rollbacks, the latest last.
  type: list
  elements: dict
  returned: always
figures:
  description: >-
    Requests of the last C(seconds), the part of them that failed and the 95th percentile of the time to the first byte,
    of all and by slot; null on a host that is no edge.
  type: dict
  returned: always
placed:
  description: The release that the director put into each slot; null on a host that is no edge.
  type: dict
  returned: always
maintenance:
  description: Whether users get the maintenance page; null on a host that is no edge.
  type: bool
  returned: always
certificate_days:
  description: Days until the edge's certificate ends; null where there is none.
  type: int
  returned: always
certificate:
  description: >-
    Of the edge's certificate, C(days) until it ends, its C(issuer), and the C(problem) that keeps an authority from
    renewing it, with C(since) when; null where there is none.
  type: dict
  returned: always
backup:
  description: >-
    How each kind of backup, its rehearsal and the archiving of PostgreSQL's log went last, with C(now); null on a host
    that keeps no backups.
  type: dict
  returned: always
alerts:
  description: Alerts that fire; null on a host without Prometheus.
  type: list
  elements: dict
  returned: always
problems:
  description: What could not be observed, and what mends it.
  type: list
  elements: str
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils.host_view import PARTS, observe

CERTIFICATE = "/etc/agentfleet/tls/{}.crt"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "agent"},
            "parts": {"type": "list", "elements": "str", "choices": list(PARTS)},
            "certificate": {"type": "path"},
            "socket": {"type": "path", "default": haproxy.SOCKET},
            "prometheus": {"type": "str", "default": "http://127.0.0.1:9090"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if os.geteuid() != 0:
        module.fail_json(msg="only root reads what a slot is made of: add --become")
    wanted["certificate"] = wanted["certificate"] or CERTIFICATE.format(wanted["name"])
    module.exit_json(changed=False, **observe(wanted))


if __name__ == "__main__":
    main()
