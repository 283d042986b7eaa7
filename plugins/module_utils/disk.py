"""Writing to a host's disk so that what is there is whole, whenever the power goes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have PATH's file system on the disk before something says that it is whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes, mode: int) -> None:
    """Replace PATH at once."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def link(path: Path, target: str) -> None:
    """Point PATH at TARGET at once."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
