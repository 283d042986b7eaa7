"""Putting a release into a slot, and starting, migrating, stopping and retiring slots, on the host itself.

Whatever is written is whole or not there: releases are renamed into place, what they run in is marked or named when it
is whole, and a slot's slot.json comes last. What an interrupted run left is found by that and made anew.
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ansible_collections.agentfleet.vm.plugins.module_utils import disk, host_facts, observation, runtimes, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.advice import GRACE_SECONDS, Said, advise
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import unpack
from ansible_collections.agentfleet.vm.plugins.module_utils.director.store import removable
from ansible_collections.agentfleet.vm.plugins.module_utils.identity import redact
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import GENERATION, Wanted
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import (
    SLOTS,
    WORKER_OFFSET,
    Service,
    instance_names,
    ports,
    render_environment,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.venvs import same_interpreter

# Installed by role agent.
SLOT_COMMAND = "/usr/local/lib/agentfleet/agentfleet-slot"
JOURNAL_LINES = 20
READY = "/ready"
# A start may fail once for want of something that is itself starting; a third time it is the release.
RESTARTS_ALLOWED = 2


class HostError(Exception):
    """What could not be done on this host, and why."""


@contextlib.contextmanager
def locked(service: Service, seconds: int) -> Iterator[None]:
    """The host's own lock: one writer at a time, whoever started it."""

    def expired(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    with service.lock.open("a+") as file:
        before = signal.signal(signal.SIGALRM, expired)
        signal.alarm(max(1, seconds))
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except TimeoutError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise HostError(f"{holder} still works on {service.name} after {seconds} s; try again later") from error
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def compile_bytecode(python: str, directory: Path) -> None:
    """Spares the first start from compiling; the service itself cannot write here."""
    if same_interpreter(python):
        compileall.compile_dir(directory, quiet=2)
    else:
        systemd.run(python, "-m", "compileall", "-qq", str(directory))


def clear_unfinished(service: Service) -> None:
    """Remove what interrupted runs left."""
    if service.releases.is_dir():
        for path in service.releases.glob(".new-*"):
            shutil.rmtree(path)
    for runtime in runtimes.all_runtimes(service).values():
        runtime.clear_unfinished()


def install_release(service: Service, release: str, archive: Path, python: str) -> None:
    """Unpack a verified artifact; renamed into place when whole."""
    unfinished = service.releases / f".new-{release}"
    manifest = unpack(archive.read_bytes(), unfinished)
    if manifest["id"] != release:
        raise HostError(f"the artifact is release {manifest['id']}, not {release}")
    compile_bytecode(python, unfinished)
    disk.sync(unfinished)
    final = service.releases / release
    if final.exists():
        # Not what its id says any more; a release that was whole would not be installed again.
        shutil.rmtree(final)
    unfinished.rename(final)
    os.utime(final)


def write_slot(service: Service, slot: str, wanted: Wanted, port: int, python: str) -> None:
    """Make the slot what is wanted. Its record goes first and comes back last."""
    directory = service.slot(slot)
    directory.mkdir(mode=0o755, exist_ok=True)
    (directory / "slot.json").unlink(missing_ok=True)
    disk.link(directory / "release", f"../../releases/{wanted.release}")
    variables = {**wanted.environment, "AGENT_RELEASE": wanted.release, "AGENT_SLOT": slot}
    disk.write(directory / "environment", render_environment(variables).encode(), 0o600)
    write_credentials(service, slot, wanted)
    for stale in (*directory.glob(f"{slot}-*.env"), *directory.glob(f"worker-{slot}-*.env")):
        stale.unlink()
    names = instance_names(slot, wanted.instances)
    for name, number in zip(names, ports(slot, port, wanted.instances), strict=True):
        disk.write(directory / f"{name}.env", render_environment({"PORT": str(number)}).encode(), 0o600)
        shown = {"AGENT_WORKER_METRICS_PORT": str(number + WORKER_OFFSET)}
        disk.write(directory / f"worker-{name}.env", render_environment(shown).encode(), 0o600)
        disk.link(directory.parent / name, slot)
    for kind, runtime in runtimes.all_runtimes(service).items():
        if kind != wanted.runtime:
            runtime.detach(slot)
    attached = observation.runtime_of(service, wanted, python).attach(slot, wanted.release, variables, names)
    record = {
        "release": wanted.release,
        "identity": observation.wanted_identity(service, wanted),
        "instances": wanted.instances,
        "runtime": wanted.runtime,
        "units": observation.units_of(service, wanted),
        **attached,
        "installed_at": int(time.time()),
    }
    disk.write(directory / "slot.json", json.dumps(record, indent=2).encode() + b"\n", 0o600)


def write_credentials(service: Service, slot: str, wanted: Wanted) -> None:
    """Encrypted files; one that holds its secret already is left, since encrypting anew would change it."""
    directory = service.slot(slot) / "credentials"
    directory.mkdir(mode=0o700, exist_ok=True)
    present = observation.read_secrets(service, slot)
    for path in directory.iterdir():
        if path.name not in wanted.secrets:
            path.unlink()
    for name, secret in wanted.secrets.items():
        if present.get(name) != secret:
            disk.write(directory / name, systemd.encrypt(observation.credential_name(name), secret), 0o600)


def install(
    service: Service, slot: str, wanted: Wanted, port: int, archive: Path | None, python: str
) -> dict[str, Any]:
    """Bring release, what it runs in and the slot to what is wanted; what is there and whole stays."""
    clear_unfinished(service)
    did = []
    if not observation.release_intact(service, wanted.release):
        if archive is None:
            return {"needs_artifact": True, "did": []}
        install_release(service, wanted.release, archive, python)
        did.append("release")
    try:
        did += observation.runtime_of(service, wanted, python).make(wanted.release)
    except systemd.CommandError as error:
        advice = advise(Said(lines=str(error)))
        if not advice:
            raise
        raise HostError(f"its dependencies cannot be installed: {advice}\n{error}") from error
    if not observation.holds(service, slot, wanted, intact=True):
        cancel_stop(service, slot)
        stop_units(service, slot)
        write_slot(service, slot, wanted, port, python)
        did.append("slot")
    return {"needs_artifact": False, "did": did}


def change_of(service: Service, slot: str, wanted: Wanted) -> dict[str, Any]:
    """What installing would change in the slot, by name: for the diff, which must not show a secret."""
    record = observation.read_record(service, slot)
    environment = observation.read_environment(service, slot)
    secrets = observation.read_secrets(service, slot)

    def described(release: object, instances: object, names: Iterable[str], sealed: Iterable[str]) -> str:
        lines = [f"release: {release or 'none'}", f"instances: {instances or 0}"]
        lines += [f"variable: {name}" for name in sorted(names)]
        lines += [f"secret: {name}" for name in sorted(sealed)]
        return "\n".join(lines) + "\n"

    def marked(before: dict[str, str], after: dict[str, str]) -> list[str]:
        return [f"{name} (new value)" if name in before and before[name] != after[name] else name for name in after]

    return {
        "before_header": f"slot {slot}",
        "after_header": f"slot {slot}",
        "before": described(record.get("release"), record.get("instances"), environment, secrets),
        "after": described(
            wanted.release,
            wanted.instances,
            marked(environment, dict(wanted.environment)),
            marked(secrets, dict(wanted.secrets)),
        ),
    }


def active_instances(service: Service, slot: str) -> list[str]:
    units = observation.unit_states(service)
    return sorted(
        name
        for name, unit in units.items()
        if name.startswith(f"{slot}-") and unit.get("ActiveState") not in ("inactive", "failed")
    )


def boot_instances(service: Service, slot: str) -> list[str]:
    """Instances that start at boot."""
    wants = service.unit_file.parent / "multi-user.target.wants"
    names = (path.name for path in wants.glob(service.slot_pattern(slot)))
    return sorted(name.split("@", 1)[1].removesuffix(".service") for name in names)


def stop_units(service: Service, slot: str) -> None:
    """Stop every instance of the slot and its worker; each ends what is under way first, as long as its unit allows."""
    shown = systemd.show(service.units_of_slot(slot), "ActiveState")
    active = sorted(unit for unit, state in shown.items() if state.get("ActiveState") not in ("inactive", "failed"))
    if active:
        systemd.systemctl("stop", *active)


def disable(service: Service, slot: str) -> bool:
    names = boot_instances(service, slot)
    if names:
        systemd.systemctl("disable", "--quiet", "--no-reload", *(service.unit(name) for name in names))
    return bool(names)


def start_at_boot(service: Service, slot: str, names: Sequence[str], check: bool = False) -> bool:
    """Have these instances, and no other of the slot, start at boot."""
    if set(boot_instances(service, slot)) == set(names):
        return False
    if not check:
        disable(service, slot)
        systemd.systemctl("enable", "--quiet", "--no-reload", *(service.unit(name) for name in names))
    return True


def keep(service: Service, slot: str, check: bool = False) -> bool:
    """Have a slot that runs start at boot, and no timer stop it."""
    pending = stop_pending(service, slot) if check else cancel_stop(service, slot)
    return start_at_boot(service, slot, active_instances(service, slot), check) or pending


def stop_pending(service: Service, slot: str) -> bool:
    timer = f"{service.stop_timer(slot)}.timer"
    return systemd.show([timer], "ActiveState").get(timer, {}).get("ActiveState") == "active"


def cancel_stop(service: Service, slot: str) -> bool:
    """The slot is used again: it must not be stopped by an earlier deploy's timer."""
    pending = stop_pending(service, slot)
    if pending:
        systemd.systemctl("stop", f"{service.stop_timer(slot)}.timer")
    return pending


@dataclass(frozen=True)
class Asking:
    """Whom a host asks before it stops a slot: the EDGES' figures, in which it is HOST. What is under way may last
    DRAIN_SECONDS more.
    """

    host: str
    edges: Sequence[str]
    drain_seconds: int


def stop_later(service: Service, slot: str, minutes: int, asking: Asking, failed: bool = False) -> None:
    """Leave the stopping to the host, which does it with or without whoever deploys.

    By then the slot may have traffic again, of which the edges know: so what runs then looks first, again and again.
    """
    if not minutes and not asking.edges:
        systemd.systemctl("stop", "--no-block", *service.units_of_slot(slot))
        return
    systemd.run(
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={service.stop_timer(slot)}",
        f"--description=Stop {service.name}'s slot {slot} when nothing needs it any more",
        f"--on-active={minutes * 60 or 1}s",
        f"--on-unit-active={'1m' if minutes else '5s'}",
        "--timer-property=AccuracySec=1s",
        SLOT_COMMAND,
        service.name,
        slot,
        asking.host,
        "failed" if failed else "warm",
        str(int(time.time()) + asking.drain_seconds),
        *asking.edges,
    )


def check_generation(generation: int) -> None:
    """Refuse a writer whose lease is no longer the fleet's; a newer one is noted first. 0 is none at all."""
    noted = GENERATION.read_text().strip() if GENERATION.exists() else "0"
    newest = int(noted) if noted.isdecimal() else 0
    if generation and generation < newest:
        raise HostError(
            f"this run's lease ({generation}) is over: {newest} wrote here since; nothing was changed, run it again"
        )
    if generation > newest:
        GENERATION.parent.mkdir(parents=True, exist_ok=True)
        disk.write(GENERATION, f"{generation}\n".encode(), 0o644)


def gave_up(units: dict[str, dict[str, str]], restarts_before: dict[str, int]) -> str:
    """The unit that will not become ready however long one waits, with the reason."""
    for name, unit in units.items():
        restarts = int(unit.get("NRestarts") or 0) - restarts_before.get(name, 0)
        if unit.get("ActiveState") == "failed":
            return f"{name} failed ({unit.get('Result')})"
        if restarts > RESTARTS_ALLOWED:
            return f"{name} ended {restarts} times"
    return ""


def start(
    service: Service,
    slot: str,
    address: str,
    slot_ports: Sequence[int],
    ready_seconds: int,
    secrets: Iterable[str],
    authority: str = "",
) -> dict[str, Any]:
    """Start the slot's instances and wait until each says that it is ready."""
    names = instance_names(slot, len(slot_ports))
    units = [service.unit(name) for name in names]
    if service.worker_file.exists():
        units += [service.worker_unit(name) for name in names]
    began = time.time()
    deadline = time.monotonic() + ready_seconds
    changed = cancel_stop(service, slot)
    reload_stale(units)
    shown = systemd.show(units, "ActiveState")
    if any(shown.get(unit, {}).get("ActiveState", "inactive") in ("inactive", "failed") for unit in units):
        # A release that crashed here before has left its units refusing to start.
        systemd.systemctl("reset-failed", *service.units_of_slot(slot))
        systemd.systemctl("start", "--no-block", *units)
        changed = True
    changed = start_at_boot(service, slot, names) or changed
    shown = systemd.show(units, "NRestarts")
    restarts = {unit: int(state.get("NRestarts") or 0) for unit, state in shown.items()}
    waiting = dict(zip(names, slot_ports, strict=True))
    answers: dict[str, str] = {}
    contradicts_since = 0.0
    while True:
        for name, number in list(waiting.items()):
            status, text = host_facts.ask(address, number, READY, 5, authority)
            if status == HTTPStatus.OK:
                del waiting[name]
            else:
                answers[name] = f"{status} {text}" if status else text
        shown = systemd.show(units, "ActiveState", "NRestarts", "Result")
        # Another process may answer on the port of a unit that could not have it.
        if not waiting and all(unit.get("ActiveState") == "active" for unit in shown.values()):
            return {"changed": changed, "seconds": round(time.time() - began, 1)}
        now = time.monotonic()
        contradicts_since = (contradicts_since or now) if contradicts(waiting, answers) else 0.0
        lost = gave_up(shown, restarts)
        if contradicts_since and now - contradicts_since > GRACE_SECONDS:
            lost = lost or "it will not"
        if lost or now > deadline:
            reason = lost or f"not ready within {ready_seconds} s"
            last = systemd.journal(units, began, JOURNAL_LINES)
            said = Said(
                app=observation.read_environment(service, slot).get("AGENT_APP", ""),
                port=slot_ports[0],
                lines=last,
                answers={name: answers[name] for name in waiting if name in answers},
                results=tuple(unit.get("Result", "") for unit in shown.values()),
                unannounced=not waiting
                and any(shown[service.unit(name)].get("ActiveState") != "active" for name in names),
            )
            raise HostError(redact(not_ready(service, reason, said), secrets))
        # Nothing tells when an HTTP server starts to answer other than asking it.
        time.sleep(0.2)


def contradicts(waiting: Collection[str], answers: Mapping[str, str]) -> bool:
    """Whether time alone will hardly make it ready: all answer but systemd waits, or there is no such address."""
    return not waiting or all(answers.get(name, "").startswith(f"{HTTPStatus.NOT_FOUND:d} ") for name in waiting)


def not_ready(service: Service, reason: str, said: Said) -> str:
    answered = "; ".join(f"{READY} of {name}: {answer}" for name, answer in said.answers.items())
    advice = advise(said)
    head = ". ".join(filter(None, [f"{service.name} did not become ready: {advice or reason}", answered]))
    return f"{head}\nIts last lines{f' ({reason})' if advice else ''}:\n{said.lines or '(nothing)'}"


def reload_stale(units: Sequence[str]) -> None:
    """Have systemd read units that changed since it last did, so that what runs is what the files say."""
    if any(unit.get("NeedDaemonReload") == "yes" for unit in systemd.show(units, "NeedDaemonReload").values()):
        systemd.systemctl("daemon-reload")


def migrate(service: Service, slot: str, secrets: Iterable[str]) -> list[str]:
    """Run the release's migration; its last lines, which are the reason where it fails."""
    unit = service.migrate_unit(slot)
    began = time.time()
    reload_stale([unit])
    try:
        systemd.systemctl("start", unit)
    except systemd.CommandError as error:
        said = systemd.journal([unit], began, JOURNAL_LINES) or str(error)
        systemd.systemctl("reset-failed", unit)
        raise HostError(redact(f"the migration of {service.name} failed. Its last lines:\n{said}", secrets)) from error
    return redact(systemd.journal([unit], began, JOURNAL_LINES), secrets).splitlines()


def prune(service: Service, keep: int, also: Iterable[str], python: str, check: bool) -> list[str]:
    """Remove old releases that no slot points at, and what they ran in where none of the others needs it."""
    used = {observation.linked(service, slot, "release") for slot in SLOTS} | set(also)
    gone = removable(observation.installed_releases(service), used, keep)
    kept = [name for name in observation.installed_releases(service) if name not in gone]
    for name in gone if not check else []:
        shutil.rmtree(service.releases / name)
    removed = [f"releases/{name}" for name in gone]
    for runtime in runtimes.all_runtimes(service, python).values():
        removed += runtime.prune(kept, check)
    return removed
