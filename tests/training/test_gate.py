"""The gate's truth table."""

from __future__ import annotations

import math

import pytest

from training.gate import GateRule, apply_gate
from training.report import EvalReport, Metric

NAN = float("nan")
# low, high → passes `clearly`, passes "not clearly behind"; an improvement has a positive sign
TABLE = [
    (0.1, 0.3, True, True),
    (-0.1, 0.3, False, True),
    (-0.3, -0.1, False, False),
    (0.0, 0.3, False, True),
    (-0.3, 0.0, False, True),
    (0.0, 0.0, False, True),
    (NAN, NAN, False, False),
    (0.1, NAN, False, False),
    (NAN, 0.3, False, False),
    (0.1, math.inf, False, False),
]


def report(**differences):
    return EvalReport({}, {}, {name.replace("__", ":"): found for name, found in differences.items()})


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize(("low", "high", "clearly", "not_behind"), TABLE)
def test_truth_table(low, high, clearly, not_behind, higher_is_better):
    low, high = (low, high) if higher_is_better else (-high, -low)
    measured = report(ndcg__popular=Metric((low + high) / 2, low, high, 9))
    for rule, expected in ((True, clearly), (False, not_behind)):
        judged = apply_gate(measured, [GateRule("ndcg:popular", higher_is_better, rule)])
        assert judged.passed is expected, (low, high, rule)
        assert len(judged.reasons) == 1
        assert "ndcg minus that of popular" in judged.reasons[0]
        assert ("does not beat the baseline" in judged.reasons[0]) is not expected


def test_nan_does_not_pass():
    assert not apply_gate(report(a__b=Metric(NAN, 0.1, 0.2, 9)), [GateRule("a:b")]).passed


def test_one_failed_rule_refuses_the_model_and_is_the_reason():
    good, bad = Metric(0.2, 0.1, 0.3, 9), Metric(-0.2, -0.3, -0.1, 9)
    judged = apply_gate(report(a__x=good, b__y=bad), [GateRule("a:x"), GateRule("b:y", require_improvement=False)])
    assert not judged.passed
    assert len(judged.reasons) == 1
    assert judged.reasons[0].startswith("b minus that of y is -0.2000 [-0.3000, -0.1000]")
    both = apply_gate(report(a__x=good, b__y=good), [GateRule("a:x"), GateRule("b:y", require_improvement=False)])
    assert both.passed
    assert len(both.reasons) == 2


def test_the_gate_does_not_change_the_report():
    measured = report(a__b=Metric(0.2, 0.1, 0.3, 9))
    assert not measured.passed
    assert apply_gate(measured, [GateRule("a:b")]).as_dict() == {
        **measured.as_dict(),
        "passed": True,
        "reasons": list(apply_gate(measured, [GateRule("a:b")]).reasons),
    }
