"""Off-policy values: by hand, on simulated logs with a known value, and the logs that say too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qianmian.errors import DataError, UsageError
from training.measurement.off_policy import DM, DR, IPS, SNIPS, PolicyLog, policy_value
from training.measurement.policy_table import PolicyColumns, read_policy_log
from training.measurement.policy_words import sentences
from training.measurement.reward_model import cross_fitted_rewards
from training.measurement.simulated_log import simulated_log

N = 400


def hand_log(**changes):
    """Two actions drawn evenly: the first brings 1 every time, the second 0; the target takes the first."""
    actions = np.tile([0, 1], N // 2)
    target = np.tile([1.0, 0.0], (N, 1))
    made = PolicyLog(actions, 1.0 - actions, np.full(N, 0.5), target, np.zeros((N, 0), np.float32))
    return replace(made, **changes)


def test_a_log_worked_out_by_hand():
    value = policy_value(hand_log(), seed=0)
    assert value.estimates[IPS].value == 1.0
    assert value.estimates[SNIPS].value == 1.0
    assert value.estimates[DR].value == pytest.approx(1.0, abs=0.02)
    assert value.logged.value == 0.5
    assert value.gain.value == pytest.approx(0.5, abs=0.02)
    assert (value.effective_sample_size, value.largest_weight, value.mean_weight) == (N / 2, 2.0, 1.0)
    assert value.largest_weight_share == 1 / (N / 2)
    assert not value.refusals
    # the variance of weight × reward, which is 2 or 0: 1 ÷ n
    assert value.estimates[IPS].standard_error == pytest.approx(1 / np.sqrt(N - 1))


def test_the_target_that_logged_has_the_mean_reward():
    rng = np.random.default_rng(3)
    target = np.tile([0.3, 0.7], (N, 1))
    actions = (rng.random(N) < 0.7).astype(int)
    log = hand_log(actions=actions, propensities=target[0][actions], target=target, rewards=rng.random(N))
    value = policy_value(log, seed=0)
    for name in (IPS, SNIPS):
        assert value.estimates[name].value == pytest.approx(log.rewards.mean())
    assert value.effective_sample_size == pytest.approx(N)
    assert value.gain.low < 0 < value.gain.high


def test_simulated_logs_are_evaluated_within_a_hundredth_and_covered():
    errors, covered = [], []
    for seed in range(20):
        simulated = simulated_log(seed, rounds=3_000, actions=10)
        value = policy_value(simulated.log, seed)
        errors.append(abs(value.value.value - simulated.true_value) / simulated.true_value)
        covered.append(value.value.low <= simulated.true_value <= value.value.high)
        assert value.best == DR
        assert np.isnan(value.estimates[DM].low)
    assert np.mean(errors) < 0.02
    assert np.mean(covered) >= 0.8


def test_a_wrong_reward_model_does_not_bias_the_doubly_robust_value():
    simulated = simulated_log(5, rounds=5_000, actions=5)
    without = policy_value(replace(simulated.log, X=np.zeros((5_000, 0), np.float32)), 0)
    assert without.value.low <= simulated.true_value <= without.value.high
    assert without.value.standard_error > policy_value(simulated.log, 0).value.standard_error


def test_a_target_that_is_the_policy_of_the_log_gains_nothing_at_all():
    log = hand_log(target=np.full(N, 0.5), rewards=np.random.default_rng(0).random(N))
    value = policy_value(log, 0)
    assert (value.gain.low, value.gain.value, value.gain.high) == (0.0, pytest.approx(0.0, abs=1e-12), 0.0)
    assert sentences(value, "en")[1] == (
        "That is +0 a decision (+0.0 %), somewhere between +0 and +0: the log does not tell which of the two is better."
    )


def test_a_reward_is_predicted_by_a_model_that_has_not_seen_the_customer():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(N // 4), 4)
    personal = rng.normal(size=N // 4)[groups]  # the same for all decisions of a customer, and noise for all others
    actions = np.tile([0, 1], N // 2)
    found = cross_fitted_rewards(groups[:, None].astype(np.float32), (True,), actions, personal, groups, 2, 0)
    assert abs(np.corrcoef(found[:, 0], personal)[0, 1]) < 0.3


def test_intervals_are_over_customers_where_they_have_several_decisions():
    log = simulated_log(2, rounds=1_000, actions=3).log
    twice = PolicyLog(
        *(np.concatenate([part, part]) for part in (log.actions, log.rewards, log.propensities, log.target, log.X)),
        customers=np.tile(np.arange(1_000), 2),
    )
    alone, repeated = policy_value(log, 0), policy_value(twice, 0)
    assert repeated.customers == 1_000
    assert repeated.estimates[IPS].standard_error == pytest.approx(alone.estimates[IPS].standard_error, rel=1e-9)


def test_the_value_is_refused_where_the_log_says_too_little():
    rare = np.full(N, 0.999)
    actions = np.zeros(N, dtype=int)
    actions[:20] = 1
    refused = policy_value(
        hand_log(actions=actions, propensities=np.where(actions, 0.05, 0.95), target=np.tile([0.0, 1.0], (N, 1))), 0
    )
    assert refused.effective_sample_size == 20
    assert "about 2,000 decisions like these would be enough" in refused.refusals[0].en
    assert "约需 2,000 次类似的决策" in refused.as_dict("zh")["refusals"][0]
    wrong = policy_value(hand_log(propensities=rare), 0)
    assert any("the weights average 0.50 and should average 1.00" in reason.en for reason in wrong.refusals)
    elsewhere = policy_value(hand_log(target=np.tile([0.5, 0.3, 0.2], (N, 1))), 0)
    assert any("20% of the decisions of the target policy" in reason.en for reason in elsewhere.refusals)
    one = hand_log(propensities=np.where(np.arange(N) == 0, 0.01, 0.5))
    assert any("one decision makes up 20% of all weights" in reason.en for reason in policy_value(one, 0).refusals)


def test_values_that_are_no_probabilities_are_refused_with_their_place():
    for changes, message in (
        ({"propensities": np.where(np.arange(N) == 7, 0.0, 0.5)}, "row 8 of the log, and 0 more"),
        ({"propensities": np.full(N, 1.5)}, "row 1 of the log, and 399 more"),
        ({"target": np.tile([0.7, 0.7], (N, 1))}, "1 in sum over the actions"),
        ({"target": np.full(N, -0.1)}, "the probabilities of the target policy are none"),
        ({"rewards": np.where(np.arange(N) == 3, np.nan, 1.0)}, "a decision has no reward"),
        ({"customers": np.zeros(N, dtype=int)}, "too few customers"),
        ({"actions": np.zeros(N, dtype=int)}, "one action only"),
        ({"target": np.zeros(N)}, "never have done what was logged"),
    ):
        with pytest.raises(DataError, match=message):
            policy_value(hand_log(**changes), 0)


@pytest.fixture
def table(tmp_path):
    """A log as a Parquet file, with its actions named, and the simulation it is from."""
    simulated = simulated_log(1, rounds=2_000, actions=3)
    log, names = simulated.log, np.array(["email", "none", "sms"])
    columns = {f"p_{name}": log.target[:, place] for place, name in enumerate(names)}
    columns |= {f"x{place}": log.X[:, place] for place in range(5)}
    columns |= {"action": names[log.actions], "won": log.rewards.astype(int), "propensity": log.propensities}
    columns |= {"p": log.target_of_action, "best": names[log.target.argmax(axis=1)]}
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path, simulated


COLUMNS = PolicyColumns("action", "won", "propensity")


def test_a_column_filled_after_the_decision_is_refused_and_yes_and_no_are_read(table, tmp_path):
    path, simulated = table
    won = simulated.log.rewards
    later = np.where(won > 0, simulated.log.X[:, 0], np.nan)
    read, answers = pq.read_table(path), np.array(["no", "yes"])[won.astype(int)]
    read = read.append_column("paid", pa.array(later, from_pandas=True)).append_column("answer", pa.array(answers))
    pq.write_table(read, filled := tmp_path / "filled.parquet")
    columns = replace(COLUMNS, reward="answer", always="sms")
    assert read_policy_log(filled, replace(columns, context=("x0", "x1"))).log.rewards.tolist() == won.tolist()
    with pytest.raises(DataError, match="filled after the decision.*got 'paid'.*without --context paid"):
        read_policy_log(filled, replace(columns, context=("x0", "paid")))


def test_a_table_is_read_as_the_log_it_was(table):
    path, simulated = table
    read = read_policy_log(path, replace(COLUMNS, target_prefix="p_", context=("x0", "x1", "x2", "x3", "x4")))
    assert read.actions == ["email", "none", "sms"]
    for name in ("actions", "rewards", "propensities", "target"):
        np.testing.assert_allclose(getattr(read.log, name), getattr(simulated.log, name))
    assert read.log.X.shape == (2_000, 5)
    by_weights = read_policy_log(path, replace(COLUMNS, target_probability="p")).log
    assert not by_weights.has_distribution
    np.testing.assert_allclose(by_weights.weights, read.log.weights)
    greedy = read_policy_log(path, replace(COLUMNS, target_action="best")).log
    assert set(np.unique(greedy.target)) == {0.0, 1.0}
    always = read_policy_log(path, replace(COLUMNS, always="sms")).log
    assert always.target.sum(axis=0).tolist() == [0.0, 0.0, 2_000.0]


def test_a_table_that_is_no_log_is_refused(table, tmp_path):
    path, _ = table
    with pytest.raises(DataError, match="a log without propensities cannot be evaluated"):
        read_policy_log(path, replace(COLUMNS, propensity=None, always="sms"))
    with pytest.raises(UsageError, match="one target policy is needed"):
        read_policy_log(path, COLUMNS)
    with pytest.raises(UsageError, match="one target policy is needed"):
        read_policy_log(path, replace(COLUMNS, always="sms", target_action="best"))
    with pytest.raises(UsageError, match="nothing is known of what it brings"):
        read_policy_log(path, replace(COLUMNS, always="pigeon"))
    with pytest.raises(UsageError, match="no column p_0"):
        read_policy_log(path, replace(COLUMNS, action="won", target_prefix="p_"))
    unread = tmp_path / "unread.csv"
    unread.write_text("action,won,propensity\n" + "a,1,0.5\n" * 9 + "b,,0.5\nb,soon,0.5\n")
    with pytest.raises(DataError, match=r"--reward won, row 10 and 1 more.*got 'an empty cell'"):
        read_policy_log(unread, replace(COLUMNS, always="a"))
