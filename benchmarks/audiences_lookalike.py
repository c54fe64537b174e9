"""Lookalikes on half-hidden segments of Complete Journey, and the cost of scoring a million customers.

    python benchmarks/audiences_lookalike.py [--figure FILE.png] [--quick] [--json FILE]

It is also a part of `benchmarks/audiences.py`. Segments are the households that redeem a coupon, or buy a category of
the second level, in the 28 days from 2017-11-01 and from 2017-12-01 on: 16 categories of all sizes from 3 % to 60 % of
the households, and 6 of those that are large enough for 400 seeds. The profiles end before these days. Half of a
segment is hidden; seeds of 25 to 400 are drawn from the other half, where it is large enough, 20 times. All members
that are no seeds are what is looked for: hidden positives are positives. The choices of the product were made on
profiles of August to October.

Baselines: chance, the distance to the seed's centroid in recency, frequency and money and in all columns, and logistic
regression (scikit-learn, C = 1) against four random others for each seed. The last two are made twice, on the
standardised profile and on the product's own columns; the best of all six is what the product is compared with, size by
size. Intervals are over segments, paired: the draws and the two dates of a segment are averaged first.

The cost of a million customers is that of the ranking of one seed of 200 for a list of 10,000, beside the product of
the same matrix with ten vectors and with one.
"""

from __future__ import annotations

import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import common
import numpy as np
from churn import cli
from common import Must
from threadpoolctl import threadpool_limits

from models.lookalike import LookalikeExpander
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from training import plots
from training.bootstrap import mean_metric
from training.jobs.base import TrainingContext
from training.lookalike.columns import fit_at, numeric_spec, plain_columns, rfm_columns
from training.lookalike.evaluation import (
    CENTROID,
    LOGISTIC,
    REACH_SHARES,
    SEED_SIZES,
    Scorer,
    baselines,
    ranking_metrics,
    reach_curve,
)
from training.lookalike.segments import COUPONS, segments_of

DATES, HORIZON = ("2017-11-01", "2017-12-01"), timedelta(days=28)
SEGMENTS, LARGE, SHARES, DRAWS, SEED = 16, 6, (0.03, 0.6), 20, 1
PICTURED = 100  # seeds of the picture
CUSTOMERS, FEATURES, SEEDS, SIZE, VECTORS, REPEATS = 1_000_000, 150, 200, 10_000, 10, 5
OURS = "qianmian"
SHORT = {"average_precision": "ap", "auc": "auc"}
MUSTS = {
    **{f"ap_minus_best_{size}_high": Must("metric", least=0.0) for size in SEED_SIZES if size < 100},
    **{f"ap_minus_best_{size}_low": Must("metric", least=0.0) for size in SEED_SIZES if size >= 100},
}
MILLION_MUSTS = {"million_ratio_product": Must("ratio", most=4.0)}
Measured = tuple[dict[str, Any], dict[str, float]]
Found = dict[str, dict[int, dict[str, dict[str, list[float]]]]]  # model → seeds → metric → segment → values


def scorers_at(context: TrainingContext, start: datetime, rng: np.random.Generator) -> tuple[dict[str, Scorer], Any]:
    """The product and the baselines at a date, and the ids of the customers."""
    spec = numeric_spec(context.profile(start))
    spec = spec.select([one.name for one in spec.features if one.aggregate not in ("attribute", "missing")])
    profile = context.profile(start, spec)
    model = fit_at(context, start, spec)
    plain = baselines(plain_columns(profile.values), rfm_columns(context, start), rng)
    own = baselines(model.space_, None, rng)
    made = {OURS: model.score, **plain, **{f"{name}, own columns": own[name] for name in (CENTROID, LOGISTIC)}}
    return made, profile.one_ids


