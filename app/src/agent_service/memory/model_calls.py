"""The calls of models as rows: written with the turn they belong to, summed for the budget."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from agent_service.memory.database import Pool, connection
from agent_service.models.turn import ModelCall, TurnCalls

_COLUMNS = (
    "called_at", "request_id", "session_id", "user_id", "agent", "model", "outcome", "milliseconds",
    "input_tokens", "output_tokens", "cached_tokens", "cost_usd",
)  # fmt: skip

# Part of a larger statement, or one of its own: any number of rows from one array a column.
INSERT_CALLS = f"""
INSERT INTO model_calls ({", ".join(_COLUMNS)})
SELECT called_at, %(request_id)s::text, %(id)s::text, %(user_id)s::text, agent, model, outcome, milliseconds,
       input_tokens, output_tokens, cached_tokens, cost_usd
FROM unnest(
    %(call_times)s::timestamptz[], %(call_agents)s::text[], %(call_models)s::text[], %(call_outcomes)s::text[],
    %(call_milliseconds)s::integer[], %(call_inputs)s::integer[], %(call_outputs)s::integer[],
    %(call_cached)s::integer[], %(call_costs)s::numeric[]
) AS c (called_at, agent, model, outcome, milliseconds, input_tokens, output_tokens, cached_tokens, cost_usd)
"""

_SPENT = "SELECT coalesce(sum(cost_usd), 0) FROM model_calls WHERE called_at >= %s"


def call_values(calls: Sequence[ModelCall]) -> dict[str, Any]:
    """The arrays of INSERT_CALLS."""
    return {
        "call_times": [call.at for call in calls],
        "call_agents": [call.agent for call in calls],
        "call_models": [call.model for call in calls],
        "call_outcomes": [call.outcome for call in calls],
        "call_milliseconds": [call.milliseconds for call in calls],
        "call_inputs": [call.input_tokens for call in calls],
        "call_outputs": [call.output_tokens for call in calls],
        "call_cached": [call.cached_tokens for call in calls],
        "call_costs": [call.cost_usd for call in calls],
    }


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
