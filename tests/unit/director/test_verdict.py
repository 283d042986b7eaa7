"""Pass, fail or no-data: a table of figures with the verdict on each."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Summary
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import Measured, Policy, judge

GOOD = Summary(answered=100, p50=0.1, p95=0.4)


@pytest.mark.parametrize(
    ("candidate", "stable", "kind", "word"),
    [
        (GOOD, GOOD, "pass", "within"),
        (Summary(answered=19, p50=0.1, p95=0.1), GOOD, "no-data", "19 of at least 20"),
        (Summary(), GOOD, "no-data", "0 of at least 20"),
        (Summary(answered=100, failed=1, p50=0.1, p95=0.1), GOOD, "pass", "within"),
        (Summary(answered=100, failed=2, p50=0.1, p95=0.1), GOOD, "fail", "2 % of its requests failed"),
        (Summary(answered=20, overdue=20), GOOD, "fail", "50 % of its requests failed"),
        (Summary(answered=100, provider=50, p50=0.1, p95=0.1), GOOD, "pass", "within"),
        (Summary(answered=100, p50=1, p95=3.0), GOOD, "fail", "within 3.00 s"),
        (Summary(answered=100, p50=1, p95=3.0), Summary(answered=100, p50=1, p95=2.9), "pass", "within"),
        (Summary(answered=100, p50=1, p95=3.0), Summary(answered=3, p50=1, p95=2.9), "fail", "over 2 s"),
        (Summary(answered=100, p50=1, p95=1.9), Summary(answered=100, p50=0.1, p95=0.1), "pass", "within"),
    ],
)
def test_the_edge_s_figures(candidate, stable, kind, word):
    verdict = judge(candidate, stable, Policy())
    assert verdict.kind == kind
    assert word in verdict.words()


def test_a_server_that_is_down_fails_whatever_the_figures():
    assert judge(GOOD, GOOD, Policy(), down=["agent1-green-1"]).kind == "fail"


def test_a_condition_over_its_limit_fails_and_one_without_an_answer_is_told():
    over = judge(GOOD, GOOD, Policy(), [Measured("memory", 0.8, 0.91)])
    assert (over.kind, "memory 0.91 (limit 0.8)" in over.reason) == ("fail", True)
    unknown = judge(GOOD, GOOD, Policy(), [Measured("memory", 0.8, None)])
    assert (unknown.kind, unknown.figures["measured"]) == ("pass", "memory not measured")


def test_an_early_verdict_leaves_latency_to_a_larger_sample():
    slow = Summary(answered=30, p50=1, p95=5.0)
    assert judge(slow, GOOD, Policy(), early=True).kind == "pass"
    assert judge(slow, GOOD, Policy()).kind == "fail"
    assert judge(Summary(answered=60, p50=1, p95=5.0), GOOD, Policy(), early=True).kind == "fail"


def test_a_condition_that_prometheus_cannot_read_fails_instead_of_being_passed_over():
    wrong = judge(GOOD, GOOD, Policy(), [Measured("mine", 1, None, "parse error: unexpected end of input")])
    assert (wrong.kind, wrong.reason) == ("fail", "mine cannot be asked: parse error: unexpected end of input")