def measured(workspace: Path, draws: int) -> tuple[Found, dict[str, list[np.ndarray]]]:
    """Metrics by model, number of seeds and segment, and the reach of `PICTURED` seeds by model."""
    found: Found = {}
    reach: dict[str, list[np.ndarray]] = {}
    settings = load_settings(Workspace(workspace).config_file)
    for day in DATES:
        start = datetime.fromisoformat(day)
        context = TrainingContext(Workspace(workspace), start + HORIZON, settings, lambda _: None)
        rng = np.random.default_rng(SEED)
        scorers, one_ids = scorers_at(context, start, rng)
        segments = segments_of(context, start, one_ids, SHARES, SEGMENTS)
        enough = (2 * SEED_SIZES[-1] / len(one_ids), SHARES[1])  # for the largest seed
        segments |= segments_of(context, start, one_ids, enough, LARGE)
        print(f"{day}: {len(segments)} segments of {', '.join(str(len(rows)) for rows in segments.values())}")
        for segment, members in segments.items():
            for _ in range(draws):
                given = rng.permutation(members)[: len(members) // 2]
                for size in (size for size in SEED_SIZES if size <= len(given)):
                    rest = np.setdiff1d(np.arange(len(one_ids)), given[:size])
                    truth = np.isin(rest, members)
                    for name, scorer in scorers.items():
                        scores = scorer(given[:size])[rest]
                        of_size = found.setdefault(name, {}).setdefault(size, {})
                        for metric, value in ranking_metrics(scores, truth).items():
                            of_size.setdefault(metric, {}).setdefault(segment, []).append(value)
                        if size == PICTURED:
                            reach.setdefault(name, []).append(reach_curve(scores, truth))
    return found, reach


def lookalike(folder: Path, figure: Path | None = None, draws: int = DRAWS) -> Measured:
    """Metrics by model, and the values of the musts; `figure` is where the reach curve is drawn."""
    workspace = folder / "completejourney"
    if not (workspace / "lake").exists():
        cli(workspace, "ingest", "completejourney")
    found, reach = measured(workspace, draws)
    results: dict[str, Any] = {name: {} for name in found}
    by_segment: dict[tuple[str, int, str], np.ndarray] = {}
    for name, sizes in found.items():
        for size, metrics in sizes.items():
            for metric, segments in metrics.items():
                means = np.array([np.mean(values) for values in segments.values()])
                by_segment[name, size, metric] = means
                key = f"{short(metric)}_{size}"
                results[name][key] = mean_metric(means).__dict__
                if metric == "average_precision" and COUPONS in segments:  # the one segment that no category defines
                    alone = segments[COUPONS]
                    results[name][f"ap_coupons_{size}"] = common.value(float(np.mean(alone)), n=len(alone))
    values: dict[str, float] = {}
    for size in SEED_SIZES:
        precision = {name: by_segment[name, size, "average_precision"] for name in found}
        best = max((name for name in precision if name != OURS), key=lambda name: float(precision[name].mean()))
        gain = mean_metric(precision[OURS] - precision[best])
        results[OURS][f"ap_minus_best_{size}"] = gain.__dict__
        bound = "high" if size < 100 else "low"
        values[f"ap_minus_best_{size}_{bound}"] = getattr(gain, bound)
        print(f"{size} seeds, {gain.n} segments: ap {precision[OURS].mean():.4f}, best of the others {best}, +{gain}")
    if figure is not None:
        lines = {name: np.mean(curves, axis=0).tolist() for name, curves in reach.items() if "own" not in name}
        drawn = plots.curves(
            REACH_SHARES.tolist(),
            lines,
            "share of customers contacted",
            "share of hidden members reached",
            f"Lookalikes: reach of {PICTURED} seeds",
        )
        drawn.savefig(figure, dpi=100)
    return results, values


def short(metric: str) -> str:
    """The metric in a key of the JSON: ``lift@5%`` is lift5."""
    return SHORT.get(metric, metric.replace("@", "").replace("%", ""))


def million() -> Measured:
    """CPU seconds of ranking a million customers, of their product with ten vectors and with one, and the memory."""
    rng = np.random.default_rng(SEED)
    space = rng.standard_normal((CUSTOMERS, FEATURES), dtype=np.float32)
    model = LookalikeExpander().use_space(space)
    seeds = rng.choice(CUSTOMERS, SEEDS, replace=False)
    ten = rng.standard_normal((FEATURES, VECTORS), dtype=np.float32)
    one = np.ascontiguousarray(ten[:, 0])
    with threadpool_limits(1):  # so that the product is the work of one core, as the ranking is
        seconds = {
            "cpu_seconds": cpu_seconds(lambda: model.expand(seeds, SIZE)),
            "cpu_seconds_evidence": cpu_seconds(lambda: model.evidence(seeds, SIZE, splits=10)),
            "cpu_seconds_product_10": cpu_seconds(lambda: space @ ten),
            "cpu_seconds_product_1": cpu_seconds(lambda: space @ one),
        }
    tracemalloc.start()
    model.expand(seeds, SIZE)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    figures = {
        **{f"million_{name}": value for name, value in seconds.items()},
        "million_ratio_product": seconds["cpu_seconds"] / seconds["cpu_seconds_product_10"],
        "million_ratio_product_1": seconds["cpu_seconds"] / seconds["cpu_seconds_product_1"],
        "million_peak_mb": peak,
    }
    print(f"{CUSTOMERS:,} × {FEATURES}:", ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    results = {OURS: {name: common.value(value) for name, value in figures.items()}}
    return results, {"million_ratio_product": figures["million_ratio_product"]}


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call, the least of some."""
    found = []
    for _ in range(REPEATS):
        begun = time.process_time()
        call()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the reach curve")
    arguments = parser.parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        results, values = lookalike(Path(folder), arguments.figure, draws=2 if arguments.quick else DRAWS)
    scaled, ratios = million()
    for model, metrics in results.items():
        for name, one in metrics.items():
            print(f"  {model:52s} {name:24s} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}] n {one['n']}")
    checks = common.check({**MUSTS, **MILLION_MUSTS}, {**values, **ratios})
    common.finish({"completejourney": results, "million": scaled}, checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
