"""The load on a lab's own site, as its users see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client import Load
from .seen import stored

if TYPE_CHECKING:
    from ..fleet import Fleet


def load_on(fleet: Fleet, rate: float, **options: Any) -> Load:
    """A load on the reference service, whose database says what was done twice; the options are Load's."""
    url, site = f"https://{fleet.address('edge1')}", "agent.lab.test"
    return Load(url, site, fleet.tls(), fleet.secret("api_key"), rate, **{"seen": stored(fleet), **options})
