"""A host's Docker for tests: images and their names, kept in memory; a layer is what was run to make it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError


@dataclass
class Image:
    labels: dict[str, str] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    base: str = ""
    script: str = ""


def option(words: Sequence[str], name: str) -> list[str]:
    return [word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}=")]


@dataclass
class FakeDocker:
    registry: set[str] = field(default_factory=set)
    images: dict[str, Image] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Image] = field(default_factory=dict)
    made: int = 0

    def add(self, name: str, image: Image | None = None) -> str:
        self.made += 1
        number = f"sha256:{hashlib.sha256(str(self.made).encode()).hexdigest()}"
        self.images[number] = image or Image()
        self.names[name] = number
        return number

    def run(self, words: Sequence[str]) -> bytes:
        plain = [word for word in words if not word.startswith("--")]
        if plain[0] in ("image", "container"):
            return getattr(self, f"{plain[0]}_{plain[1]}")(plain[2:], words)
        return getattr(self, f"do_{plain[0]}")(plain[1:], words)

    def do_pull(self, plain: list[str], _words: Sequence[str]) -> bytes:
        if plain[0] not in self.registry:
            raise CommandError("docker pull: dial tcp: lookup registry: no such host")
        self.add(plain[0])
        return b""

    def do_tag(self, plain: list[str], _words: Sequence[str]) -> bytes:
        self.names[plain[1]] = self.names[plain[0]]
        return b""

    def do_run(self, plain: list[str], words: Sequence[str]) -> bytes:
        name = option(words, "--name")[0]
        base = self.names.get(plain[0], plain[0])
        if name in self.containers or base not in self.images:
            raise CommandError(f"docker run: {name}, {base}")
        self.containers[name] = Image(base=base, script=words[-1])
        return b""

    def do_commit(self, plain: list[str], words: Sequence[str]) -> bytes:
        image = self.containers[plain[0]]
        # As Docker has it, a layer's image says what the one below it says, too.
        image.labels.update(self.images[image.base].labels)
        for change in option(words, "--change"):
            kind, _space, rest = change.partition(" ")
            if kind == "LABEL":
                name, _equals, value = rest.partition("=")
                image.labels[name] = json.loads(value)
            else:
                image.settings.append(change)
        self.add(plain[1], image)
        return b""

    def do_rm(self, plain: list[str], _words: Sequence[str]) -> bytes:
        if self.containers.pop(plain[0], None) is None:
            raise CommandError(f"Error: No such container: {plain[0]}")
        return b""

    def container_inspect(self, plain: list[str], _words: Sequence[str]) -> bytes:
        raise CommandError(f"Error: No such container: {plain[0]}")

    def image_inspect(self, plain: list[str], words: Sequence[str]) -> bytes:
        form, lines = option(words, "--format")[0], []
        for name in plain:
            number = self.names.get(name, name)
            if number not in self.images:
                raise CommandError(f"Error: No such image: {name}")
            mine = [known for known, target in self.names.items() if target == number]
            line = form.replace("{{json .Id}}", json.dumps(number)).replace("{{json .RepoTags}}", json.dumps(mine))
            lines.append(line.replace("{{json .Config.Labels}}", json.dumps(self.images[number].labels)))
        return "\n".join(lines).encode()

    def labelled(self, words: Sequence[str]) -> list[str]:
        name, _equals, value = option(words, "--filter")[0].removeprefix("label=").partition("=")
        return [number for number, image in self.images.items() if image.labels.get(name) == value]

    def image_ls(self, _plain: list[str], words: Sequence[str]) -> bytes:
        return "\n".join(self.labelled(words)).encode()

    def image_rm(self, plain: list[str], _words: Sequence[str]) -> bytes:
        for name in plain:
            del self.names[name]
        return b""

    def image_prune(self, _plain: list[str], words: Sequence[str]) -> bytes:
        for number in self.labelled(words):
            if number not in self.names.values():
                del self.images[number]
        return b""
