"""Differences between randomised arms: known answers, properties, planted effects, and every refusal."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qianmian.bucketing import bucket_ranges, with_floor
from qianmian.errors import DataError, UsageError
from training.measurement.corrections import benjamini_hochberg, bonferroni, holm
from training.measurement.cuped import adjusted_for_before
from training.measurement.differences import confidence_sequence, has_relative, welch
from training.measurement.effects import measure
from training.measurement.experiment import Experiment, MetricSeries, choose_control
from training.measurement.moments import ArmMoments, linearised, moments_of
from training.measurement.sample_ratio import sample_ratio, sample_ratio_of_propensities
from training.measurement.segments import interaction
from training.measurement.words import sentences

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Import a benchmark without its folder in front of the packages."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])

    def load(name):
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("common", None)


def test_every_published_vector_is_exact(benchmark_module):
    module = benchmark_module("measurement_oracles")
    found = module.vectors()
    assert len(found) == 28
    assert {name: value for name, (value, text) in found.items() if not module.is_exact(value, text)} == {}
    assert module.oracles()[1] == {"failed": 0.0}
    assert not module.is_exact(0.40096, "0.40098")


def test_daily_looks_at_nothing(benchmark_module):
    """A tenth of the simulations of the benchmark: 5 % of 200 are 10, with a standard error of 3."""
    module = benchmark_module("measurement_aa")
    arms = {
        name: module._rates(200, lambda rng, draw=draw: module._look_daily(rng, draw))
        for name, draw in list(module.OUTCOMES.items())[:1]
    }
    ((ours, daily, _),) = arms.values()
    assert ours <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)
    assert daily > 0.15


@pytest.mark.slow
def test_daily_looks_hold_five_percent_for_all_outcomes(benchmark_module):
    module = benchmark_module("measurement_aa")
    _, values = module.aa()
    assert values[module.RATE] <= module.MOST < values[module.NAIVE]


# ---- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.0, 0.05, 0.11, 0.12, 0.2])
@pytest.mark.parametrize("relative", [False, True])
def test_a_p_value_is_below_five_percent_exactly_where_the_interval_excludes_zero(effect, relative):
    arms = ArmMoments(900, 1.0, 1.0), ArmMoments(1000, 1.0 + effect, 1.5)
    for found in (welch(*arms, relative=relative), confidence_sequence(*arms, relative=relative)):
        assert (found.p_value < 0.05) == found.excludes_zero
        assert found.low < found.value < found.high


def test_a_sequence_is_wider_than_one_look_and_narrowest_near_the_planned_number():
    arms = ArmMoments(2500, 1.0, 1.0), ArmMoments(2500, 1.0, 1.0)
    width = {planned: confidence_sequence(*arms, planned=planned).high for planned in (100, 5_000, 500_000)}
    assert width[5_000] == min(width.values())
    assert 1.0 < width[5_000] / welch(*arms).high < 1.8


def test_a_ratio_varies_as_the_delta_method_says():
    rng = np.random.default_rng(0)
    orders = rng.poisson(2.0, 4_000).astype(np.float64) + 1.0
    amount = orders * rng.gamma(2.0, 5.0, 4_000)
    own = ArmMoments.of(linearised(amount, orders))
    covariance = np.cov(amount, orders)
    ratio, per = amount.sum() / orders.sum(), orders.mean()
    variance = (covariance[0, 0] - 2 * ratio * covariance[0, 1] + ratio**2 * covariance[1, 1]) / per**2 / 4_000
    assert own.mean == pytest.approx(ratio)
    assert own.variance_of_mean == pytest.approx(variance, rel=1e-9)


def test_cuped_removes_the_squared_correlation_and_keeps_the_difference():
    rng = np.random.default_rng(1)
    before = rng.normal(10.0, 2.0, (2, 20_000))
    after = before * 0.8 + rng.normal(0.0, 1.0, (2, 20_000)) + np.array([[0.0], [0.3]])
    found = adjusted_for_before((after[0], after[1]), (before[0], before[1]))
    correlation = np.corrcoef(before.ravel(), (after - [[0.0], [0.3]]).ravel())[0, 1]
    assert found.variance_removed == pytest.approx(correlation**2, abs=0.01)
    raw, cuped = welch(*moments_of((after[0], after[1]))), welch(*moments_of(found.outcomes))
    assert cuped.standard_error == pytest.approx(raw.standard_error * math.sqrt(1 - correlation**2), rel=0.02)
    assert cuped.low < 0.3 < cuped.high
    assert adjusted_for_before((after[0], after[1]), (np.ones(5), np.ones(5))) is None


def coverage_of_relative_intervals(effect) -> tuple[int, int]:
    """How many of 400 relative intervals hold the truth, with the shared variance and without it."""
    covered = forgotten = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        before = rng.normal(10.0, 3.0, (2, 200))
        after = effect(before) + rng.normal(0.0, 1.0, (2, 200))
        truth = effect(np.full((2, 1), 10.0))[1, 0] / 10.0 - 1.0
        found = adjusted_for_before((after[0], after[1]), (before[0], before[1]))
        arms = moments_of(found.outcomes)
        own = welch(*arms, relative=True, shared=found.shared_variance)
        without = welch(*arms, relative=True)
        covered += own.low < truth < own.high
        forgotten += without.low < truth < without.high
    return covered, forgotten


def test_relative_intervals_with_cuped_cover_a_large_effect():
    """The level itself is an estimate, which a difference forgets and a quotient does not."""
    least = 400 * (0.95 - 3 * math.sqrt(0.05 * 0.95 / 400))
    covered, forgotten = coverage_of_relative_intervals(lambda before: before + np.array([[0.0], [10.0]]))
    assert forgotten < 400 * 0.9
    assert covered >= least
    proportional, _ = coverage_of_relative_intervals(lambda before: before * np.array([[1.0], [1.5]]))
    assert proportional >= least


def test_corrections_keep_their_order():
    p_values = [0.001, 0.02, 0.03, 0.04, 0.9]
    assert bonferroni(p_values).tolist() == pytest.approx([0.005, 0.1, 0.15, 0.2, 1.0])
    assert holm(p_values).tolist() == pytest.approx([0.005, 0.08, 0.09, 0.09, 0.9])
    assert benjamini_hochberg(p_values).tolist() == pytest.approx([0.005, 0.05, 0.05, 0.05, 0.9])
    assert [len(correct([])) for correct in (bonferroni, holm, benjamini_hochberg)] == [0, 0, 0]


def test_a_sample_ratio_of_propensities_accepts_what_was_drawn_and_notices_a_lost_part():
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.2, 0.8, 5_000)
    treated = rng.random(5_000) < probability
    variant, own = np.where(treated, "mail", "control"), np.where(treated, probability, 1 - probability)
    assert not sample_ratio_of_propensities(variant, own).is_mismatch
    kept = ~(treated & (rng.random(5_000) < 0.15))
    assert sample_ratio_of_propensities(variant[kept], own[kept]).is_mismatch
    constant = np.full(5_000, 0.5)
    plain = sample_ratio({"mail": int(treated.sum()), "control": int((~treated).sum())}, {"mail": 1, "control": 1})
    assert sample_ratio_of_propensities(variant, constant).p_value == pytest.approx(2 * plain.p_value, abs=0.02)


def test_interaction_of_equal_and_of_different_segments():
    assert interaction("age", [(0.1, 0.1), (0.1, 0.2), (0.1, 0.3)]).p_value == pytest.approx(1.0)
    assert interaction("age", [(0.0, 0.1), (1.0, 0.1)]).p_value < 1e-6


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: bucket_ranges([0.5, 0.4]), "sum to 1"),
        (lambda: bucket_ranges([0.5, 0.5], 1.5), "share of the users"),
        (lambda: with_floor([0.5, 0.5], 0.6), "floor is too high"),
    ],
)
def test_buckets_refuse(call, told):
    with pytest.raises(UsageError, match=told):
        call()


def test_buckets_are_spread_evenly():
    from qianmian.bucketing import bucket_of

    places = [bucket_of("spring", f"u{user}") for user in range(5_000)]
    counts = np.histogram(places, 10, (0.0, 1.0))[0]
    assert sample_ratio({str(i): int(n) for i, n in enumerate(counts)}, {str(i): 1 for i in range(10)}).p_value > 0.001
    assert bucket_ranges([0.2, 0.8], 0.5) == [(0.0, 0.1), (0.2, pytest.approx(0.6))]


# ---- an experiment ---------------------------------------------------------------------------------------------------


def experiment_of(n=2_000, effect=0.3, seed=3, variants=("control", "mail"), **changes) -> Experiment:
    """Orders whose part before the experiment is known; every variant but the control adds `effect`."""
    rng = np.random.default_rng(seed)
    variant = np.array(variants)[rng.integers(0, len(variants), n)]
    before = rng.gamma(2.0, 1.0, n)
    values = before + rng.normal(3.0, 1.0, n) + np.where(variant == "control", 0.0, effect)
    return replace(Experiment(variant, "control", (MetricSeries("orders", values, None, before),)), **changes)


def test_a_planted_difference_is_found_raw_and_with_cuped():
    found = measure(experiment_of())
    (effect,) = found.effects
    assert found.is_valid
    assert effect.decided_by is effect.cuped
    assert effect.cuped.absolute_sequence.low < 0.3 < effect.cuped.absolute_sequence.high
    assert effect.cuped.absolute.standard_error < effect.raw.absolute.standard_error
    assert effect.balance.p_value > 0.01
    assert effect.variance_removed == pytest.approx(2 / 3, abs=0.05)
    assert effect.p_value == effect.cuped.absolute_sequence.p_value < 0.001
    once = measure(experiment_of(), daily=False).effects[0]
    assert once.p_value == once.cuped.absolute.p_value < effect.p_value


def test_several_variants_and_metrics_are_corrected_together():
    experiment = experiment_of(effect=0.0, variants=("control", "mail", "push"))
    noise = MetricSeries("visits", np.random.default_rng(5).poisson(3.0, 2_000).astype(np.float64))
    found = measure(replace(experiment, metrics=(*experiment.metrics, noise)), daily=False)
    assert [(one.metric, one.variant) for one in found.effects] == [
        *(("orders", "mail"), ("orders", "push"), ("visits", "mail"), ("visits", "push"))
    ]
    raw = [one.p_value for one in found.effects]
    assert [one.p_holm for one in found.effects] == pytest.approx(holm(raw).tolist())
    assert [one.p_bonferroni for one in found.effects] == pytest.approx(bonferroni(raw).tolist())
    assert all(one.p_benjamini_hochberg <= one.p_holm for one in found.effects)


def test_propensities_of_each_customer_are_weighted():
    """Heavy buyers are drawn more often, so the plain difference is wrong; the weighted one holds the truth."""
    rng = np.random.default_rng(9)
    heavy = rng.random(6_000) < 0.5
    probability = np.where(heavy, 0.8, 0.2)
    treated = rng.random(6_000) < probability
    values = np.where(heavy, 5.0, 1.0) + rng.normal(0, 1, 6_000) + 0.2 * treated
    variant = np.where(treated, "mail", "control")
    experiment = Experiment(variant, "control", (MetricSeries("orders", values),))
    assert measure(experiment, daily=False).effects[0].raw.absolute.low > 1.0
    weighted = measure(replace(experiment, propensity=np.where(treated, probability, 1 - probability)), daily=False)
    difference = weighted.effects[0].raw.absolute
    assert weighted.is_valid
    assert difference.low < 0.2 < difference.high < 0.5
    assert "largest weight 5.0, effective sample sizes" in weighted.notes[0].en


def test_segments_are_told_with_an_interaction_test():
    experiment = experiment_of(effect=0.0)
    young = np.random.default_rng(7).random(2_000) < 0.5
    (metric,) = experiment.metrics
    moved = replace(metric, values=metric.values + 0.8 * (young & (experiment.variant == "mail")))
    segments = {
        "age": np.where(young, "young", "old"),
        "parity": np.array(["even", "odd"])[np.arange(2_000) % 2],
        "city": np.where(np.arange(2_000) < 20, "village", "town"),
    }
    effect = measure(replace(experiment, metrics=(moved,), segments=segments), daily=False).effects[0]
    by_value = {(one.segment, one.value): one for one in effect.segments}
    assert by_value["age", "young"].difference.low > 0.5
    assert by_value["age", "old"].difference.low < 0 < by_value["age", "old"].difference.high
    assert by_value["city", "village"].difference is None
    assert by_value["city", "village"].n_control + by_value["city", "village"].n_treatment == 20
    tests = {one.segment: one for one in effect.interactions}
    assert set(tests) == {"age", "parity"}
    assert tests["age"].p_holm < 1e-6
    assert tests["parity"].p_holm > 0.05
    assert by_value["age", "young"].p_holm >= by_value["age", "young"].difference.p_value


ONE = np.zeros(200)
ONE[0] = 50.0
FEW = np.zeros(200)
FEW[:4] = 1.0
ARMS = np.where(np.arange(200) % 2 == 0, "control", "mail")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variant": np.full(200, "control")}, "one arm tells nothing.*control: 200.*hold a random tenth"),
        ({"variant": np.where(np.arange(200) < 5, "mail", "control")}, "too few customers in mail.*at least 30"),
        ({"metrics": (MetricSeries("amount", ONE),)}, "rests on one customer.*1 of 200.*at least 2"),
        ({"metrics": (MetricSeries("amount", np.zeros(200)),)}, "rests on nobody"),
        (
            {"metrics": (MetricSeries("amount", np.arange(200.0), np.where(ARMS == "mail", 0.0, 1.0)),)},
            "denominator of amount is 0 in an arm",
        ),
        ({"metrics": (MetricSeries("amount", np.arange(200.0), np.arange(200.0)),)}, "the same for all customers"),
        (
            {"metrics": (MetricSeries("amount", np.arange(200.0), None, np.arange(200.0)),)},
            "explains amount entirely",
        ),
        (
            {
                "metrics": (MetricSeries("amount", np.arange(200.0)),),
                "propensity": np.where(np.arange(200) < 4, 1e-4, 0.5),
            },
            "few customers with small propensities.*effective sample sizes",
        ),
    ],
    ids=["one arm", "small arm", "one customer", "nobody", "no denominator", "constant ratio", "before", "weights"],
)
def test_refusals(changes, told):
    experiment = Experiment(ARMS, "control", (MetricSeries("orders", np.arange(200.0)),))
    with pytest.raises(DataError, match=told):
        measure(replace(experiment, **changes))


def test_a_metric_of_few_customers_is_told_to_be_rough():
    found = measure(Experiment(ARMS, "control", (MetricSeries("amount", FEW),)))
    (note,) = found.notes
    assert note.en == "amount: only 4 customers have another value than the others, so its intervals are rough"
    assert found.as_dict("zh")["notes"] == ["amount：只有 4 位客户的取值与其他人不同，区间只能作粗略参考"]


def test_a_small_arm_with_a_long_tail_is_refused_or_noted():
    """Amounts that one customer in ten has: of 100 experiments without a difference, 27 t tests say that there is."""

    def experiment(n_control, n_treatment, spread, rng):
        n = n_control + n_treatment
        amounts = (rng.random(n) < 0.1) * rng.lognormal(3.0, spread, n)
        return Experiment(
            np.where(np.arange(n) < n_control, "control", "mail"), "control", (MetricSeries("amount", amounts),)
        )

    with pytest.raises(DataError, match=r"few customers with large values decide amount.*arms of 30 and 2,970.*about"):
        measure(experiment(30, 2_970, 1.0, np.random.default_rng(1)))
    (note,) = measure(experiment(100, 900, 1.0, np.random.default_rng(1))).notes
    assert "the smaller arm has 100 customers" in note.en
    assert measure(experiment(1_500, 1_500, 1.0, np.random.default_rng(1))).notes == ()
    missed, told = 0, 0
    for seed in range(200):
        try:
            found = measure(experiment(100, 900, 1.0, np.random.default_rng(seed)), daily=False)
        except DataError:
            continue
        told += 1
        missed += found.effects[0].raw.absolute.excludes_zero
    assert told > 100
    assert missed / told <= 1 / 7 + 2 * np.sqrt(1 / 7 * 6 / 7 / told)


def test_an_arm_that_brought_nothing_has_no_relative_difference():
    values = np.where(ARMS == "mail", 0.0, np.arange(200.0))
    effect = measure(Experiment(ARMS, "control", (MetricSeries("amount", values),))).effects[0]
    assert effect.raw.relative is None
    assert effect.raw.absolute_sequence.high < 0


def test_the_chance_to_win_is_of_the_estimate_that_is_told():
    """An arm of heavier buyers is ahead, and with what they bought before it is behind."""
    rng = np.random.default_rng(3)
    before = rng.normal(20.0, 5.0, 400) + np.where(np.arange(400) % 2, 2.0, 0.0)
    variant = np.where(np.arange(400) % 2, "mail", "control")
    metric = MetricSeries("orders", before + rng.normal(0.0, 1.0, 400) - 0.5 * (variant == "mail"), None, before)
    effect = measure(Experiment(variant, "control", (metric,)), daily=False).effects[0]
    assert effect.raw.absolute.low > 0 > effect.cuped.absolute.high
    assert effect.chances.chance_to_win < 0.025


def test_a_constant_period_before_is_told():
    metric = MetricSeries("orders", np.arange(200.0), None, np.ones(200))
    found = measure(Experiment(ARMS, "control", (metric,)))
    assert found.effects[0].cuped is None
    assert "the pre-period is the same for all customers" in found.notes[0].en


def test_the_control_is_named_or_refused():
    assert choose_control({"mail": 3, "Control": 4, "push": 2}, None) == "Control"
    assert choose_control({"a": 3, "b": 4}, "b") == "b"
    with pytest.raises(UsageError, match=r"not clear.*red \(3\), blue \(4\)"):
        choose_control({"red": 3, "blue": 4}, None)
    with pytest.raises(UsageError, match="no customer is in this variant"):
        choose_control({"red": 3, "blue": 4}, "green")


# ---- words -----------------------------------------------------------------------------------------------------------


def test_sentences_tell_the_figure_and_its_interval():
    found = measure(experiment_of(), daily=False)
    english, chinese = sentences(found), sentences(found, "zh")
    assert english == ["mail brought 5.7 % more orders than control, somewhere between 3.9 % and 7.5 %."]
    assert chinese == ["与 control 相比，mail 多带来 5.7% 的订单，大致在 3.9% 到 7.5% 之间。"]
    fewer = sentences(measure(experiment_of(effect=-0.3), daily=False))
    assert "fewer orders than control" in fewer[0]
    none = measure(experiment_of(effect=0.0))
    assert "cannot be told apart in orders: the difference is somewhere between −" in sentences(none)[0]
    assert "看不出差别" in sentences(none, "zh")[0]
    (metric,) = experiment_of().metrics
    target = measure(experiment_of(metrics=(replace(metric, name="brand=National"),)))
    assert "more customers with brand=National than control" in sentences(target)[0]
    assert "significan" not in " ".join([*english, *fewer, *sentences(none)])


def test_a_quotient_with_a_noisy_control_gives_way_to_the_difference():
    values = np.concatenate([np.full(5_000, -1.0), np.full(5_000, 1.0)]) + np.random.default_rng(8).normal(0, 9, 10_000)
    variant = np.repeat(["control", "mail"], 5_000)
    found = measure(Experiment(variant, "control", (MetricSeries("profit", values),)))
    assert not has_relative(*(ArmMoments.of(half) for half in (values[:5_000], values[5_000:])))
    assert found.effects[0].raw.relative is None
    assert "more profit a customer than control" in sentences(found)[0]


def test_one_of_several_differences_may_be_chance():
    experiment = experiment_of(effect=0.085, n=2_000)
    noise = tuple(
        MetricSeries(f"m{place}", np.random.default_rng(place).normal(5.0, 1.0, 2_000)) for place in range(19)
    )
    found = measure(replace(experiment, metrics=(*experiment.metrics, *noise)), daily=False)
    doubtful = [one for one in found.effects if one.decided_by.absolute.excludes_zero and one.p_holm >= 0.05]
    assert doubtful
    lines = sentences(found)
    assert sum("of 20 differences one may look so by chance (corrected p =" in line for line in lines) == len(doubtful)
    assert sum("可能只是巧合" in line for line in sentences(found, "zh")) == len(doubtful)


def test_a_sample_ratio_mismatch_is_shown_crossed_out_with_its_p_value():
    experiment = experiment_of()
    lost = (experiment.variant == "control") | (np.arange(2_000) % 4 != 0)
    (metric,) = experiment.metrics
    kept = replace(metric, values=metric.values[lost], before=metric.before[lost])
    found = measure(replace(experiment, variant=experiment.variant[lost], metrics=(kept,)))
    assert not found.is_valid
    assert found.as_dict()["sample_ratio"]["mismatch"]
    first, second = sentences(found)
    assert f"(p = {found.ratio.p_value:.3g})" in first
    assert second.startswith("~~mail brought")
    assert second.endswith("~~")
    assert "划掉" in sentences(found, "zh")[0]
    assert measure(replace(experiment, weights={"control": 1, "mail": 1})).is_valid


def test_a_difference_before_the_experiment_is_told():
    experiment = experiment_of()
    (metric,) = experiment.metrics
    shifted = replace(metric, before=metric.before + 0.5 * (experiment.variant == "mail"))
    lines = sentences(measure(replace(experiment, metrics=(shifted,))))
    assert "differed before the experiment (p = " in lines[1]
