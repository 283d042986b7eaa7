"""What a tier allows, as data."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class Tier(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # Null is unlimited, and asks no Redis.
    requests_per_day: int | None = Field(ge=0)
    tokens_per_request: int = Field(ge=1)


Tiers = Mapping[str, Tier]

DEFAULT_TIER = "free"
MAIN_TIER = "enterprise"
DEFAULT_TIERS: Tiers = {
    DEFAULT_TIER: Tier(requests_per_day=10, tokens_per_request=1_000),
    "pro": Tier(requests_per_day=1_000, tokens_per_request=4_000),
    MAIN_TIER: Tier(requests_per_day=None, tokens_per_request=8_000),
}


def with_defaults(given: object) -> object:
    """Let a setting name only what differs: a tier that is known keeps its other figures."""
    if not isinstance(given, Mapping):
        return given
    known = {name: tier.model_dump() for name, tier in DEFAULT_TIERS.items()}
    return {
        **known,
        **{
            name: {**known.get(name, {}), **figures} if isinstance(figures, Mapping) else figures
            for name, figures in given.items()
        },
    }
