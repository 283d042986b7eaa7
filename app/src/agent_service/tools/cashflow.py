"""The cash-flow analyst's book: what came in and went out, by user, and what follows from it."""

import datetime
from decimal import Decimal, localcontext
from typing import Annotated, Any, Literal

from pydantic import Field

from agent_service.memory.database import connection
from agent_service.tools.calling import Asking, ToolError
from agent_service.tools.money import Amount, Currency, SignedAmount, cents

_INSERT = """
INSERT INTO cash_entries (user_id, direction, amount, currency, due_on, description)
VALUES (%(user)s, %(direction)s, %(amount)s, %(currency)s, %(due_on)s, %(description)s)
RETURNING id
"""

_LIST = """
SELECT due_on, direction, amount, description
FROM cash_entries
WHERE user_id = %(user)s AND currency = %(currency)s AND due_on BETWEEN %(since)s AND %(until)s
ORDER BY due_on, id
LIMIT 100
"""

_BALANCE = """
SELECT due_on, sum(CASE direction WHEN 'in' THEN amount ELSE -amount END)
FROM cash_entries
WHERE user_id = %(user)s AND currency = %(currency)s AND due_on <= %(until)s
GROUP BY due_on
ORDER BY due_on
"""

Day = datetime.date


async def record_entry(
    direction: Literal["in", "out"],
    amount: Annotated[Amount, Field(gt=0)],
    currency: Currency,
    description: Annotated[str, Field(min_length=1, max_length=200)],
    asker: Asking,
    due_on: Day | None = None,
) -> dict[str, Any]:
    """Record money that came in or went out, or will on a day (today unless told)."""
    day = due_on or _today()
    values = {
        "user": asker.user(),
        "direction": direction,
        "amount": cents(amount),
        "currency": currency,
        "due_on": day,
        "description": description.replace("\x00", ""),
    }
    async with connection(asker.pool) as borrowed:
        row = await (await borrowed.execute(_INSERT, values)).fetchone()
    assert row
    return {"entry": row[0], "direction": direction, "amount": str(cents(amount)), "currency": currency, "on": str(day)}


async def list_entries(since: Day, until: Day, currency: Currency, asker: Asking) -> dict[str, Any]:
    """List the recorded entries of a period, at most 100, with their sums."""
    values = {"user": asker.user(), "currency": currency, "since": since, "until": until}
    async with connection(asker.pool) as borrowed:
        rows = await (await borrowed.execute(_LIST, values)).fetchall()
    amounts = [(direction, amount) for _, direction, amount, _ in rows]
    return {
        "entries": [
            {"on": str(day), "direction": direction, "amount": str(amount), "description": description}
            for day, direction, amount, description in rows
        ],
        "in": str(sum((amount for direction, amount in amounts if direction == "in"), Decimal(0))),
        "out": str(sum((amount for direction, amount in amounts if direction == "out"), Decimal(0))),
    }


async def project_balance(
    opening_balance: SignedAmount, currency: Currency, until: Day, asker: Asking
) -> dict[str, Any]:
    """Project the balance of a day from an opening balance and all entries up to it, and tell the lowest on the way."""
    values = {"user": asker.user(), "currency": currency, "until": until}
    async with connection(asker.pool) as borrowed:
        rows = await (await borrowed.execute(_BALANCE, values)).fetchall()
    balance = lowest = cents(opening_balance)
    lowest_on: Day | None = None
    for day, change in rows:
        balance += change
        if balance < lowest:
            lowest, lowest_on = balance, day
    return {
        "balance": str(balance),
        "currency": currency,
        "on": str(until),
        "lowest": str(lowest),
        "lowest_on": str(lowest_on) if lowest_on else None,
        "days_with_entries": len(rows),
    }


def project_revenue(
    last_months: Annotated[list[Amount], Field(min_length=2, max_length=60)],
    months_ahead: Annotated[int, Field(ge=1, le=24)],
) -> dict[str, Any]:
    """Project monthly revenue from that of the last months (oldest first) by their average growth."""
    first, last, steps = last_months[0], last_months[-1], len(last_months) - 1
    if not first or not last:
        raise ToolError("The first and the last month must have revenue: growth from nothing has no rate.")
    with localcontext(prec=50):
        growth = (last / first) ** (Decimal(1) / steps)
        months = [last * growth**month for month in range(1, months_ahead + 1)]
        if max(months) > Decimal("1e15"):
            raise ToolError("At that growth the figures mean nothing; project fewer months.")
        return {
            "monthly_growth_percent": str(((growth - 1) * 100).quantize(Decimal("0.01"))),
            "months": [str(cents(month)) for month in months],
            "sum": str(cents(sum(months, Decimal(0)))),
        }


def _today() -> Day:
    return datetime.datetime.now(datetime.UTC).date()
