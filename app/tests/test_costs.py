"""The month: its projection as properties, and `agentctl costs` against a real database."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Postgres, free_port
from service import agentctl, database_environment

from agent_service.models.projection import project

NOVEMBER = date(2026, 11, 1)
LAST = date(2026, 11, 30)
amounts = st.decimals(0, 1000, places=6)
days_of_november = st.dates(NOVEMBER, LAST)
histories = st.dictionaries(st.dates(date(2026, 10, 25), LAST), amounts)


@given(histories, days_of_november)
def test_projection_is_never_below_what_is_spent(costs: dict[date, Decimal], today: date) -> None:
    known = {day: cost for day, cost in costs.items() if day <= today}
    projection = project(known, NOVEMBER, today)
    assert projection.spent == sum((cost for day, cost in known.items() if day >= NOVEMBER), Decimal(0))
    if projection.total is None:
        assert not [day for day in known if day < today]
    else:
        assert projection.total >= projection.spent


@given(amounts, days_of_november)
def test_steady_days_make_a_steady_month(cost: Decimal, today: date) -> None:
    steady = {date(2026, 10, 25) + timedelta(days=day): cost for day in range((today - date(2026, 10, 25)).days + 1)}
    total = project(steady, NOVEMBER, today).total
    assert total is not None
    assert abs(total - cost * 30) < Decimal("1e-20")


@given(histories, days_of_november, amounts)
def test_a_dearer_day_never_makes_a_cheaper_month(costs: dict[date, Decimal], today: date, more: Decimal) -> None:
    known = {day: cost for day, cost in costs.items() if day <= today}
    for day in known:
        before = project(known, NOVEMBER, today).total
        after = project({**known, day: known[day] + more}, NOVEMBER, today).total
        if before is not None and after is not None:
            assert after >= before - Decimal("1e-20")


@given(histories)
def test_month_that_is_over_cost_what_it_cost(costs: dict[date, Decimal]) -> None:
    projection = project(costs, NOVEMBER, date(2026, 12, 1))
    assert projection.total == projection.spent


def test_projection_says_how() -> None:
    costs = {date(2026, 11, 9): Decimal(3), date(2026, 11, 10): Decimal(1), date(2026, 11, 11): Decimal(1)}
    projection = project(costs, NOVEMBER, date(2026, 11, 11))
    # Two complete days at 2 a day: 1 more today, and 19 days to come.
    assert (projection.spent, projection.total) == (5, 5 + 1 + 38)
    assert projection.how == "mean of the last 2 complete days, for each day that is left"
    assert project({}, NOVEMBER, date(2026, 11, 3)).total is None
    assert project({}, NOVEMBER, date(2026, 10, 3)).how == "the month has not begun"


@pytest.fixture
def costs(postgres: Postgres, database: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    postgres.execute("DELETE FROM model_calls", database)
    rows = [
        ("2026-10-31 23:59:59Z", "hr", "m", "ana", 5, 5, "9"),
        ("2026-11-01 00:00:00Z", "hr", "m", "ana", 10, 1, "0.000001000001"),
        ("2026-11-01 12:00:00Z", "hr", "n", None, 10, 1, "2"),
        ("2026-11-30 23:59:59Z", "general", "m", "ana", 10, 1, "0.5"),
        ("2026-11-30 23:59:59Z", "general", "x", "eve", 10, 1, None),
        ("2026-11-30 23:59:59Z", "general", "x", "eve", None, None, None),
        ("2026-12-01 00:00:00Z", "hr", "m", "ana", 5, 5, "9"),
    ]
    for at, agent, model, user, asked, answered, cost in rows:
        postgres.execute(
            """INSERT INTO model_calls (called_at, agent, model, user_id, outcome, milliseconds, input_tokens,
                                        output_tokens, cost_usd) VALUES (%s, %s, %s, %s, 'ok', 1, %s, %s, %s)""",
            database, [at, agent, model, user, asked, answered, cost],
        )  # fmt: skip

    def run(*arguments: str, port: int = postgres.port) -> "subprocess.CompletedProcess[str]":
        return agentctl("costs", *arguments, **database_environment(port, database))

    return run


Costs = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("model", {"n": "2", "m": "0.500001000001", "x": "0"}),
        ("agent", {"hr": "2.000001000001", "general": "0.5"}),
        ("user", {"-": "2", "ana": "0.500001000001", "eve": "0"}),
        ("day", {"2026-11-01": "2.000001000001", "2026-11-30": "0.5"}),
    ],
)
def test_costs_of_a_month(costs: Costs, by: str, names: dict[str, str]) -> None:
    result = costs("--month", "2026-11", "--by", by, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["spent_usd"] == "2.500001000001"
    assert {row[by]: row["cost_usd"] for row in report[f"by_{by}"]} == names
    assert report["unpriced_calls"] == 1


def test_costs_as_text_and_of_this_month(costs: Costs) -> None:
    text = costs("--month", "2026-11").stdout
    assert "2026-11: 2.5000 USD spent" in text
    assert "1 calls have no price" in text
    this_month = json.loads(costs("--json").stdout)
    assert this_month["month"] == f"{datetime.now(UTC):%Y-%m}"


def test_what_is_wrong_is_one_line(costs: Costs) -> None:
    assert "'November' is no month; write it as 2026-11" in costs("--month", "November").stderr
    lost = costs(port=free_port())
    assert lost.returncode == 1
    assert lost.stderr.startswith("The database cannot be used: connection failed")
    assert "Traceback" not in lost.stderr
