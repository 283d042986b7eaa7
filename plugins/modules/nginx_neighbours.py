#!/usr/bin/python
"""What others have Nginx serve on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_neighbours
short_description: What others have Nginx serve on a host
description:
  - Reads Nginx's files and changes nothing. The sites in O(own) are not others'.
options:
  own:
    description: Directory of our own sites.
    type: path
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at what others have Nginx serve
  agentfleet.vm.nginx_neighbours:
    own: /etc/nginx/agentfleet
"""

RETURN = r"""
edited:
  description: Whether the main file is neither Debian's nor ours, so that replacing it would lose something.
  type: bool
  returned: always
welcome:
  description: Whether Debian's own welcome page is still switched on.
  type: bool
  returned: always
sites:
  description: Files of others' sites and additions.
  type: list
  elements: str
  returned: always
default_ports:
  description: Ports on which one of others' sites answers for names that nobody knows.
  type: list
  elements: int
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.nginx_neighbours import (
    as_shipped,
    default_ports,
    edited,
    shipped_in,
)

MAIN = Path("/etc/nginx/nginx.conf")
WELCOME = Path("/etc/nginx/sites-enabled/default")
STATUS = Path("/var/lib/dpkg/status")


def read(path: Path) -> str:
    return path.read_text(errors="replace")


def look(own: Path) -> dict[str, object]:
    shipped = shipped_in(read(STATUS)) if STATUS.exists() else {}
    places = [*Path("/etc/nginx/conf.d").glob("*.conf"), *Path("/etc/nginx/sites-enabled").glob("*")]
    others = {str(path): read(path) for path in sorted(places) if path.is_file() and own not in path.resolve().parents}
    text = others.get(str(WELCOME))
    welcome = text is not None and as_shipped(str(WELCOME.resolve()), text, shipped)
    if welcome:
        del others[str(WELCOME)]
    return {
        "edited": edited(str(MAIN), read(MAIN) if MAIN.exists() else None, shipped),
        "welcome": welcome,
        "sites": list(others),
        "default_ports": default_ports(others.values()),
    }


def main() -> None:
    module = AnsibleModule(argument_spec={"own": {"type": "path", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, **look(Path(module.params["own"])))


if __name__ == "__main__":
    main()
