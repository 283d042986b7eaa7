"""The calls of models as rows: written with the turn they belong to, summed for the budget."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from agent_service.memory.database import Pool, connection
from agent_service.models.turn import ModelCall, TurnCalls

_COLUMNS = (
    "called_at", "request_id", "session_id", "user_id", "agent", "model", "outcome", "milliseconds",
    "input_tokens", "output_tokens", "cached_tokens", "cost_usd",
)  # fmt: skip

# Part of a larger statement, or one of its own: any number of rows, as JSON, which costs a third of what arrays do.
INSERT_CALLS = f"""
INSERT INTO model_calls ({", ".join(_COLUMNS)})
SELECT called_at, %(request_id)s::text, %(id)s::text, %(user_id)s::text, agent, model, outcome, milliseconds,
       input_tokens, output_tokens, cached_tokens, cost_usd
FROM json_to_recordset(%(calls)s::json) AS c (
    called_at timestamptz, agent text, model text, outcome text, milliseconds integer,
    input_tokens integer, output_tokens integer, cached_tokens integer, cost_usd numeric
)
"""

_SPENT = "SELECT coalesce(sum(cost_usd), 0) FROM model_calls WHERE called_at >= %s"


def call_values(calls: Sequence[ModelCall]) -> dict[str, str]:
    """The parameter of INSERT_CALLS. Costs are texts in it, since they are exact."""
    rows = [
        {
            "called_at": call.at.isoformat(),
            "agent": call.agent,
            "model": call.model,
            "outcome": call.outcome,
            "milliseconds": call.milliseconds,
            "input_tokens": call.input_tokens,
            "output_tokens": call.output_tokens,
            "cached_tokens": call.cached_tokens,
            "cost_usd": None if call.cost_usd is None else str(call.cost_usd),
        }
        for call in calls
    ]
    return {"calls": json.dumps(rows)}


async def store_calls(pool: Pool, turn: TurnCalls) -> None:
    """The calls of a turn that is not stored itself."""
    values = {
        "id": turn.session_id,
        "request_id": turn.request_id,
        "user_id": turn.user_id,
        **call_values(turn.calls),
    }
    async with connection(pool, "store model calls") as borrowed:
        await borrowed.execute(INSERT_CALLS, values)


async def spent_since(pool: Pool, start: datetime) -> Decimal:
    async with connection(pool, "sum costs") as borrowed:
        row = await (await borrowed.execute(_SPENT, [start])).fetchone()
    return Decimal(row[0]) if row else Decimal(0)
