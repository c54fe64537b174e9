"""`train clusters` on Complete Journey, beside k-means on RFM, RFM tiers and chance.

A part of `benchmarks/audiences.py`. The clusters are chosen 28 days before the cutoff and measured at it, on resamples
that did not choose them. Nothing is registered.

- `ari`: mean adjusted Rand index of clusterings of 20 pairs of resamples of 80 % of the customers.
- `ari_halves`: of two halves without a common customer. `ari_month`: of the same customers 28 days apart, each date
  clustered by itself. `eta2_…_next`: share of the variance of the next 28 days that lies between the clusters.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import common
from churn import cli
from common import Must

from models.parallel import one_blas_thread
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from training.jobs import clusters as job
from training.jobs.base import TrainingContext

MUSTS = {"ari": Must("metric", least=0.7)}
AS_OF = datetime(2018, 1, 1)
TIMEZONE = "America/New_York"  # of the days and hours of the shop, as in `qianmian demo`


def clusters(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics of the clusters and their baselines, and the values of the musts.

    Parameters
    ----------
    folder : Path
        Complete Journey is ingested into ``completejourney`` of this folder, unless it is there.
    """
    workspace = folder / "completejourney"
    if not (workspace / "lake").exists():
        cli(workspace, "ingest", "completejourney")
    located = Workspace(workspace)
    settings = load_settings(located.config_file).model_copy(update={"timezone": TIMEZONE})
    context = TrainingContext(located, AS_OF, settings, lambda line: None)
    context.shared_accounts, context.build_profiles(AS_OF)  # of all jobs together
    with one_blas_thread():  # as in `qianmian train`
        begun = time.process_time()
        evaluated = job.run(context)
        seconds = time.process_time() - begun
    report = evaluated.report
    results: dict[str, Any] = {
        name.replace(" ", "_"): {one: asdict(metric) for one, metric in metrics.items()}
        for name, metrics in {"qianmian": report.metrics, **report.baselines}.items()
    }
    own = results["qianmian"]
    own["ari_low"] = common.value(report.metrics["ari"].low, n=report.metrics["ari"].n)
    own["clusters"] = common.value(len(evaluated.bundle.model.ids))
    own["cpu_seconds"] = common.value(seconds)
    for note in report.notes:
        print(note)
    return results, {"ari": report.metrics["ari"].value}
