#!/usr/bin/python
"""Put a certificate and its key in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_pair
short_description: Put a certificate and its key in place
description:
  - Refuses a pair that does not belong together, does not cover the names or is not good now; nothing is replaced then.
  - Puts both in place at once.
options:
  certificate:
    description: Where the certificate goes.
    type: path
    required: true
  key:
    description: Where its private key goes, readable by root and O(group).
    type: path
    required: true
  chain:
    description: The certificate as PEM, with the chain behind it.
    type: str
    required: true
  private:
    description: The private key as PEM.
    type: str
    required: true
  names:
    description: Names and addresses that it has to cover.
    type: list
    elements: str
    required: true
  warn_days:
    description: How many days before its end to warn.
    type: int
    default: 30
  group:
    description: Group that may read the key.
    type: str
    default: root
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Put the site's certificate in place
  agentfleet.vm.certificate_pair:
    certificate: /etc/agentfleet/tls/agent.crt
    key: /etc/agentfleet/tls/agent.key
    chain: "{{ lookup('ansible.builtin.file', 'agent.pem') }}"
    private: "{{ lookup('ansible.builtin.file', 'agent-key.pem') }}"
    names: [agent.example.com]
    group: ssl-cert
"""

RETURN = r"""
days:
  description: Days until it ends.
  type: int
  returned: always
"""

import grp
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates


def settle(wanted: dict[str, Any], now: float, check: bool) -> dict[str, Any]:
    path, key = Path(wanted["certificate"]), Path(wanted["key"])
    chain, private = (wanted[name].strip() + "\n" for name in ("chain", "private"))
    found = certificates.describe(chain)
    wrong = certificates.reason_to_refuse(found, certificates.public_half_of(private), wanted["names"], now)
    if wrong or found is None:
        raise certificates.CertificateError(wrong or "")
    before = [file.read_text(errors="replace") if file.exists() else "" for file in (path, key)]
    changed = before != [chain, private]
    if not check:
        group = grp.getgrnam(wanted["group"]).gr_gid
        if changed:
            certificates.install(path, key, chain.encode(), private.encode(), group)
        changed |= certificates.own(key, group, 0o640)
    return {"changed": changed, "days": found.days_left(now), "diff": {"before": before[0], "after": chain}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "chain": {"type": "str", "required": True},
            "private": {"type": "str", "required": True, "no_log": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "warn_days": {"type": "int", "default": 30},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    try:
        done = settle(module.params, time.time(), module.check_mode)
    except certificates.CertificateError as error:
        module.fail_json(msg=str(error))
    except KeyError:
        module.fail_json(msg=f"there is no group {module.params['group']}; mend it with: apt install ssl-cert")
    if done["days"] < module.params["warn_days"]:
        module.warn(f"tls_certificate_file ends in {done['days']} days; put a new one there and run site.yml again")
    module.exit_json(**done)


if __name__ == "__main__":
    main()
