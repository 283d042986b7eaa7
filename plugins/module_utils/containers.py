"""A slot's release run in a container: `agent_runtime: docker`.

An image has two layers over its base: the locked dependencies, which all releases with the same lock share, and the
code. A layer gets its name only when it is whole. A slot is a name of an image, too, so what it runs stays as it is
and stays there while releases come and go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pwd
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import disk, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import REQUIREMENTS
from ansible_collections.agentfleet.vm.plugins.module_utils.gates import PERCENT, memory_bytes
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service, render_environment
from ansible_collections.agentfleet.vm.plugins.module_utils.venvs import AUTHORITIES, UV_CACHE, lock_of

LABEL = "agentfleet"
# What a build needs and the image must not keep: the service's own /tmp hides it.
BUILD = "/tmp/build"
VARIABLES = "variables"
SETTINGS = "container.env"
DROP_IN = "runtime.conf"


def docker(*arguments: str) -> str:
    return systemd.run("docker", *arguments).decode(errors="replace").strip()


def tag_of(release: str) -> str:
    """A release's id as the tag of an image, which may hold no plus sign."""
    return release.replace("+", "_")


def user_of(service: Service) -> str:
    """The service's user by number: images do not know its name."""
    user = pwd.getpwnam(service.name)
    return f"{user.pw_uid}:{user.pw_gid}"


def directory(service: Service) -> str:
    """Where an image has the service."""
    return f"/opt/{service.name}"


def bind(source: object, target: str, readonly: bool = True) -> str:
    return f"--mount=type=bind,src={source},dst={target}{',readonly' if readonly else ''}"


def dependency_script(place: str) -> str:
    """What makes the dependencies, each verified by its hash, in an image that need have no more than Python."""
    return "\n".join(
        [
            # As variables of the container they would stay in the image.
            f"export UV_CACHE_DIR={BUILD}/cache SSL_CERT_FILE={BUILD}/authorities.crt HOME={BUILD}",
            "export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 UV_LINK_MODE=copy",
            f"{BUILD}/uv venv --quiet --no-project --python python3 {place}/venv",
            f"{BUILD}/uv pip install --quiet --python {place}/venv/bin/python --require-hashes --compile-bytecode"
            f" --requirement {BUILD}/{REQUIREMENTS}",
        ]
    )


def code_script(place: str) -> str:
    return f"cp -R {BUILD}/release {place}/release\n{place}/venv/bin/python -m compileall -qq {place}/release"


def image_settings(place: str) -> list[str]:
    """What an image of a release says of itself."""
    variables = {
        "PYTHONPATH": f"{place}/release/src",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "SSL_CERT_FILE": AUTHORITIES,
    }
    return [
        *(f"ENV {name}={value}" for name, value in variables.items()),
        f"WORKDIR {place}/release",
        f"ENTRYPOINT {json.dumps([f'{place}/venv/bin/python'])}",
        "CMD []",
    ]


def limits(memory_max: str, cpu_quota: str, memory_mb: int) -> list[str]:
    """Docker's options for a unit's limits. `--cpus` is the same as a quota, but an error where the kernel has none."""
    options = []
    memory = memory_bytes(str(memory_max), int(memory_mb) * 2**20)
    if memory:
        options += [f"--memory={memory}", f"--memory-swap={memory}"]
    percent = PERCENT.fullmatch(str(cpu_quota))
    if percent:
        options += ["--cpu-period=100000", f"--cpu-quota={float(percent[1]) * 1000:.0f}"]
    return options


def unneeded_images(
    shown: Iterable[Mapping[str, Any]], repository: str, releases: Iterable[str], slots: Iterable[str]
) -> list[str]:
    """Names of the images that neither a release that stays nor a slot needs."""
    kept = {f"{repository}:{name}" for name in (*map(tag_of, releases), *slots)}
    images = list(shown)
    dependencies = {
        image["labels"].get(f"{LABEL}.dependencies") for image in images if kept.intersection(image["names"])
    }
    kept |= {f"{repository}-dependencies:{name}" for name in dependencies}
    return sorted(name for image in images for name in image["names"] if name not in kept)


def descendants(pid: int) -> set[int]:
    """PID and the processes below it."""
    found = {pid}
    with contextlib.suppress(OSError, ValueError):
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found |= descendants(int(word))
    return found


