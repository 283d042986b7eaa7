"""Names the vault that cannot be opened: Ansible itself only says that one cannot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import is_encrypted, shorten

PLACES = ("group_vars", "host_vars")


def unreadable(loader: Any, sources: Iterable[str]) -> list[str]:
    """A line for each encrypted file of variables beside the inventory that the given passwords do not open."""
    lines = []
    for path in _encrypted_files(sources):
        try:
            loader.load_from_file(path)
        except AnsibleError:
            given = bool(getattr(loader, "_vault", None) and loader._vault.secrets)
            reason = "the given vault password does not open it" if given else "no vault password is given"
            mend = "add --ask-vault-pass or --vault-password-file FILE"
            lines.append(f"{shorten(path)} is encrypted and {reason}: {mend}")
    return lines


def _encrypted_files(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        directory = source if os.path.isdir(source) else os.path.dirname(source)
        for place in PLACES:
            for parent, _directories, names in os.walk(os.path.join(os.path.abspath(directory), place)):
                yield from filter(is_encrypted, (os.path.join(parent, name) for name in sorted(names)))
