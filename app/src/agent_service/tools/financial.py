"""Exact arithmetic for the financial analyst."""

from decimal import Decimal, localcontext
from typing import Annotated, Any

from pydantic import Field

from agent_service.tools.calling import ToolError
from agent_service.tools.money import Amount, Percent, cents, share


def budget_variance(planned: Amount, actual: Amount) -> dict[str, Any]:
    """Compare what was planned with what was spent: the difference, and in percent of the plan."""
    difference = actual - planned
    return {
        "difference": str(cents(difference)),
        "percent_of_plan": _text(share(difference, planned)),
        "verdict": "over budget" if difference > 0 else "under budget" if difference < 0 else "on budget",
    }


def break_even(fixed_costs: Amount, price_per_unit: Amount, variable_cost_per_unit: Amount) -> dict[str, Any]:
    """How many units have to be sold so that fixed costs are covered, and what revenue that is."""
    contribution = price_per_unit - variable_cost_per_unit
    if contribution <= 0:
        raise ToolError("A unit costs as much as it brings, or more: no number of units covers the fixed costs.")
    whole, rest = divmod(fixed_costs, contribution)
    units = whole + (rest > 0)
    return {
        "units": str(units),
        "revenue": str(cents(units * price_per_unit)),
        "contribution_per_unit": str(contribution),
        "contribution_margin_percent": _text(share(contribution, price_per_unit)),
    }


def margin(revenue: Amount, costs: Amount) -> dict[str, Any]:
    """Profit, margin (percent of revenue) and markup (percent of costs)."""
    profit = revenue - costs
    return {
        "profit": str(cents(profit)),
        "margin_percent": _text(share(profit, revenue)),
        "markup_percent": _text(share(profit, costs)),
    }


def loan_payment(
    principal: Amount,
    annual_rate_percent: Percent,
    months: Annotated[int, Field(ge=1, le=600)],
) -> dict[str, Any]:
    """The equal monthly payment of an annuity loan, with what is paid in all and how much of it is interest."""
    with localcontext(prec=50):
        rate = annual_rate_percent / 1200
        payment = principal * rate / (1 - (1 + rate) ** -months) if rate else principal / months
        total = payment * months
        return {
            "monthly_payment": str(cents(payment)),
            "total": str(cents(total)),
            "interest": str(cents(total - principal)),
        }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
