"""The daily budget as a decision, and money as whole numbers that Redis can add."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Literal

Mode = Literal["economy", "refuse", "alert"]
Verdict = Literal["free", "alert", "economy", "refuse"]

# A price of a millionth of a dollar for a million tokens is one of these a token.
PICO = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class Budget:
    daily: Decimal
    alert_share: Decimal
    mode: Mode

    def verdict(self, spent: Decimal) -> Verdict:
        """What a day that has cost so much allows."""
        if spent >= self.daily:
            return self.mode
        return "alert" if spent >= self.daily * self.alert_share else "free"


def to_pico(amount: Decimal) -> int:
    """Rounded up: a sum of roundings may warn early, never late."""
    return int((amount * PICO).to_integral_value(ROUND_CEILING))


def from_pico(amount: int) -> Decimal:
    return Decimal(amount) / PICO


def next_midnight(now: datetime) -> datetime:
    """When the UTC day of NOW is over."""
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
