#!/usr/bin/env python3
"""inventories/single and inventories/fleet as init.yml would write them; --check: are they current?"""

from __future__ import annotations

import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()

from ansible_collections.agentfleet.vm.plugins.module_utils import first_inventory as first  # noqa: E402
from ansible_collections.agentfleet.vm.plugins.module_utils.first_answers import completed  # noqa: E402

INVENTORIES = Path(__file__).resolve().parents[2] / "inventories"
HOSTS = {
    "single": {"addresses": "192.0.2.10"},
    "fleet": {
        "addresses": "192.0.2.10,192.0.2.21,192.0.2.22,192.0.2.31",
        "private_addresses": "10.0.0.10,10.0.0.21,10.0.0.22,10.0.0.31",
    },
}


def texts() -> dict[Path, str]:
    written = {}
    for name, hosts in HOSTS.items():
        answers = completed({"domain": "agent.example.com", **hosts})
        written[INVENTORIES / name / first.HOSTS] = first.render_hosts(answers)
        written[INVENTORIES / name / first.MAIN] = first.render_main(answers)
    return written


def main() -> None:
    for path, text in texts().items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(INVENTORIES.parent)} is stale: run make docs")


if __name__ == "__main__":
    main()
