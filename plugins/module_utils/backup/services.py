"""The services' units on an agent host, stopped while data are restored under them and started again as they were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, run
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import STATE
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

NOTE = STATE / "stopped.json"
ROOT = Path("/opt")


def names(root: Path = ROOT) -> list[str]:
    """The services that this host has instances of."""
    return sorted(path.parent.name for path in root.glob("*/slots"))


def ordered(units: Iterable[str], services: Iterable[str]) -> list[str]:
    """The services' units in the order in which they are stopped: workers first, which queue nothing for anybody."""
    named = "|".join(re.escape(name) for name in services)
    form = re.compile(rf"({named})(-worker)?@(blue|green)(-\d+)?\.service")
    mine = [(unit, form.fullmatch(unit)) for unit in sorted(set(units))]
    return [unit for unit, match in sorted(((u, m) for u, m in mine if m), key=lambda one: not one[1][2])]


def active() -> list[str]:
    shown = run(["systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "--state=active,activating"])
    return [line.split()[0] for line in shown.splitlines() if line.strip()]


def noted() -> list[str]:
    try:
        return [str(unit) for unit in json.loads(NOTE.read_text())]
    except FileNotFoundError:
        return []


def stop(addresses: Iterable[str], tell: Tell) -> dict[str, Any]:
    """Stop them, and remember which ran; those that an earlier run stopped and nobody started again are among them.

    ADDRESSES are where the data are now; `moved` says that some slot was made for others.
    """
    known = names()
    if not known:
        return {"units": [], "moved": False}
    units = ordered([*active(), *noted()], known)
    NOTE.parent.mkdir(parents=True, exist_ok=True)
    write(NOTE, json.dumps(units).encode(), 0o600)
    workers = [unit for unit in units if "-worker@" in unit]
    for some in (workers, [unit for unit in units if unit not in workers]):
        if some:
            tell(f"stopping {', '.join(some)}")
            run(["systemctl", "stop", *some])
    return {"units": units, "moved": moved(units, set(addresses))}


def moved(units: Iterable[str], addresses: set[str], root: Path = ROOT) -> bool:
    """Whether a slot of these units looks for its data at another address."""
    for unit in units:
        service, _at, instance = unit.partition("@")
        slot = instance.partition(".")[0].partition("-")[0]
        path = root / service.removesuffix("-worker") / "slots" / slot / "environment"
        wanted = re.findall(
            r'(?m)^AGENT_(?:DATABASE|REDIS)_HOST="?([^"\n]+)"?$', path.read_text() if path.exists() else ""
        )
        if addresses and not addresses.issuperset(wanted):
            return True
    return False


def start(tell: Tell) -> dict[str, Any]:
    """Start what was stopped, the other way round; which of it did not come up."""
    units = noted()
    failed = []
    for unit in reversed(units):
        try:
            run(["systemctl", "start", unit])
        except BackupError:
            failed.append(f"{unit} does not start: see journalctl -u {unit}")
    if not failed:
        NOTE.unlink(missing_ok=True)
    if units:
        tell(f"started {', '.join(reversed(units))}")
    return {"units": units, "failed": failed}


def migrate(service: str, release: str, tell: Tell) -> dict[str, Any]:
    """Run the migrations of the release that serves, so that restored data from before them fit its code."""
    for slot in ("blue", "green"):
        if (ROOT / service / "slots" / slot / "release").resolve().name == release:
            if not Path(f"/etc/systemd/system/{service}-migrate@.service").exists():
                return {"migrated": False}
            tell(f"migrating to what {release} knows")
            try:
                run(["systemctl", "start", f"{service}-migrate@{slot}.service"])
            except BackupError as error:
                raise BackupError(
                    f"the migrations of {release} fail on the restored data: see journalctl -u {service}-migrate@{slot}"
                ) from error
            return {"migrated": True}
    raise BackupError(f"no slot of this host has release {release}")
