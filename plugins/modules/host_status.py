#!/usr/bin/python
"""What one host says of itself for the fleet's status."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: What a host says of itself for the status of the fleet
description:
  - System, disk and, as far as the host has them, the service's slots, the balancer's servers, the current release and
    the certificate. Changes nothing.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  agent:
    description: Whether the host runs the service.
    type: bool
    default: false
  edge:
    description: Whether the host is an edge, with balancer, certificate and release store.
    type: bool
    default: false
  backup:
    description: Whether the host keeps the fleet's backups.
    type: bool
    default: false
  certificate:
    description: The edge's certificate.
    type: path
    default: /etc/agentfleet/tls/agent.crt
  socket:
    description: HAProxy's runtime socket.
    type: path
    default: /run/haproxy/admin.sock
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at an agent host
  agentfleet.vm.host_status:
    name: agent
    agent: true
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
slots:
  description: Release and state of each slot; null on a host that does not run the service.
  type: dict
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
rollout:
  description: What the director has under way; null when there is nothing.
  type: dict
  returned: always
history:
  description: Deploys and rollbacks, the latest last.
  type: list
  elements: dict
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
problems:
  description: What could not be observed, and what mends it.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils.host_view import observe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "agent": {"type": "bool", "default": False},
            "edge": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "certificate": {"type": "path", "default": "/etc/agentfleet/tls/agent.crt"},
            "socket": {"type": "path", "default": haproxy.SOCKET},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **observe(module.params))


if __name__ == "__main__":
    main()
