"""`train classify` on Telco Customer Churn, and `train propensity` on Complete Journey, beside their baselines.

A part of `benchmarks/predictions.py`.

Telco: 2 × 5 stratified folds. Whatever the product chooses or fits sees the training rows of its fold alone; the peers
(scikit-learn's logistic regression and histogram gradient boosting) have the same folds. `ece` has ten bins over all
customers of a repetition; `ece_per_fold` is the mean over the folds, in which even exact probabilities would have
about .02, because a bin has 141 customers (`ece_per_fold_of_exact` simulates it).
Complete Journey: trained before 2017-12-01 and evaluated on the 28 days before, for a category, a brand and an item.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Must
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import OrdinalEncoder

from features.snapshot_table import read_snapshot_table
from models.classify.snapshot_model import encoded
from qianmian.config import load_settings
from qianmian.model_settings import PropensitySettings
from qianmian.workspace import Workspace
from training.bootstrap import CLASSIFICATION, paired_difference, statistic_metric
from training.classify.columns import choose_columns, read_label
from training.classify.evaluation import PLAIN, cross_validate
from training.jobs import propensity as job
from training.jobs.base import TrainingContext

SEED = 0
METRICS = ("auc", "average_precision", "brier", "log_loss", "ece")
MUSTS = {
    "telco auc": Must("metric", least=0.845),
    "telco brier": Must("metric", most=0.1356),
    "telco ece": Must("metric", most=0.03),
    "telco brier minus that of logistic regression, upper bound": Must("metric", most=0.0),
    "propensity auc minus that of the decayed count, lower bound": Must("metric", least=0.0),
}
TARGETS = ("category=GROCERY/SOUP", "brand=National", "item=1082185")
AS_OF = datetime(2017, 12, 1)


def telco(data: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics of each model by name, and the values of the musts.

    Parameters
    ----------
    data : Path
        Folder with `telco_churn/telco_customer_churn.parquet`.
    """
    table = read_snapshot_table(data / "telco_churn" / "telco_customer_churn.parquet")
    label = read_label(table["Churn"], "Churn", None)
    columns, _ = choose_columns(table, {"Churn", "customerID"})
    X, categorical = encoded(table, columns), [column.kind == "category" for column in columns]
    found = cross_validate(X, label.y, categorical, SEED)
    predictions = {
        "qianmian": found.p,
        "logistic_regression": found.baselines[PLAIN],
        "hist_gradient_boosting": _hist_gradient_boosting(X, label.y, categorical, found.test_folds, found.p.shape[1]),
    }
    results: dict[str, Any] = {}
    for name, p in predictions.items():
        results[name] = {one: _as_value(statistic_metric(CLASSIFICATION[one], label.y, p, SEED)) for one in METRICS}
        results[name]["ece_per_fold"] = common.value(_per_fold(label.y, p, found.test_folds), n=len(label.y))
    for name in ("logistic_regression", "hist_gradient_boosting"):
        for one in ("auc", "brier"):
            difference = paired_difference(CLASSIFICATION[one], label.y, found.p, predictions[name], SEED)
            results["qianmian"][f"{one} minus {name}"] = _as_value(difference)
    p = found.p[:, 0]
    exact = np.random.default_rng(SEED).random(len(p)) < p
    results["qianmian"]["ece_per_fold_of_exact"] = common.value(
        _per_fold(exact.astype(np.int64), found.p[:, :1], found.test_folds[: len(found.test_folds) // 2]), n=len(p)
    )
    own = results["qianmian"]
    values = {f"telco {one}": float(own[one]["value"]) for one in ("auc", "brier", "ece")}
    values["telco brier minus that of logistic regression, upper bound"] = own["brier minus logistic_regression"][
        "high"
    ]
    return results, values


def propensity(workspace: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics of `train propensity` and its baselines on a workspace with Complete Journey; nothing is registered.

    Returns
    -------
    dict
        Model → metric of each target, such as ``category=GROCERY/SOUP auc``.
    dict of str to float
        Values of the musts.
    """
    located = Workspace(workspace)
    settings = load_settings(located.config_file).model_copy(
        update={"propensity": PropensitySettings.model_validate({"targets": TARGETS})}
    )
    report = job.run(TrainingContext(located, AS_OF, settings, lambda line: None)).report
    results = {
        "qianmian": {name: _as_value(metric) for name, metric in report.metrics.items()},
        **{
            name.replace(" ", "_"): {one: _as_value(metric) for one, metric in metrics.items()}
            for name, metrics in report.baselines.items()
        },
    }
    results["qianmian"] |= {
        f"{name.split(':', 1)[0]} minus {job.DECAYED}": _as_value(metric)
        for name, metric in report.differences.items()
        if name.endswith(job.DECAYED)
    }
    least = min(report.differences[f"{target} auc:{job.DECAYED}"].low for target in TARGETS)
    return results, {"propensity auc minus that of the decayed count, lower bound": least}


def _hist_gradient_boosting(
    X: np.ndarray, y: np.ndarray, categorical: list[bool], test_folds: tuple[np.ndarray, ...], repetitions: int
) -> np.ndarray:
    codes = X.copy()
    codes[:, categorical] = OrdinalEncoder().fit_transform(X[:, categorical])  # no code is negative
    p = np.empty((len(y), repetitions))
    for number, test in enumerate(test_folds):
        train = np.setdiff1d(np.arange(len(y)), test)
        model = HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.05, max_depth=3, categorical_features=categorical, random_state=SEED
        ).fit(codes[train], y[train])
        p[test, number * repetitions // len(test_folds)] = model.predict_proba(codes[test])[:, 1]
    return p


def _per_fold(y: np.ndarray, p: np.ndarray, test_folds: tuple[np.ndarray, ...]) -> float:
    """Mean calibration error over the folds."""
    repetitions = p.shape[1]
    found = [
        CLASSIFICATION["ece"](y[test], p[test, number * repetitions // len(test_folds)])
        for number, test in enumerate(test_folds)
    ]
    return float(np.mean(found))


def _as_value(metric: Any) -> dict[str, Any]:
    return common.value(metric.value, metric.low, metric.high, metric.n)
