#!/usr/bin/python
"""Let the backup host fetch what it keeps, and nothing else."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_access
short_description: Keys and files by which the backup host reaches the hosts it keeps, and pgBackRest its other end
description:
  - Every key is let in for one command alone, from one address.
options:
  state:
    description:
      - V(key) makes a key of SSH at O(path) where there is none, and tells its public half.
      - V(source) lets O(key) fetch what O(source) names, as a system user of its own, and tells the host's own key.
      - V(peer) lets O(key) run pgBackRest as the user C(postgres), and has that user know O(known).
      - V(host) writes what the backup host's programs need to know.
    type: str
    choices: [key, source, peer, host]
    required: true
  path:
    description: File of the key.
    type: path
  owner:
    description: Who may read the key.
    type: str
    default: root
  key:
    description: Public half of the key that is let in; empty in a dry run before it was made.
    type: str
    default: ""
    no_log: false
  from:
    description: Address that it comes from.
    type: str
    default: ""
  source:
    description: What of this host is kept, for its program.
    type: dict
    default: {}
  known:
    description: Address, port and key of other hosts; one without a key keeps the one that is known.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Its address in the fleet.
        type: str
        required: true
      port:
        description: Port of its SSH.
        type: int
        required: true
      key:
        description: Its public host key.
        type: str
        default: ""
        no_log: false
  settings:
    description: What the programs of the backup host need to know.
    type: dict
    default: {}
  passphrase:
    description: Passphrase of the repositories.
    type: str
    default: ""
  s3:
    description: Store of the repositories, with its key and secret.
    type: dict
    default: {}
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Make the key with which the backup host comes
  agentfleet.vm.backup_access:
    state: key
    path: /etc/agentfleet/backup/ssh_key
"""

RETURN = r"""
public:
  description: Public half of the key; empty in a dry run before it was made.
  type: str
  returned: when state is key
host_key:
  description: The host's own public key of SSH.
  type: str
  returned: when state is source
"""

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import backup_access as access
from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError, run

SETTINGS = Path(access.SETTINGS)
HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key.pub")
HOME = Path("/var/lib/agentfleet-backup")
SUDOERS = Path("/etc/sudoers.d/agentfleet-backup")


class Files:
    """Files as they shall be; what differs is written unless this is a dry run, and its difference told."""

    def __init__(self, check: bool) -> None:
        self.check = check
        self.changed: list[str] = []

    def have(self, path: Path, text: str, mode: int, owner: str = "root") -> None:
        before = path.read_text(errors="replace") if path.exists() else ""
        # In a dry run the user may be only about to be made.
        known = user(owner)
        status = path.stat() if path.exists() else None
        right = (
            status is not None and known is not None and (status.st_uid, status.st_mode & 0o777) == (known.pw_uid, mode)
        )
        if before == text and right:
            return
        self.changed.append(str(path))
        if self.check:
            return
        assert known is not None, f"{owner} is no user of this host"
        disk.write(path, text.encode(), mode)
        os.chown(path, known.pw_uid, known.pw_gid)

    def directory(self, path: Path, mode: int, owner: str = "root") -> None:
        known = user(owner)
        status = path.stat() if path.is_dir() else None
        if status is not None and known is not None and (status.st_uid, status.st_mode & 0o777) == (known.pw_uid, mode):
            return
        self.changed.append(f"{path}/")
        if self.check:
            return
        assert known is not None, f"{owner} is no user of this host"
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, known.pw_uid, known.pw_gid)


def user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def make_key(path: Path, owner: str, files: Files) -> dict[str, Any]:
    files.directory(SETTINGS, 0o755)
    public = path.with_name(f"{path.name}.pub")
    if not (path.exists() and public.exists()):
        files.changed.append(str(path))
        if files.check:
            return {"public": ""}
        path.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", access.MARK, "-f", str(path))
    known = user(owner)
    if known is not None and path.stat().st_uid != known.pw_uid and not files.check:
        files.changed.append(str(path))
        os.chown(path, known.pw_uid, known.pw_gid)
    return {"public": public.read_text().strip()}


def let_in_host(wanted: dict[str, Any], files: Files) -> dict[str, Any]:
    files.directory(SETTINGS, 0o755)
    if user(access.USER) is None:
        files.changed.append(f"user {access.USER}")
        if not files.check:
            shell = ("--system", "--home-dir", str(HOME), "--no-create-home", "--shell", "/bin/sh", access.USER)
            run("useradd", *shell)
    files.directory(HOME, 0o755)
    files.directory(HOME / ".ssh", 0o755)
    line = access.authorized(access.SOURCE, wanted["from"], wanted["key"] or "- -")
    # Root's: the user that comes by it cannot let in others.
    files.have(HOME / ".ssh/authorized_keys", f"{line}\n", 0o644)
    if shutil.which("sudo") or not files.check:
        files.have(SUDOERS, access.SUDO, 0o440)
    files.have(SETTINGS / "source.json", json.dumps(wanted["source"], indent=1, sort_keys=True) + "\n", 0o600)
    return {"host_key": HOST_KEY.read_text().strip() if HOST_KEY.exists() else ""}


