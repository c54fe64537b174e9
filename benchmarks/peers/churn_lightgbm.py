"""Churn as a user of LightGBM writes it: twelve recency, frequency and money columns of weekly snapshots.

    python churn_lightgbm.py ORDERS.parquet AS_OF OUT.parquet

ORDERS has user_id, ts and amount of each order. The customers with an order in the 56 days before AS_OF get the
probability of no order in the 28 days after it. Parameters are chosen on the last snapshot whose outcomes are known,
with models of the snapshots before it; then the model is fitted on all of them.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.metrics import brier_score_loss

ACTIVE, HORIZON = pd.Timedelta(days=56), pd.Timedelta(days=28)
CHOICES = ((4, 150, 0.05), (7, 200, 0.03), (15, 200, 0.03), (7, 400, 0.02), (31, 200, 0.02))  # leaves, trees, rate


def labels(orders: pd.DataFrame, day: pd.Timestamp) -> pd.Series:
    """1 for the active customers at a day who order nothing within the horizon."""
    last = orders[orders.ts < day].groupby("user_id").ts.max()
    active = last[last >= day - ACTIVE].index
    after = orders[(orders.ts >= day) & (orders.ts < day + HORIZON)].user_id.unique()
    return pd.Series((~active.isin(after)).astype(int), index=active)


def columns(orders: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The twelve columns of every customer at a day."""
    before = orders[orders.ts < day].copy()
    before["age"] = (day - before.ts).dt.total_seconds() / 86_400
    by_user = before.groupby("user_id")
    out = pd.DataFrame({"recency": by_user.age.min(), "tenure": by_user.age.max(), "orders": by_user.size()})
    for days in (28, 56, 91):
        out[f"n{days}"] = before[before.age <= days].groupby("user_id").size()
    for days in (28, 91):
        out[f"amount{days}"] = before[before.age <= days].groupby("user_id").amount.sum()
    before = before.sort_values(["user_id", "age"])
    gap = before.assign(gap=before.groupby("user_id").age.shift(-1) - before.age).groupby("user_id").gap
    out["gap"], out["gap_std"] = gap.mean(), gap.std()
    out["silence"] = out.recency / out.gap
    counts = [name for name in out if name.startswith(("n", "amount"))]
    out[counts] = out[counts].fillna(0)
    out["trend"] = (out.n28 + 1) / (out.n56 - out.n28 + 1)
    return out


def classifier(leaves: int, trees: int, rate: float) -> LGBMClassifier:
    return LGBMClassifier(
        n_estimators=trees,
        learning_rate=rate,
        num_leaves=leaves,
        min_child_samples=40,
        subsample=0.7,
        subsample_freq=1,
        colsample_bytree=0.4,
        reg_lambda=5,
        n_jobs=1,
        verbose=-1,
        random_state=0,
    )


def main(source: str, as_of: str, out: str) -> None:
    orders, day = pd.read_parquet(source), pd.Timestamp(as_of)
    last = day - HORIZON
    first = orders.ts.min().normalize() + ACTIVE
    days = [last - pd.Timedelta(weeks=week) for week in range(26) if last - pd.Timedelta(weeks=week) >= first]
    outcomes = {one: labels(orders, one) for one in days}
    rows = {one: columns(orders, one).reindex(found.index) for one, found in outcomes.items()}
    earlier = [one for one in days if one + HORIZON <= last]

    def fitted(of: list[pd.Timestamp], choice: tuple[int, int, float]) -> LGBMClassifier:
        return classifier(*choice).fit(pd.concat(rows[one] for one in of), pd.concat(outcomes[one] for one in of))

    def loss(choice: tuple[int, int, float]) -> float:
        predicted = fitted(earlier, choice).predict_proba(rows[last])[:, 1]
        return float(brier_score_loss(outcomes[last], predicted))

    model = fitted(days, min(CHOICES, key=loss))
    active = labels(orders[orders.ts < day], day).index
    probabilities = model.predict_proba(columns(orders, day).reindex(active))[:, 1]
    pd.DataFrame({"user_id": np.asarray(active), "churn_probability": probabilities}).to_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
