#!/usr/bin/python
"""Sign what the hosts of a fleet ask for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_authority
short_description: Issue certificates of the fleet's own authority to its hosts
description:
  - Runs on the first edge, where the authority's key is and stays. Makes the authority where there is none.
  - Issues a host's certificate where it has none, its names or its key changed, another authority issued it, or
    less than a year of its five is left.
options:
  directory:
    description: Where the authority's key and certificate lie, readable by root alone.
    type: path
    required: true
  name:
    description: Name of the fleet, for people who look at a certificate.
    type: str
    required: true
  requests:
    description: What each host asks, as M(agentfleet.vm.fleet_certificate) returned it there.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description: The host's name in the inventory.
        type: str
        required: true
      names:
        description: Names and addresses by which the others reach it.
        type: list
        elements: str
        required: true
      request:
        description: A certificate request of its key.
        type: str
        required: true
      certificate:
        description: The certificate that it has, if any.
        type: str
        required: true
      authority:
        description: The certificate of the authority that it knows, if any.
        type: str
        required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Sign what the hosts ask for
  agentfleet.vm.fleet_authority:
    directory: /etc/agentfleet/fleet
    name: production
    requests: "{{ ansible_play_hosts | agentfleet.vm.fleet_requests(hostvars) }}"
  delegate_to: edge1
  run_once: true
"""

RETURN = r"""
issued:
  description: By host that needs one, its certificate, the authority's, and why it was issued; others are not in it.
  type: dict
  returned: always
"""

import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import CertificateError
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_authority import Authority

REQUEST = {
    "host": {"type": "str", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "request": {"type": "str", "required": True},
    "certificate": {"type": "str", "required": True},
    "authority": {"type": "str", "required": True},
}


def run(authority: Authority, requests: list[dict[str, Any]], check: bool) -> dict[str, Any]:
    """What is issued; in a dry run, to whom and why."""
    bare = check and shutil.which("openssl") is None
    begun = "there is no authority" if bare else authority.reason_to_make(time.time())
    if begun and not check:
        authority.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority.directory.chmod(0o700)
        authority.make()
    own = "" if begun and check else authority.text()
    issued = {}
    for asked in requests:
        if begun and check:
            reason: str | None = "the fleet has a new authority"
        else:
            reason = authority.reason(asked["request"], asked["certificate"], asked["names"])
        if reason is None and asked["authority"] == own:
            continue
        certificate = asked["certificate"]
        if reason and not check:
            certificate = authority.sign(asked["request"], asked["host"], asked["names"])
        issued[asked["host"]] = {
            "certificate": "" if check else certificate,
            "authority": "" if check else own,
            "reason": reason or "the authority's own was not there",
        }
    lines = [f"{host}: {one['reason']}\n" for host, one in issued.items()]
    return {"changed": bool(begun), "issued": issued, "diff": {"before": "", "after": "".join(lines)} if lines else {}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "requests": {"type": "list", "elements": "dict", "options": REQUEST, "required": True},
        },
        supports_check_mode=True,
    )
    authority = Authority(Path(module.params["directory"]), module.params["name"])
    try:
        done = run(authority, module.params["requests"], module.check_mode)
    except CertificateError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**done)


if __name__ == "__main__":
    main()
