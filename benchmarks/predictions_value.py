"""Customer value: published parameters and held-out orders on CDNOW, held-out money on Complete Journey.

A part of `benchmarks/predictions.py`.

CDNOW (Fader and Hardie): 2,357 customers, 39 weeks to learn from and 39 held out; an order is a day with purchases. The
parameters are those of the bare models, with times in weeks from day to day. What ships is trained and scored by the
command line, on the orders before 1997-10-01.
Complete Journey: trained before 2017-10-01 and 2017-10-03; held out are the 90 days after.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from churn import cli, orders_of_completejourney
from common import Must

from models.value.bgnbd import BGNBD
from models.value.gamma_gamma import GammaGamma
from models.value.pareto_nbd import ParetoNBD
from training.value.report import mean_metric, ratio

CUT, WEEKS = pd.Timestamp("1997-10-01"), 39.0
MONEY_DAYS, MONEY_DATES = 90, ("2017-10-01", "2017-10-03")
UNDERFLOW = {132.0: 6.20605, 133.0: 6.25287}  # x → expected orders, for the parameters of `underflow_pair`
MUSTS = {
    "cdnow: distance of BG/NBD from r .24259, α 4.4135, a .79289, b 2.42575": Must("metric", most=2e-4),
    "cdnow: distance of the log-likelihood of BG/NBD from −9582.43": Must("metric", most=0.01),
    "cdnow: distance of gamma-gamma from p 6.249, q 3.745, v 15.448": Must("metric", most=5e-3),
    "cdnow: distance of the underflow pair": Must("metric", most=1e-5),
    "cdnow: RMSE of what ships": Must("metric", most=1.608),
    "cdnow: coverage, least": Must("metric", least=0.75),
    "cdnow: coverage, most": Must("metric", most=0.85),
    "completejourney: money, MAE ÷ that of the last 90 days again, upper bound": Must("metric", most=1.0),
}
SOURCES = """\
source: cdnow
timezone: UTC
tables:
  transactions:
    path: orders.csv
    columns: {order_id: order_id, source_user_id: customer_id, item_id: item, ts: date, amount: amount_usd}
"""


def orders_of_cdnow(data: Path) -> pd.DataFrame:
    """customer_id, date and amount of each day with purchases."""
    lines = pd.read_parquet(data / "cdnow" / "cdnow_sample.parquet")
    return lines.groupby(["customer_id", "date"], as_index=False).amount_usd.sum()


def repeat_orders(orders: pd.DataFrame) -> pd.DataFrame:
    """x, t_x and T in weeks, mean amount of the repeat orders, and orders of the held-out weeks, by customer."""
    before, last_day = orders[orders.date < CUT], CUT - pd.Timedelta(days=1)
    first = before.groupby("customer_id").date.min()
    repeated = before[before.date > before.customer_id.map(first)]
    table = pd.DataFrame({"x": before.groupby("customer_id").size() - 1.0})
    table["t_x"] = (before.groupby("customer_id").date.max() - first).dt.days / 7
    table["T"] = (last_day - first).dt.days / 7
    table["amount"] = repeated.groupby("customer_id").amount_usd.mean().reindex(table.index).fillna(0.0)
    table["later"] = orders[orders.date >= CUT].groupby("customer_id").size().reindex(table.index).fillna(0.0)
    return table


def underflow_pair() -> float:
    """Largest distance of the two expectations that an implementation without logarithms cannot compute."""
    model, now = ParetoNBD(0.55, 10.58, 0.61, 11.67), np.array([200.0])
    found = {x: float(model.expected_orders(10.0, np.array([x]), now, now)[0]) for x in UNDERFLOW}
    return max(abs(found[x] - expected) for x, expected in UNDERFLOW.items())


def root(values: np.ndarray) -> dict[str, Any]:
    """Root of a mean of squared errors, with the roots of its bounds."""
    one = mean_metric(values)
    return common.value(*np.sqrt([one.value, one.low, one.high]).tolist(), one.n)


def cdnow(data: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics by model, and the values of the musts."""
    orders = orders_of_cdnow(data)
    table = repeat_orders(orders)
    x, t_x, T, y = (table[name].to_numpy(dtype=float) for name in ("x", "t_x", "T", "later"))
    counts = BGNBD.fit(x, t_x, T)
    paid = x > 0
    amounts = GammaGamma.fit(x[paid], table.amount.to_numpy()[paid])
    ours, product_cost = scored_cdnow(orders, table.index)
    inside = ((y >= ours.predicted_number_of_orders_low) & (y <= ours.predicted_number_of_orders_high)).to_numpy()
    predictions = {
        "qianmian": ours.predicted_number_of_orders.to_numpy(dtype=float),
        "bgnbd": counts.expected_orders(WEEKS, x, t_x, T),
        "pareto_nbd": ParetoNBD.fit(x, t_x, T).expected_orders(WEEKS, x, t_x, T),
    }
    results: dict[str, Any] = {}
    for name, p in predictions.items():
        results[name] = {"rmse": root((p - y) ** 2), "mae": mean_metric(np.abs(p - y)).__dict__}
        results[name]["total"] = ratio(p - y, y, 0).__dict__
        figures = ", ".join(f"{metric} {one['value']:.4f}" for metric, one in results[name].items())
        print(f"CDNOW, {name:12s} {figures}")
    parameters = {f"bgnbd_{name}": one for name, one in counts.as_dict().items()}
    parameters |= {f"gamma_gamma_{name}": one for name, one in amounts.as_dict().items()}
    parameters["bgnbd_loglik"] = counts.log_likelihood(x, t_x, T)
    parameters["gamma_gamma_loglik"] = amounts.log_likelihood(x[paid], table.amount.to_numpy()[paid])
    results["qianmian"] |= {name: common.value(one, n=len(y)) for name, one in parameters.items()}
    results["qianmian"]["coverage"] = mean_metric(inside.astype(float)).__dict__
    results["qianmian"]["train_cpu_seconds"] = common.value(product_cost.cpu_seconds)
    print("CDNOW, parameters:", ", ".join(f"{name} {one:.6g}" for name, one in parameters.items()))
    print(f"CDNOW, coverage of the 80 % interval {inside.mean():.4f}; train value: {product_cost}")
    of_counts = np.abs(np.array([*counts.as_dict().values()]) - [0.24259, 4.4135, 0.79289, 2.42575]).max()
    of_amounts = np.abs(np.array([*amounts.as_dict().values()]) - [6.249, 3.745, 15.448]).max()
    values = [of_counts, abs(parameters["bgnbd_loglik"] + 9582.43), of_amounts, underflow_pair()]
    values += [results["qianmian"]["rmse"]["value"], inside.mean(), inside.mean()]
    return results, dict(zip([name for name in MUSTS if name.startswith("cdnow")], map(float, values), strict=True))


