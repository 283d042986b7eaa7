#!/usr/bin/python
"""Have an authority's certificate in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificate
short_description: Have a certificate from an authority that speaks ACME in place
description:
  - Asks the authority by Debian's certbot, with challenges answered from a directory that a web server shows,
    when there is no certificate yet, when names or authority change, or when it is time to renew.
  - Puts certificate and key in place at once, and reloads what uses them, Nginx only if it accepts them.
  - An authority that does not issue is no failure of the module but told in RV(problem); what was there stays.
options:
  order:
    description: The certificate that is wanted.
    type: dict
    required: true
    suboptions:
      service:
        description: Name of the service, and of the certificate.
        type: str
        required: true
      names:
        description: Host names for which it is good.
        type: list
        elements: str
        required: true
      mail:
        description: Whom the authority writes to.
        type: str
        required: true
      directory:
        description: Address of the authority's directory.
        type: str
        required: true
      webroot:
        description: The directory that the web server shows.
        type: path
        required: true
      certificate:
        description: Where the certificate goes, with the chain behind it.
        type: path
        required: true
      key:
        description: Where its key goes, readable by root and O(order.group).
        type: path
        required: true
      group:
        description: Group that may read the key.
        type: str
        default: root
      renew_days:
        description: How many days before its end it is renewed; a third of its life if that is shorter.
        type: int
        default: 30
      authority:
        description: Certificates, as PEM, by which the directory itself is verified; the system's unless given.
        type: str
        default: ""
      units:
        description: Units that are reloaded, as far as they run.
        type: list
        elements: str
        default: []
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Have the site's certificate
  agentfleet.vm.acme_certificate:
    order:
      service: agent
      names: [agent.example.com]
      mail: admin@example.com
      directory: https://acme-v02.api.letsencrypt.org/directory
      webroot: /var/www/acme
      certificate: /etc/agentfleet/tls/agent.crt
      key: /etc/agentfleet/tls/agent.key
      group: ssl-cert
      units: [nginx.service]
"""

RETURN = r"""
reason:
  description: Why the authority was asked, or is to be asked; nothing where the old one is good.
  type: str
  returned: always
problem:
  description: Why there is no new one; nothing where all is well.
  type: str
  returned: always
authority:
  description: Whether what is served now is from an authority; in a dry run, whether it would be.
  type: bool
  returned: always
"""

import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import acme
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import CertificateError

ORDER: dict[str, Any] = {
    "service": {"type": "str", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "mail": {"type": "str", "required": True},
    "directory": {"type": "str", "required": True},
    "webroot": {"type": "path", "required": True},
    "certificate": {"type": "path", "required": True},
    "key": {"type": "path", "required": True, "no_log": False},
    "group": {"type": "str", "default": "root"},
    "renew_days": {"type": "int", "default": 30},
    "authority": {"type": "str", "default": ""},
    "units": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"order": {"type": "dict", "required": True, "options": ORDER}}, supports_check_mode=True
    )
    order = acme.Order.read(module.params["order"])
    try:
        done = (acme.foresee if module.check_mode else acme.obtain)(order, acme.STATE, time.time())
    except (CertificateError, OSError) as error:
        module.fail_json(msg=str(error))
    except KeyError:
        module.fail_json(msg=f"there is no group {order.group}; mend it with: apt install ssl-cert")
    result: dict[str, Any] = asdict(done)
    if done.changed:
        after = f"{order.certificate}: good for {', '.join(order.names)}, from {order.directory}\n"
        result["diff"] = {"before": f"{order.certificate}: {done.reason or 'another one'}\n", "after": after}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
