"""Disks of a host under test that are as small as one wants, and as full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .fleet import Fleet

DIRECTORY = "/var/tmp"
IMAGE = f"{DIRECTORY}/small.img"


def mounting(directory: str, megabytes: int, name: str = "small") -> str:
    """Shell words that put DIRECTORY on a disk of its own; the host has no device for it until one is made.

    Which one is free is the machine's to say, and another host may take it in between: there are nodes for all.
    """
    image = f"{DIRECTORY}/{name}.img"
    return f"""set -e
command -v mkfs.ext4 >/dev/null || apt-get install -y -qq e2fsprogs >/dev/null 2>&1
test -e /dev/loop-control || mknod /dev/loop-control c 10 237
truncate -s {megabytes}M {image}
mkfs.ext4 -q -m 0 {image}
for number in $(seq 0 31); do test -e /dev/loop$number || mknod /dev/loop$number b 7 $number; done
mount -o loop {image} {directory}
"""


@dataclass(frozen=True)
class SmallDisk:
    fleet: Fleet
    host: str
    directory: str

    def fill(self) -> None:
        done = self.fleet.on(self.host, f"dd if=/dev/zero of={self.directory}/.filler bs=4k status=none")
        assert "No space left" in done.stdout

    def free(self) -> None:
        self.fleet.on(self.host, f"rm -f {self.directory}/.filler").ok()


@contextmanager
def small_disk(fleet: Fleet, host: str, directory: str, then: str = "true") -> Iterator[SmallDisk]:
    """DIRECTORY with its content on a small disk; THEN is run after each change of the disk. The content comes back."""
    # Where the directory's content is as long as the disk lies above it.
    aside = f"{directory}.aside"
    keep = f"mkdir {aside} && cp -a {directory}/. {aside}/"
    # What runs from there keeps its files.
    back = f"rm -f {directory}/.filler && rm -rf {aside} && cp -a {directory} {aside} && umount -l {directory}"
    try:
        fleet.on(host, f"{keep} && {mounting(directory, 32)} cp -a {aside}/. {directory}/ && {then}").ok()
        yield SmallDisk(fleet, host, directory)
    finally:
        fleet.on(
            host,
            f"mountpoint -q {directory} && {back}; rm -rf {aside}/lost+found; cp -a {aside}/. {directory}/;"
            f" rm -rf {aside} {IMAGE}; {then}",
        ).ok()
