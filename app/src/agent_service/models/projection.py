"""What a month will have cost at its end, and how that was reckoned."""

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

# A week, so that weekends weigh what they weigh.
DAYS = 7


@dataclass(frozen=True, slots=True)
class Projection:
    spent: Decimal
    # None where there is nothing to go by yet.
    total: Decimal | None
    how: str


def project(costs: Mapping[date, Decimal], month: date, today: date) -> Projection:
    """The month's sum, and the mean of the last complete days for each day that is left.

    Of today, what is missing to the mean is taken to come. COSTS may reach back into the month before; its first
    day is taken for the day on which the service began.
    """
    first = month.replace(day=1)
    last = first.replace(day=monthrange(first.year, first.month)[1])
    spent = sum((cost for day, cost in costs.items() if first <= day <= last), Decimal(0))
    if today > last:
        return Projection(spent, spent, "the month is over")
    if today < first:
        return Projection(spent, None, "the month has not begun")
    began = min((day for day in costs if day < today), default=None)
    if began is None:
        return Projection(spent, None, "no complete day yet")
    days = min(DAYS, (today - began).days)
    window = [costs.get(today - timedelta(days=back), Decimal(0)) for back in range(1, days + 1)]
    mean = sum(window, Decimal(0)) / days
    left_today = max(Decimal(0), mean - costs.get(today, Decimal(0)))
    total = spent + left_today + mean * (last - today).days
    plural = "s" if days > 1 else ""
    return Projection(spent, total, f"mean of the last {days} complete day{plural}, for each day that is left")
