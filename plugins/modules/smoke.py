#!/usr/bin/python
"""Hold a conversation with the service, as a client would."""

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke
short_description: Hold a conversation with the agent service
description:
  - Asks for the health, then holds a conversation of three turns, one of them streamed, and verifies each answer.
  - Verifies the certificate, and needs neither DNS nor C(/etc/hosts) where an address is given.
options:
  url:
    description: The service, such as V(https://agent.example.com).
    type: str
    required: true
  address:
    description: Where to connect to; empty for what the name resolves to.
    type: str
    default: ""
  ca:
    description: PEM file of the authority that the certificate is verified by; empty for the system's.
    type: path
    default: ""
  api_key:
    description: The service's key.
    type: str
    default: ""
  seconds:
    description: How long the service may be silent.
    type: float
    default: 60
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Talk to the service
  agentfleet.vm.smoke:
    url: https://agent.example.com
    api_key: "{{ agent_api_key }}"
"""

RETURN = r"""
lines:
  description: The result for people.
  type: list
  elements: str
  returned: success
result:
  description: What was answered, by which model, and in how many seconds.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import smoke


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "address": {"type": "str", "default": ""},
            "ca": {"type": "path", "default": ""},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "seconds": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        site = smoke.open_site(wanted["url"], wanted["address"], wanted["ca"], wanted["api_key"], wanted["seconds"])
        result = smoke.converse(site)
    except smoke.SmokeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, result=result, lines=smoke.lines(result))


if __name__ == "__main__":
    main()
