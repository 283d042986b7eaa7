"""Backups and logs as the tests of these decisions want them."""

from __future__ import annotations

from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Backup, Catalogue
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.wal import Archive, Segment

SEGMENT = 16 * 1024 * 1024


def backup(label: str, at: float, number: int = 1, timeline: int = 1, **more: Any) -> Backup:
    """One that was made at AT, and needs the segment of that number."""
    kind = {"F": "full", "D": "diff", "I": "incr"}[label[-1]]
    name = Segment(timeline, number).name
    place = f"{number * SEGMENT >> 32:X}/{number * SEGMENT & 0xFFFFFFFF:X}"
    return Backup(label, kind, at - 1, at, 1000, 100, name, name, place, **more)


def catalogue(*backups: Backup) -> Catalogue:
    return Catalogue(backups, 7, "17", "17-1")


def log(first: int, last: int, timeline: int = 1, without: tuple[int, ...] = (), every: float = 60.0) -> Archive:
    """Segments FIRST to LAST, each of which came EVERY so many seconds after the one before."""
    numbers = [number for number in range(first, last + 1) if number not in without]
    return Archive({Segment(timeline, number): number * every for number in numbers}, {})