def let_in_peer(wanted: dict[str, Any], files: Files) -> dict[str, Any]:
    home = user("postgres")
    if home is None and not files.check:
        raise CommandError("this host has no user postgres: PostgreSQL is not installed")
    ssh = Path(home.pw_dir if home else "/var/lib/postgresql") / ".ssh"
    files.directory(ssh, 0o700, "postgres")
    keys = ssh / "authorized_keys"
    line = access.authorized(access.PEER, wanted["from"], wanted["key"] or "- -")
    files.have(keys, access.with_line(keys.read_text() if keys.exists() else "", line), 0o600, "postgres")
    know(SETTINGS / "postgres_known_hosts", wanted, files)
    text = access.ssh_config(f"{SETTINGS}/postgres_ssh_key", f"{SETTINGS}/postgres_known_hosts")
    files.have(SETTINGS / "postgres_ssh_config", text, 0o644)
    return {}


def know(path: Path, wanted: dict[str, Any], files: Files) -> None:
    before = path.read_text() if path.exists() else ""
    files.have(path, access.known_hosts(before, wanted["known"]), 0o644)


def refuse_another_key(path: Path, passphrase: str, repository: Path) -> None:
    """What was kept can be read with the key alone that it was kept with: that one is not overwritten."""
    kept = path.read_text().strip() if path.exists() else ""
    if kept and kept != passphrase and (repository / "files/config").exists():
        raise CommandError(
            f"backup_key is not the one that the backups in {repository} were made with: set that one again, or move "
            f"{repository} and {path} away to begin anew with another"
        )


def be_host(wanted: dict[str, Any], files: Files) -> dict[str, Any]:
    refuse_another_key(SETTINGS / "key", wanted["passphrase"], Path(wanted["settings"]["repository"]))
    know(SETTINGS / "known_hosts", wanted, files)
    files.have(SETTINGS / "ssh_config", access.ssh_config(f"{SETTINGS}/ssh_key", f"{SETTINGS}/known_hosts"), 0o644)
    settings = wanted["settings"]
    files.have(SETTINGS / "settings.json", json.dumps(settings, indent=1, sort_keys=True) + "\n", 0o600)
    files.have(SETTINGS / "key", f"{wanted['passphrase']}\n", 0o600)
    s3 = wanted["s3"] or {}
    if s3:
        text = f"AWS_ACCESS_KEY_ID={s3['key']}\nAWS_SECRET_ACCESS_KEY={s3['secret']}\n"
        files.have(SETTINGS / "s3.env", f"{text}AWS_DEFAULT_REGION={s3.get('region') or 'us-east-1'}\n", 0o600)
    else:
        files.directory(Path(settings["repository"]), 0o755)
        if settings.get("postgres"):
            files.directory(Path(settings["repository"]) / "postgres", 0o750, "postgres")
    files.directory(Path("/var/lib/agentfleet/backup"), 0o700)
    return {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["key", "source", "peer", "host"], "required": True},
            "path": {"type": "path"},
            "owner": {"type": "str", "default": "root"},
            # Public halves, which Ansible would take for secrets by their name.
            "key": {"type": "str", "default": "", "no_log": False},
            "from": {"type": "str", "default": ""},
            "source": {"type": "dict", "default": {}},
            "known": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "key": {"type": "str", "default": "", "no_log": False},
                },
            },
            "settings": {"type": "dict", "default": {}},
            "passphrase": {"type": "str", "default": "", "no_log": True},
            "s3": {"type": "dict", "default": {}, "no_log": True},
        },
        required_if=[("state", "key", ["path"])],
        supports_check_mode=True,
    )
    wanted, files = module.params, Files(module.check_mode)
    try:
        if wanted["state"] == "key":
            told = make_key(Path(wanted["path"]), wanted["owner"], files)
        else:
            told = {"source": let_in_host, "peer": let_in_peer, "host": be_host}[wanted["state"]](wanted, files)
    except (CommandError, OSError) as error:
        module.fail_json(msg=str(error))
    names = "".join(f"{name}\n" for name in files.changed)
    module.exit_json(changed=bool(files.changed), diff={"before": "", "after": names}, **told)


if __name__ == "__main__":
    main()