@dataclass(frozen=True)
class Containers:
    """Images made on the host from the same artifact; no registry is needed once BASE is there."""

    service: Service
    base: str

    def prepared(self) -> bool:
        return self.service.uv.exists() and self.service.docker.exists() and self._source("service").exists()

    def python_version(self) -> str:
        return ""

    def digests(self) -> dict[str, str]:
        """What a slot runs besides what every runtime has."""
        sources = {name: self._source(name) for name in ("service", "migrate", "worker")}
        found = {
            f"docker {name}": hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for name, path in sources.items()
            if path.exists()
        }
        return {"docker image": self.base, **found}

    def clear_unfinished(self) -> None:
        if self.service.docker.exists():
            self._remove_container(self._builder)

    def make(self, release: str) -> list[str]:
        tag = f"{self.service.name}:{tag_of(release)}"
        if self._image(tag).get("base") == self.base:
            return []
        base = self._base()
        lock = f"{lock_of(self.service, release)}-{base.removeprefix('sha256:')[:12]}"
        did = []
        dependencies = f"{self.service.name}-dependencies:{lock}"
        place = directory(self.service)
        source = self.service.releases / release
        labels = {f"{LABEL}.service": self.service.name, f"{LABEL}.dependencies": lock}
        if not self._image(dependencies):
            mounts = [
                bind(self.service.uv, f"{BUILD}/uv"),
                bind(UV_CACHE, f"{BUILD}/cache", readonly=False),
                bind(AUTHORITIES, f"{BUILD}/authorities.crt"),
                bind(source / REQUIREMENTS, f"{BUILD}/{REQUIREMENTS}"),
            ]
            self._layer(base, dependencies, dependency_script(place), mounts, labels, [])
            did.append("dependencies")
        labels |= {f"{LABEL}.release": release, f"{LABEL}.base": self.base}
        mounts = [bind(source, f"{BUILD}/release")]
        self._layer(dependencies, tag, code_script(place), mounts, labels, image_settings(place))
        return [*did, "image"]

    def attach(self, slot: str, release: str, variables: Iterable[str], instances: Iterable[str]) -> dict[str, str]:
        place = self.service.slot(slot)
        tag = f"{self.service.name}:{tag_of(release)}"
        docker("tag", tag, self._slot_image(slot))
        # Names alone: docker takes each value from its own environment, where systemd put what the slot's file says.
        disk.write(place / VARIABLES, "".join(f"{name}\n" for name in sorted(variables)).encode(), 0o600)
        disk.write(place / SETTINGS, render_environment({"CONTAINER_USER": user_of(self.service)}).encode(), 0o600)
        wanted = self._drop_ins(slot, instances)
        stale = [path for path in self._present(slot) if path not in wanted]
        missing = [path for path, source in wanted.items() if not path.exists() or path.resolve() != source.resolve()]
        self._clear(stale)
        for path in missing:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            disk.link(path, str(wanted[path]))
        if stale or missing:
            systemd.systemctl("daemon-reload")
        return {"image": self._image(tag)["id"]}

    def detach(self, slot: str) -> None:
        present = self._present(slot)
        if present:
            self._clear(present)
            systemd.systemctl("daemon-reload")
        for name in (VARIABLES, SETTINGS):
            (self.service.slot(slot) / name).unlink(missing_ok=True)
        if self.service.docker.exists() and self._image(self._slot_image(slot)):
            docker("image", "rm", self._slot_image(slot))

    def whole(self, slot: str, record: Mapping[str, Any]) -> bool:
        image = self._image(self._slot_image(slot)).get("id")
        instances = [f"{slot}-{number}" for number in range(1, int(record.get("instances", 0)) + 1)]
        same = bool(image) and image == record.get("image")
        return same and all(path.exists() for path in self._drop_ins(slot, instances))

    def processes(self, instances: Iterable[str]) -> set[int]:
        """Those in the containers, which are none of the units' own."""
        found: set[int] = set()
        for name in instances:
            with contextlib.suppress(systemd.CommandError, ValueError):
                pid = int(docker("container", "inspect", "--format={{.State.Pid}}", f"{self.service.name}-{name}"))
                found |= descendants(pid) if pid else set()
        return found

    def prune(self, releases: Iterable[str], check: bool) -> list[str]:
        if not self.service.docker.exists():
            return []
        unneeded = unneeded_images(self._images(), self.service.name, releases, SLOTS)
        if not check:
            if unneeded:
                docker("image", "rm", *unneeded)
            # What lost its name to a newer build.
            docker("image", "prune", "--force", f"--filter=label={LABEL}.service={self.service.name}")
        return [f"images/{name}" for name in unneeded]

    @property
    def _builder(self) -> str:
        return f"{self.service.name}-build"

    def _slot_image(self, slot: str) -> str:
        return f"{self.service.name}:{slot}"

    def _source(self, name: str) -> Path:
        """What role agent says of the containers of a unit."""
        return self.service.root / "docker" / f"{name}.conf"

    def _drop_ins(self, slot: str, instances: Iterable[str]) -> dict[Path, Path]:
        """What makes a unit of the slot run a container, by where systemd reads it."""
        units = {self.service.unit(name): "service" for name in instances}
        if self._source("worker").exists():
            units |= {self.service.worker_unit(name): "worker" for name in instances}
        if self._source("migrate").exists():
            units[self.service.migrate_unit(slot)] = "migrate"
        system = self.service.unit_file.parent
        return {system / f"{unit}.d" / DROP_IN: self._source(name) for unit, name in units.items()}

    def _present(self, slot: str) -> list[Path]:
        system = self.service.unit_file.parent
        patterns = (*self.service.units_of_slot(slot), self.service.migrate_unit(slot))
        return [path for pattern in patterns for path in system.glob(f"{pattern}.d/{DROP_IN}")]

    @staticmethod
    def _clear(drop_ins: Iterable[Path]) -> None:
        for path in drop_ins:
            path.unlink()
            with contextlib.suppress(OSError):
                # Somebody else's settings stay.
                path.parent.rmdir()

    def _image(self, name: str) -> dict[str, str]:
        """What is known of an image; nothing of one that is not there."""
        form = '--format={"id": {{json .Id}}, "labels": {{json .Config.Labels}}}'
        try:
            known = json.loads(docker("image", "inspect", form, name))
        except (systemd.CommandError, ValueError):
            return {}
        return {"id": str(known["id"]), "base": str((known["labels"] or {}).get(f"{LABEL}.base", ""))}

    def _images(self) -> list[dict[str, Any]]:
        """The service's images, each with its names and labels."""
        listed = docker("image", "ls", "--quiet", f"--filter=label={LABEL}.service={self.service.name}").split()
        form = '--format={"names": {{json .RepoTags}}, "labels": {{json .Config.Labels}}}'
        lines = docker("image", "inspect", form, *dict.fromkeys(listed)).splitlines() if listed else []
        return [{"names": image["names"] or [], "labels": image["labels"]} for image in map(json.loads, lines)]

    def _base(self) -> str:
        """The base image's id, fetched where the host does not have it."""
        known = self._image(self.base)
        if not known:
            try:
                docker("pull", "--quiet", self.base)
            except systemd.CommandError as error:
                last = str(error).splitlines()[-1]
                name = shlex.quote(self.base)
                raise systemd.CommandError(
                    f"this host has no image {self.base} and cannot fetch it ({last}). Bring it from a machine that has"
                    f" it, `docker save {name} | ssh HOST docker load`, or make one of a root file system that has"
                    f" Python, `docker import rootfs.tar {name}`; or set agent_docker_image to an image that is there"
                ) from error
            known = self._image(self.base)
        return known["id"]

    def _remove_container(self, name: str) -> None:
        with contextlib.suppress(systemd.CommandError):
            docker("rm", "--force", name)

    def _layer(
        self,
        base: str,
        tag: str,
        script: str,
        mounts: Sequence[str],
        labels: Mapping[str, str],
        settings: Sequence[str],
    ) -> None:
        """One more layer over BASE: what SCRIPT leaves. The image gets its name when it is whole."""
        self._remove_container(self._builder)
        try:
            options = ["--network=host", "--user=0:0", "--entrypoint=/bin/sh", f"--name={self._builder}"]
            docker("run", *options, *mounts, base, "-ec", f"umask 022\n{script}")
            changes = [*(f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()), *settings]
            docker("commit", *(f"--change={change}" for change in changes), self._builder, tag)
        finally:
            self._remove_container(self._builder)
