#!/usr/bin/python
"""Ask a PostgreSQL or Redis elsewhere whether it lets the service in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: servers
short_description: Ask a PostgreSQL or Redis elsewhere whether it lets the service in
description:
  - Resolves the name, connects, verifies TLS as wanted, logs in and asks what the service will need. Changes nothing.
  - Needs nothing but Python on the host, so that it can be asked before anything is installed.
  - Finds and does not fail; no finding has a password in it.
options:
  database:
    description: A PostgreSQL; none is asked unless set.
    type: dict
    suboptions:
      host:
        description: Where it is.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        required: true
      user:
        description: Who logs in.
        type: str
        required: true
      password:
        description: The user's password.
        type: str
        required: true
      name:
        description: The database.
        type: str
      sslmode:
        description: What of TLS is wanted, in libpq's words.
        type: str
  database_ca:
    description: Certificates in PEM by which it is verified; the host's own authorities where it is empty.
    type: str
    default: ""
  redis:
    description: A Redis; none is asked unless set.
    type: dict
    suboptions:
      host:
        description: Where it is.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        required: true
      user:
        description: Who logs in; empty for the user C(default).
        type: str
        required: true
      password:
        description: The user's password.
        type: str
        required: true
      database:
        description: The database's number.
        type: int
      tls:
        description: Whether it is asked over TLS.
        type: bool
  redis_ca:
    description: Certificates in PEM by which it is verified; the host's own authorities where it is empty.
    type: str
    default: ""
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: See whether Redis lets the service in
  agentfleet.vm.servers:
    redis: {host: cache.example.com, port: 6380, database: 0, user: shop, password: "{{ secret }}", tls: true}
"""

RETURN = r"""
findings:
  description: What is wrong (C(text)) and what mends it (C(mend)), one for each server at most.
  type: list
  elements: dict
  returned: always
postgres:
  description: The version of the PostgreSQL that lets the service in.
  type: str
  returned: where one does
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import server_check

# No_log for the whole of it would hide host and user from whoever has to mend them.
SERVER = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "dict", "options": {**SERVER, "name": {"type": "str"}, "sslmode": {"type": "str"}}},
            "database_ca": {"type": "str", "default": ""},
            "redis": {"type": "dict", "options": {**SERVER, "database": {"type": "int"}, "tls": {"type": "bool"}}},
            "redis_ca": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params, findings, version = module.params, [], ""
    try:
        if params["database"]:
            version = server_check.check_postgres(params["database"], params["database_ca"])
    except server_check.Refused as refused:
        findings.append({"text": refused.text, "mend": refused.mend})
    try:
        if params["redis"]:
            server_check.check_redis(params["redis"], params["redis_ca"])
    except server_check.Refused as refused:
        findings.append({"text": refused.text, "mend": refused.mend})
    module.exit_json(changed=False, findings=findings, **({"postgres": version} if version else {}))


if __name__ == "__main__":
    main()