def scored_cdnow(orders: pd.DataFrame, customers: pd.Index) -> tuple[pd.DataFrame, common.Cost]:
    """Predictions of the product for `customers`, in their order, and the cost of the training."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = orders.assign(order_id=orders.customer_id + "-" + orders.date.astype(str), item="cd")
        source.to_csv(folder / "orders.csv", index=False)
        (folder / "sources.yaml").write_text(SOURCES)
        workspace, out, as_of = folder / "workspace", folder / "value.parquet", f"{CUT:%Y-%m-%d}"
        cli(workspace, "ingest", "files", "--config", str(folder / "sources.yaml"))
        cost = cli(workspace, "train", "value", "--as-of", as_of, "--horizon-days", str(int(7 * WEEKS)))
        cli(workspace, "score", "predictions", "--out", str(out), "--as-of", as_of)
        return pd.read_parquet(out).set_index("user_id").reindex(customers), cost


def completejourney(_data: Path | None = None) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics by model, and the values of the musts."""
    orders, errors, baseline = orders_of_completejourney(), [], []
    results: dict[str, Any] = {"qianmian": {}}
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name) / "workspace"
        cli(workspace, "ingest", "completejourney")
        for as_of in MONEY_DATES:
            out, day, days = Path(name) / "value.parquet", pd.Timestamp(as_of), pd.Timedelta(days=MONEY_DAYS)
            cost = cli(workspace, "train", "value", "--as-of", as_of, "--horizon-days", str(MONEY_DAYS))
            cli(workspace, "score", "predictions", "--out", str(out), "--as-of", as_of)
            scores = pd.read_parquet(out).set_index("user_id")
            users = pd.Index(orders[orders.ts < day].user_id.unique())
            later = paid_between(orders, day, day + days, users)
            again = paid_between(orders, day - days, day, users)
            own = scores.predicted_clv.reindex(users).to_numpy(dtype=float)
            inside = (later >= scores.predicted_clv_low.reindex(users)) & (
                later <= scores.predicted_clv_high.reindex(users)
            )
            errors.append(np.abs(own - later))
            baseline.append(np.abs(again - later))
            one, contained = ratio(errors[-1], baseline[-1], 0), mean_metric(inside.to_numpy(dtype=float))
            results["qianmian"] |= {
                f"money_mae_ratio {as_of}": one.__dict__,
                f"coverage_money {as_of}": contained.__dict__,
            }
            results["qianmian"][f"train_cpu_seconds {as_of}"] = common.value(cost.cpu_seconds)
            print(f"Complete Journey, {as_of}: money, MAE ÷ that of the last {MONEY_DAYS} days again {one}")
            print(f"Complete Journey, {as_of}: coverage of money {contained}; train value: {cost}")
    first = ratio(errors[0], baseline[0], 0)
    results["qianmian"]["money_mae_ratio"] = first.__dict__
    name = next(name for name in MUSTS if name.startswith("completejourney"))
    return results, {name: max(ratio(own, last, 0).high for own, last in zip(errors, baseline, strict=True))}


def paid_between(orders: pd.DataFrame, start: pd.Timestamp, end: pd.Timestamp, users: pd.Index) -> np.ndarray:
    """Amount that each user paid in ``[start, end)``."""
    found = orders[(orders.ts >= start) & (orders.ts < end)].groupby("user_id").amount.sum()
    return found.reindex(users).fillna(0.0).to_numpy(dtype=float)
