"""Whether a ranker that learns from sampled customers, and scenes measured on some, are as good as with all of them.

    python benchmarks/sampling.py [--quick] [--json FILE]

Complete Journey, and four copies of it with new customers (9,876), before 1 November 2017. The ranker of `home` is
fitted with the default number of customers per cutoff and with fewer, and compared with one that learns from all; the
differences of NDCG@10 in October are paired by household, the mean of the seeds. Copies of a household are the same
customer to a model, so that only the first copy is measured. The benchmark also says how far the mean over the sampled
examples of a scene is from that over all. Takes about 10 CPU minutes; --quick measures one copy with one seed.
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
import scale_data
from common import Must
from numpy.typing import NDArray

from features.compute.builder import Builder
from models.recommend.ranking.two_stage import TwoStageRecommender
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.bootstrap import mean_metric
from training.evaluation.metrics import ranking_metrics
from training.holdout import HoldoutSplit, HoldoutSplitter
from training.jobs.base import TrainingContext
from training.selection.evaluation import sampled
from training.tasks import TASKS

END, HORIZON, K = datetime(2017, 11, 1), 28.0, 10
COPIES = (1, 4)
CUSTOMERS = (500, 1_000, 2_000, TwoStageRecommender().users_per_cut)  # per cutoff
STAGES = {"repeat": {"half_life_days": 90.0}}
MUSTS = {
    "high end of the difference": Must("metric", least=0.0),
    "low end of the difference": Must("metric", most=0.0),
}


def ndcg(split: HoldoutSplit, users: NDArray[np.int64], customers: int, seeds: int) -> NDArray[np.float64]:
    """NDCG of some customers, the mean of the seeds, by rankers that learn from `customers` per cutoff."""
    examples, found = TASKS["home"].examples(split.train, split.holdout, 0), []
    for seed in range(seeds):
        model = TwoStageRecommender(
            horizon_days=HORIZON, stage_parameters=STAGES, users_per_cut=customers, seed=seed
        ).fit(replace(split.train))
        rows = np.flatnonzero(np.isin(examples.users, users))
        ids = model.recommend(examples.users[rows], K).ids
        found.append(ranking_metrics(ids, examples.truth[rows], K, ("ndcg",))["ndcg"])
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def figures(folder: Path, copies: int, seeds: int) -> dict[str, dict[str, Any]]:
    """Metrics by the number of customers that the ranker learns from."""
    config, workspace = scale_data.write_copies(folder / "data", copies), folder / "workspace"
    place = ["--workspace", str(workspace)]
    common.timed([sys.executable, "-m", "cli.main", "ingest", "files", "--config", str(config), *place])
    context = TrainingContext(Workspace(workspace), END, Settings(), lambda _: None)
    split = HoldoutSplitter(context).test()
    first = first_copies(context.builder, split)
    everyone = ndcg(split, first, split.train.n_users, seeds)
    result = {"all customers": {f"ndcg@{K}": mean_metric(everyone)}}
    for customers in CUSTOMERS:
        if customers < split.train.n_users:
            some = ndcg(split, first, customers, seeds)
            result[f"{customers:,} customers"] = {
                f"ndcg@{K}": mean_metric(some),
                f"ndcg@{K}_minus_all": mean_metric(some - everyone),
            }
    examples = TASKS["home"].examples(split.train, split.holdout, 0)
    fewer = sampled(examples, 0)
    model = TASKS["home"].candidates(Settings().recommend, 0)["repeat"].fit(split.train)
    means = [
        mean_metric(ranking_metrics(model.recommend(one.users, K).ids, one.truth, K, ("ndcg",))["ndcg"])
        for one in (examples, fewer)
    ]
    result["scene on all examples"] = {f"ndcg@{K}": means[0]}
    result[f"scene on {len(fewer):,} of {len(examples):,} examples"] = {f"ndcg@{K}": means[1]}
    return result


def first_copies(builder: Builder, split: HoldoutSplit) -> NDArray[np.int64]:
    """Rows of the customers that are the first copy of a household."""
    customers = builder.backend.table("customers").to_pyarrow().to_pandas()
    of_first = customers[customers.source_user_id.str.endswith("-0")].one_id.to_numpy().astype(np.str_)
    rows = split.train.user_rows(of_first)
    return rows[rows >= 0]


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    results, checks = {}, []
    default = f"{CUSTOMERS[-1]:,} customers"
    for copies in COPIES[:1] if arguments.quick else COPIES:
        with tempfile.TemporaryDirectory() as folder:
            found = figures(Path(folder), copies, 1 if arguments.quick else 2)
        for name, metrics in found.items():
            for metric, one in metrics.items():
                print(f"x{copies} {name:34s} {metric:20s} {one.value:.4f} [{one.low:.4f}, {one.high:.4f}]", flush=True)
        results[f"x{copies}"] = {
            name: {metric: common.value(one.value, one.low, one.high, one.n) for metric, one in metrics.items()}
            for name, metrics in found.items()
        }
        if default in found:  # else the default is all customers
            difference = found[default][f"ndcg@{K}_minus_all"]
            bounds = {"high end of the difference": difference.high, "low end of the difference": difference.low}
            checks += common.check(MUSTS, bounds, f"x{copies}")
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    main()
