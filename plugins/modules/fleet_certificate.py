#!/usr/bin/python
"""A host's key, and the certificate that the fleet's own authority issued for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_certificate
short_description: Keep a host's key, and put in place what the fleet's authority issued for it
description:
  - Makes the host's own key, which never leaves it, and says with what the authority on the first edge may sign for it.
  - Puts a certificate in place beside the key, in one file, and the authority's own where every program may read it.
options:
  pair:
    description: File of the host's key and certificate, readable by root alone.
    type: path
    required: true
  authority:
    description: File of the authority's certificate.
    type: path
    required: true
  issued:
    description: What M(agentfleet.vm.fleet_authority) issued for this host, to be put in place.
    type: dict
    suboptions:
      certificate:
        description: The host's certificate as PEM; empty in a dry run.
        type: str
        required: true
      authority:
        description: The authority's certificate as PEM; empty in a dry run.
        type: str
        required: true
      reason:
        description: Why it was issued.
        type: str
        required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Have a key, and ask for its certificate
  agentfleet.vm.fleet_certificate:
    pair: /etc/agentfleet/fleet/host.pem
    authority: /etc/ssl/certs/agentfleet-fleet.pem
  register: asked
"""

RETURN = r"""
request:
  description: A certificate request of the host's key; empty in a dry run on a host without one.
  type: str
  returned: when nothing was issued
certificate:
  description: The host's certificate as PEM, if it has one.
  type: str
  returned: when nothing was issued
authority:
  description: The certificate of the authority that the host knows, if any.
  type: str
  returned: when nothing was issued
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils import disk, fleet_authority, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_authority import Pair

UNITS = Path("/etc/systemd/system")
HAPROXY = Path("/etc/haproxy/haproxy.cfg")
# Of role logs, which read the host's certificate when they start.
LOGS = ("agentfleet-logs-store.service", "agentfleet-logs.service")
# By it the units of role agent are known that show the host's certificate.
CREDENTIAL = "LoadCredential=fleet.pem:"


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def ask(path: Path, authority: Path, check: bool) -> dict[str, Any]:
    if check and shutil.which("openssl") is None:
        return {"changed": True, "request": "", "certificate": "", "authority": ""}
    pair = fleet_authority.host_pair(path)
    result: dict[str, Any] = {"changed": not pair.key}
    if not pair.key:
        result["diff"] = {"before": "", "after": f"{path}: a new key\n"}
        if not check:
            pair = Pair(fleet_authority.new_key())
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            disk.write(path, pair.text().encode(), 0o600)
    if path.exists() and not check:
        result["changed"] |= certificates.own(path, 0, 0o600)
    request = fleet_authority.request(pair.key) if pair.key else ""
    return {**result, "request": request, "certificate": pair.certificate, "authority": read(authority)}


def put(path: Path, authority: Path, issued: dict[str, str], check: bool) -> dict[str, Any]:
    diff = {"before": "", "after": f"{path}: a certificate of the fleet's authority ({issued['reason']})\n"}
    if check:
        return {"changed": True, "diff": diff}
    pair = Pair(fleet_authority.host_pair(path).key, issued["certificate"])
    before = read(authority)
    changed = (read(path), before) != (pair.text(), issued["authority"])
    disk.write(path, pair.text().encode(), 0o600)
    follows = bool(before) and before != issued["authority"]
    if follows:
        show()
    # After what may fail: as long as it is the old one, another run does all of this again.
    disk.write(authority, issued["authority"].encode(), 0o644)
    if follows:
        verify()
    if changed:
        present()
    return {"changed": changed, "diff": diff if changed else {}}


def show() -> None:
    """Have instances show what the new authority issued. The one before is lost with its edge, and so are users."""
    units = UNITS.glob("*@.service")
    instances = [f"{unit.stem}*.service" for unit in units if CREDENTIAL in unit.read_text(errors="replace")]
    if instances:
        systemd.systemctl("try-restart", "--no-block", *instances)


def present() -> None:
    """Have what sends and keeps the log show the new certificate; no line is lost for it."""
    units = [unit for unit in LOGS if (UNITS / unit).exists()]
    if units:
        systemd.systemctl("try-restart", "--no-block", *units)


def verify() -> None:
    """Have the edge verify instances by the new authority."""
    if HAPROXY.exists():
        systemd.systemctl("try-reload-or-restart", "haproxy.service")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "pair": {"type": "path", "required": True},
            "authority": {"type": "path", "required": True},
            "issued": {
                "type": "dict",
                "options": {
                    "certificate": {"type": "str", "required": True},
                    "authority": {"type": "str", "required": True},
                    "reason": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    path, authority, issued = Path(module.params["pair"]), Path(module.params["authority"]), module.params["issued"]
    try:
        done = put(path, authority, issued, module.check_mode) if issued else ask(path, authority, module.check_mode)
    except (certificates.CertificateError, systemd.CommandError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**done)


if __name__ == "__main__":
    main()
