"""The arithmetic of the tools, called as the model calls them: by name, with what its JSON holds."""

import datetime
import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import BaseTool

from agent_service.team.definition import load_team
from agent_service.team.specialists import load_tools
from agent_service.tools.calling import ToolError

TOOLS: dict[str, BaseTool] = {tool.name: tool for tools in load_tools(load_team()).values() for tool in tools}

amounts = st.decimals(0, 10**12, places=2)
positive = st.decimals(Decimal("0.01"), 10**9, places=2)
days = st.dates(datetime.date(2000, 1, 1), datetime.date(2040, 12, 31))


def use(name: str, **arguments: Any) -> Any:
    return TOOLS[name].invoke(
        {key: str(value) if isinstance(value, Decimal) else value for key, value in arguments.items()}
    )


@given(amounts, amounts)
def test_variance_is_what_the_plan_lacks(planned: Decimal, actual: Decimal) -> None:
    result = use("budget_variance", planned=planned, actual=actual)
    assert planned + Decimal(result["difference"]) == actual
    assert (result["verdict"] == "over budget") == (actual > planned)
    assert (result["percent_of_plan"] is None) == (planned == 0)


@given(amounts, positive, positive)
def test_break_even_is_the_least_number_of_units_that_covers(fixed: Decimal, price: Decimal, cost: Decimal) -> None:
    arguments = {"fixed_costs": fixed, "price_per_unit": price, "variable_cost_per_unit": cost}
    if price <= cost:
        with pytest.raises(ToolError):
            use("break_even", **arguments)
        return
    units = Decimal(use("break_even", **arguments)["units"])
    assert units * (price - cost) >= fixed
    assert units == 0 or (units - 1) * (price - cost) < fixed


@given(amounts, amounts)
def test_margin_adds_up(revenue: Decimal, costs: Decimal) -> None:
    result = use("margin", revenue=revenue, costs=costs)
    assert Decimal(result["profit"]) == revenue - costs
    assert (result["margin_percent"] is None) == (revenue == 0)


@given(positive, st.decimals(0, 100, places=2), st.integers(1, 480))
def test_loan_is_paid_off_by_its_payments(principal: Decimal, rate: Decimal, months: int) -> None:
    result = use("loan_payment", principal=principal, annual_rate_percent=rate, months=months)
    payment, left = Decimal(result["monthly_payment"]), principal
    growth = 1 + rate / 1200
    for _ in range(months):
        left = left * growth - payment
    # Half a cent of rounding in each payment, with its own interest.
    rounding = Decimal("0.006") * sum((growth**month for month in range(months)), Decimal(0))
    assert abs(left) <= rounding
    assert Decimal(result["total"]) - Decimal(result["interest"]) == principal


def test_known_loan() -> None:
    result = use("loan_payment", principal=Decimal(100_000), annual_rate_percent=Decimal(6), months=360)
    assert result == {"monthly_payment": "599.55", "total": "215838.19", "interest": "115838.19"}


@given(st.lists(positive, min_size=2, max_size=12), st.integers(1, 24))
def test_projected_revenue_goes_on_from_the_last_month(last: list[Decimal], ahead: int) -> None:
    try:
        result = use("project_revenue", last_months=[str(month) for month in last], months_ahead=ahead)
    except ToolError:
        assert last[-1] > last[0]
        return
    months = [Decimal(month) for month in result["months"]]
    assert len(months) == ahead
    assert abs(sum(months) - Decimal(result["sum"])) <= Decimal("0.005") * (ahead + 1)
    assert (months[0] >= last[-1]) == (last[-1] >= last[0]) or abs(months[0] - last[-1]) < Decimal("0.01")


def test_known_projection() -> None:
    result = use("project_revenue", last_months=["100", "110", "121"], months_ahead=2)
    assert result == {"monthly_growth_percent": "10.00", "months": ["133.10", "146.41"], "sum": "279.51"}


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=8))
def test_funnel_loses_what_goes_missing(counts: list[int]) -> None:
    stages = [{"name": f"stage {number}", "count": count} for number, count in enumerate(counts)]
    if not counts[0]:
        with pytest.raises(ToolError):
            use("funnel_conversion", stages=stages)
        return
    result = use("funnel_conversion", stages=stages)
    assert sum(step["lost"] for step in result["steps"]) == counts[0] - counts[-1]
    assert max(step["lost"] for step in result["steps"]) == max(a - b for a, b in itertools.pairwise(counts))


@given(amounts, amounts, st.integers(0, 1000))
def test_campaign_pays_when_it_brings_more_than_it_costs(spent: Decimal, revenue: Decimal, customers: int) -> None:
    if not spent:
        with pytest.raises(ToolError):
            use("campaign_return", spent=spent, revenue=revenue, customers=customers)
        return
    result = use("campaign_return", spent=spent, revenue=revenue, customers=customers)
    assert (Decimal(result["roi_percent"]) > 0) <= (revenue > spent)
    assert (result["cost_per_customer"] is None) == (customers == 0)


@given(st.decimals(0, 60, places=1), days, days)
def test_leave_is_earned_by_the_month_and_never_more_than_a_year_s(
    per_year: Decimal, since: datetime.date, on: datetime.date
) -> None:
    arguments = {"days_per_year": per_year, "days_taken": Decimal(0), "employed_since": str(since)}
    if since > on:
        with pytest.raises(ToolError):
            use("leave_balance", on=str(on), **arguments)
        return
    result = use("leave_balance", on=str(on), **arguments)
    assert 0 <= Decimal(result["earned"]) <= Decimal(result["left_by_end_of_year"]) <= per_year
    assert 0 <= result["months_completed"] <= 12


@pytest.mark.parametrize(
    ("since", "on", "months"),
    [
        ("2020-05-17", "2026-12-31", 12),
        ("2026-03-15", "2026-12-31", 9),
        ("2026-03-15", "2026-04-14", 0),
        ("2026-03-15", "2026-04-15", 1),
        ("2020-01-01", "2026-02-28", 2),
        ("2020-01-01", "2026-02-27", 1),
    ],
)
def test_completed_months(since: str, on: str, months: int) -> None:
    result = use("leave_balance", days_per_year="24", days_taken="1", employed_since=since, on=on)
    assert result["months_completed"] == months
    assert Decimal(result["left"]) == 2 * months - 1


@pytest.mark.parametrize("topic", ["vacation days", "Férias", "年假", "연차 휴가", "Annual Leave"])
def test_policy_is_found_in_every_language(topic: str) -> None:
    assert "annual leave" in [rule["topic"] for rule in use("find_policy", topic=topic)["rules"]]


def test_policy_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ToolError, match="annual leave, sick leave"):
        use("find_policy", topic="parrots")


@pytest.mark.parametrize(
    ("language", "heading"), [("en", "Your tasks"), ("pt", "Vaga"), ("zh", "岗位职责"), ("ko", "채용")]
)
def test_vacancy_holds_all_that_was_given(language: str, heading: str) -> None:
    given = {"tasks": ["cut bread"], "requirements": ["two hands"], "offer": ["bread"], "place": "Porto"}
    text = use("draft_vacancy", title="Baker", language=language, **given)
    assert all(part in text for part in ("Baker", "- cut bread", "- two hands", "- bread", "Porto", heading))
