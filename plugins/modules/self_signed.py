#!/usr/bin/python
"""Make a self-signed certificate, and a new one in time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed
short_description: Make a self-signed certificate and renew it in time
description:
  - Makes an elliptic-curve key and a certificate for the given names that signs nothing but itself.
  - Makes both anew when the names change, when it is about to expire, when key and certificate do not match, or when
    an authority issued it.
  - Certificate and key are put in place at once.
options:
  certificate:
    description: Where the certificate lies.
    type: path
    required: true
  key:
    description: Where its private key lies, readable by root and O(group).
    type: path
    required: true
  names:
    description: Names and addresses for which it is good.
    type: list
    elements: str
    required: true
  days:
    description: How long it is good.
    type: int
    default: 365
  renew_days:
    description: How many days before its end it is made anew.
    type: int
    default: 30
  group:
    description: Group that may read the key.
    type: str
    default: root
  stand_in:
    description: Whether one that an authority issued is left alone, as far as its key is there.
    type: bool
    default: false
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Make the site's certificate
  agentfleet.vm.self_signed:
    certificate: /etc/agentfleet/tls/agent.crt
    key: /etc/agentfleet/tls/agent.key
    names: [agent.example.com]
    group: ssl-cert
"""

RETURN = r"""
reason:
  description: Why a new one was made, or is to be made; nothing where the old one is good.
  type: str
  returned: always
text:
  description: The certificate as PEM.
  type: str
  returned: when there is one that signed itself
authority:
  description: Whether there is one that an authority issued, and stays.
  type: bool
  returned: always
"""

import grp
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates


def run(wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    path, key = Path(wanted["certificate"]), Path(wanted["key"])
    found, half = certificates.read(path), certificates.public_half(key)
    terms = (wanted["names"], wanted["renew_days"], time.time(), wanted["stand_in"])
    reason = certificates.reason_to_make(found, half, *terms)
    authority = reason is None and found is not None and bool(found.issuer)
    changed = reason is not None
    if not check:
        group = grp.getgrnam(wanted["group"]).gr_gid
        if reason:
            certificates.make(path, key, wanted["names"], wanted["days"], group)
        changed |= certificates.own(key, group, 0o640)
    result: dict[str, Any] = {"changed": changed, "reason": reason or "", "authority": authority}
    if reason:
        result["diff"] = {"before": f"{path}: {reason}\n", "after": f"{path}: good for {', '.join(wanted['names'])}\n"}
    if path.exists() and not authority and not (check and reason):
        result["text"] = path.read_text()
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 365},
            "renew_days": {"type": "int", "default": 30},
            "group": {"type": "str", "default": "root"},
            "stand_in": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        done = run(module.params, module.check_mode)
    except certificates.CertificateError as error:
        module.fail_json(msg=str(error))
    except KeyError:
        module.fail_json(msg=f"there is no group {module.params['group']}; mend it with: apt install ssl-cert")
    module.exit_json(**done)


if __name__ == "__main__":
    main()
