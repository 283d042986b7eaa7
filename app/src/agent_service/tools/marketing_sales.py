"""Leads that are scored and kept by user, and the arithmetic of funnels and campaigns."""

import itertools
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from agent_service.memory.database import connection
from agent_service.tools.calling import Asking, ToolError
from agent_service.tools.money import Amount, cents, share

# A lead of the same name is the same lead, looked at again.
_STORE = """
INSERT INTO leads (user_id, name, company, score, grade, reasons)
VALUES (%(user)s, %(name)s, %(company)s, %(score)s, %(grade)s, %(reasons)s)
ON CONFLICT (user_id, name, company) DO UPDATE
SET score = excluded.score, grade = excluded.grade, reasons = excluded.reasons, updated_at = now()
RETURNING id
"""

_LIST = """
SELECT name, company, score, grade
FROM leads
WHERE user_id = %(user)s AND score >= %(score)s
ORDER BY score DESC, updated_at DESC
LIMIT 50
"""

_POINTS = {
    "budget": {"confirmed": 30, "likely": 18, "unknown": 6, "none": 0},
    "authority": {"decides": 25, "influences": 15, "unknown": 5, "none": 0},
    "need": {"urgent": 25, "clear": 18, "unknown": 5, "none": 0},
    "timing": {"this_month": 20, "this_quarter": 14, "later": 6, "unknown": 3},
}

Name = Annotated[str, Field(min_length=1, max_length=120)]


class Stage(BaseModel):
    name: Name
    count: Annotated[int, Field(ge=0, le=10**12)]


async def qualify_lead(
    name: Name,
    company: Annotated[str, Field(max_length=120)],
    budget: Literal["confirmed", "likely", "unknown", "none"],
    authority: Literal["decides", "influences", "unknown", "none"],
    need: Literal["urgent", "clear", "unknown", "none"],
    timing: Literal["this_month", "this_quarter", "later", "unknown"],
    asker: Asking,
) -> dict[str, Any]:
    """Score a lead from 0 to 100 by budget, authority, need and timing, and store it."""
    given = {"budget": budget, "authority": authority, "need": need, "timing": timing}
    points = {what: _POINTS[what][answer] for what, answer in given.items()}
    score = sum(points.values())
    grade = "hot" if score >= 70 else "warm" if score >= 40 else "cold"
    values = {
        "user": asker.user(),
        "name": name.replace("\x00", ""),
        "company": company.replace("\x00", ""),
        "score": score,
        "grade": grade,
        "reasons": ", ".join(f"{what}: {answer}" for what, answer in given.items()),
    }
    async with connection(asker.pool) as borrowed:
        row = await (await borrowed.execute(_STORE, values)).fetchone()
    assert row
    return {"lead": row[0], "score": score, "grade": grade, "points": points}


async def list_leads(asker: Asking, minimum_score: Annotated[int, Field(ge=0, le=100)] = 0) -> dict[str, Any]:
    """List the stored leads, best first."""
    values = {"user": asker.user(), "score": minimum_score}
    async with connection(asker.pool) as borrowed:
        rows = await (await borrowed.execute(_LIST, values)).fetchall()
    return {
        "leads": [
            {"name": name, "company": company, "score": score, "grade": grade} for name, company, score, grade in rows
        ]
    }


def funnel_conversion(stages: Annotated[list[Stage], Field(min_length=2, max_length=20)]) -> dict[str, Any]:
    """Conversion from stage to stage and over the whole funnel, and where most are lost."""
    if not stages[0].count:
        raise ToolError("The first stage is empty: there is nothing to convert.")
    steps = list(itertools.pairwise(stages))
    worst, after_worst = max(steps, key=lambda step: step[0].count - step[1].count)
    return {
        "steps": [
            {
                "from": before.name,
                "to": after.name,
                "percent": _text(share(Decimal(after.count), Decimal(before.count))),
                "lost": before.count - after.count,
            }
            for before, after in steps
        ],
        "overall_percent": _text(share(Decimal(stages[-1].count), Decimal(stages[0].count))),
        "most_lost_between": f"{worst.name} and {after_worst.name}",
    }


def campaign_return(spent: Amount, revenue: Amount, customers: Annotated[int, Field(ge=0, le=10**9)]) -> dict[str, Any]:
    """Return on ad spend, return on investment in percent, and what a customer cost."""
    if not spent:
        raise ToolError("Nothing was spent: there is no return on nothing.")
    return {
        "roas": str(cents(revenue / spent)),
        "roi_percent": _text(share(revenue - spent, spent)),
        "cost_per_customer": str(cents(spent / customers)) if customers else None,
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
