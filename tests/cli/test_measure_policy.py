"""`qianmian measure policy`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.measurement.off_policy import PolicyLog
from training.measurement.simulated_log import simulated_log


def as_table(log: PolicyLog) -> pa.Table:
    """A log whose actions are named."""
    names = np.array(["email", "none", "sms"])
    columns = {f"p_{name}": log.target[:, place] for place, name in enumerate(names)}
    columns |= {f"x{place}": log.X[:, place] for place in range(5)}
    return pa.table(
        columns | {"action": names[log.actions], "won": log.rewards.astype(int), "propensity": log.propensities}
    )


def test_the_command_prints_the_value_in_both_languages_and_refuses_with_3(qianmian, tmp_path):
    simulated = simulated_log(1, rounds=2_000, actions=3)
    path = tmp_path / "log.parquet"
    pq.write_table(as_table(simulated.log), path)
    options = ["measure", "policy", "--data", str(path), "--action", "action", "--reward", "won"]
    options += ["--propensity", "propensity", "--target-prefix", "p_", *(f"--context=x{place}" for place in range(5))]
    found = qianmian(*options, "--json").json
    assert found["estimates"]["dr"]["low"] <= simulated.true_value <= found["estimates"]["dr"]["high"]
    assert found["estimates"]["dm"]["low"] is None
    printed = qianmian(*options)
    assert printed.code == 0
    assert "doubly robust (DR) (use this one)" in printed.out
    assert "The target policy would have brought" in printed.out
    assert "目标策略平均每次决策的回报为" in qianmian(*options, "--lang", "zh").out
    small = tmp_path / "small.parquet"
    pq.write_table(pq.read_table(path).slice(0, 90), small)
    options[3] = str(small)
    refused = qianmian(*options)
    assert refused.code == 3
    assert "This value must not be used: the log tells as much as" in refused.out
