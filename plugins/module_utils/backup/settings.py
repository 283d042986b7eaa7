"""What the backup host and its sources know: the files that role backup writes for their programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

HOME = Path("/etc/agentfleet/backup")
STATE = Path("/var/lib/agentfleet/backup")
# pgBackRest's name for the one cluster of a fleet.
STANZA = "agentfleet"


@dataclass(frozen=True)
class Source:
    """A host that has something to keep, and how the backup host reaches it."""

    host: str
    address: str
    port: int
    local: bool
    what: tuple[str, ...]


@dataclass(frozen=True)
class Retention:
    """How many days, weeks and months have a backup that stays."""

    daily: int = 7
    weekly: int = 4
    monthly: int = 12


@dataclass(frozen=True)
class Postgres:
    """The cluster that is kept."""

    host: str
    version: str
    port: int
    data: str


@dataclass(frozen=True)
class Settings:
    """All of settings.json; see role backup for where each value comes from."""

    fleet: str
    host: str
    repository: Path
    sources: tuple[Source, ...]
    postgres: Postgres | None = None
    redis: str = ""
    retention: Retention = field(default_factory=Retention)
    minimum_free_mb: int = 1024
    archive_timeout: int = 60
    read_checks: tuple[Mapping[str, str], ...] = ()
    s3: Mapping[str, str] | None = None

    def source(self, host: str) -> Source:
        for source in self.sources:
            if source.host == host:
                return source
        known = ", ".join(source.host for source in self.sources)
        raise BackupError(f"{host} is no host of this fleet's backups; there are {known}")

    def kinds(self) -> tuple[str, ...]:
        """What this fleet has to keep, in the order in which it is kept."""
        have = {"postgres": self.postgres is not None, "redis": bool(self.redis), "config": bool(self.sources)}
        return tuple(kind for kind, there in have.items() if there)


def parse(raw: Mapping[str, Any]) -> Settings:
    postgres, redis = raw.get("postgres"), raw.get("redis")
    return Settings(
        fleet=str(raw["fleet"]),
        host=str(raw["host"]),
        repository=Path(raw["repository"]),
        sources=tuple(
            Source(s["host"], s["address"], int(s["port"]), bool(s["local"]), tuple(s["what"])) for s in raw["sources"]
        ),
        postgres=Postgres(postgres["host"], str(postgres["version"]), int(postgres["port"]), postgres["data"])
        if postgres
        else None,
        redis=str(redis["host"]) if redis else "",
        retention=Retention(**{name: int(number) for name, number in raw.get("retention", {}).items()}),
        minimum_free_mb=int(raw.get("minimum_free_mb", 1024)),
        archive_timeout=int(raw.get("archive_timeout", 60)),
        read_checks=tuple(raw.get("read_checks", ())),
        s3=raw.get("s3") or None,
    )


def load(path: Path = HOME / "settings.json") -> Settings:
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        raise BackupError(
            f"{path} is not there: this is no backup host; run: ansible-playbook playbooks/site.yml"
        ) from None
    except PermissionError:
        raise BackupError(f"{path} is root's: run this as root") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{path} cannot be read ({error}); run: ansible-playbook playbooks/site.yml") from error
