"""What planned promotions are worth to the ranker, by how early they are known: Complete Journey, November 2017.

    python benchmarks/promotions.py [--quick] [--json FILE]

The data have no time of planning, so it is supposed: at the start of the week, 7 and 28 days before. The ranker alone
is fitted on the data before 1 November with and without promotions, on the same examples and seeds, and measured on
the 28 days after; the differences are paired by household, the mean of the seeds. The benchmark says, too, how many
of the items that sold were planned to be on promotion, and how many of the others: a table that is made from the
sales would name nearly all of the former and none of the latter. Takes about 10 CPU minutes; --quick uses one seed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Must
from numpy.typing import NDArray

from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.bootstrap import mean_metric
from training.evaluation.metrics import ranking_metrics
from training.holdout import HoldoutSplitter
from training.jobs.base import TrainingContext
from training.planned_promotions import planned_items
from training.tasks import TASKS
from training.tasks.base import make_ranker, with_parameters

DAYS_AHEAD = (0, 7, 28)
END, HORIZON, K = datetime(2017, 11, 29), 28, 10
AHEAD = "low end of the difference, known 28 days ahead"
NOT_BEHIND = "high end of the difference, known 0 days ahead"
MUSTS = {AHEAD: Must("metric", least=0.0), NOT_BEHIND: Must("metric", least=0.0)}
PARAMETERS = {"two_stage": {"horizon_days": float(HORIZON)}, "repeat": {"half_life_days": 90.0}}


def ndcg_of_seeds(train: Any, examples: Any, seeds: int) -> NDArray[np.float64]:
    """NDCG of each customer, the mean of the seeds."""
    settings, found = with_parameters(Settings().recommend, PARAMETERS), []
    for seed in range(seeds):
        model = make_ranker(settings, seed, "any").fit(replace(train))
        ids = model.recommend(examples.users, K).ids
        found.append(ranking_metrics(ids, examples.truth, K, ("ndcg",))["ndcg"])
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def figures(folder: Path, seeds: int) -> dict[str, dict[str, Any]]:
    """Metrics by days ahead, and without promotions."""
    result: dict[str, dict[str, Any]] = {}
    plain = None
    for days in DAYS_AHEAD:
        workspace = folder / str(days)
        options = ["--promotions-days-ahead", str(days), "--workspace", str(workspace)]
        common.timed([sys.executable, "-m", "cli.main", "ingest", "completejourney", *options])
        context = TrainingContext(Workspace(workspace), END, Settings(), lambda _: None)
        split = HoldoutSplitter(context).test()
        examples = TASKS["home"].examples(split.train, split.holdout, 0)
        if plain is None:
            plain = ndcg_of_seeds(replace(split.train, promotions=None), examples, seeds)
            result["without"] = {f"ndcg@{K}": mean_metric(plain)}
        with_plans = ndcg_of_seeds(split.train, examples, seeds)
        planned, sold = planned_items(split, HORIZON)
        result[f"known {days} days ahead"] = {
            f"ndcg@{K}": mean_metric(with_plans),
            f"ndcg@{K}_minus_without": mean_metric(with_plans - plain),
            "planned_share_of_sold": mean_metric(planned[sold].astype(float)),
            "planned_share_of_others": mean_metric(planned[~sold].astype(float)),
        }
    return result


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        found = figures(Path(folder), 1 if arguments.quick else 2)
    results: dict[str, Any] = {}
    for name, metrics in found.items():
        for metric, one in metrics.items():
            print(f"{name:22s} {metric:26s} {one.value:.4f} [{one.low:.4f}, {one.high:.4f}]")
        results[name] = {metric: common.value(one.value, one.low, one.high, one.n) for metric, one in metrics.items()}
    difference = f"ndcg@{K}_minus_without"
    bounds = {
        AHEAD: found["known 28 days ahead"][difference].low,
        NOT_BEHIND: found["known 0 days ahead"][difference].high,
    }
    common.finish({"completejourney_november": results}, common.check(MUSTS, bounds), arguments.json)


if __name__ == "__main__":
    main()
