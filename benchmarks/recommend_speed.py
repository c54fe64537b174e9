"""Speed of batch recommendation and of fits, compared with implicit and LightFM, and memory for a million users.

The libraries are timed in the same process, in turns with ours and with the same number of threads; the best of the
repetitions counts. `--data DIR` (Gowalla, LightGCN split, in `DIR/lightgcn_gowalla/train.parquet`) adds factors of a
fitted model; Complete Journey comes with the package of the demo.
"""

from __future__ import annotations

import os
import sys

# `implicit` recommends it and is fastest with it; our code starts its own threads and needs none of BLAS
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import common  # noqa: I001  (puts the packages on the path)

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Check, Must
from scipy import sparse

from models.inner_product_search import FactorIndex
from models.parallel import thread_budget

K = 100
REPETITIONS = 5
MILLION = {"users": 1_000_000, "items": 100_000, "factors": 64}
MUSTS = {
    "rate relative to implicit.topk": Must("ratio", least=1.0),
    "rate of recommend() relative to implicit.topk": Must("ratio", least=1.0),
    "share of slots equal to implicit.topk": Must("metric", least=0.99),
    "rate relative to LightFM.predict": Must("ratio", least=10.0),
    "CPU seconds of a fit relative to the library": Must("ratio", most=1.1),
    # for a million users: factors 281 MB, item index 26 MB, results of a chunk 40 MB, the rest Python and its libraries
    "memory": Must("peak_mb", most=800),
}


def time_interleaved(
    calls: dict[str, Callable[[], Any]], repetitions: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Minimum seconds of each call; the calls are made in turns, so that all run under the same load."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repetitions):
        for name, call in calls.items():
            started = clock()
            call()
            best[name] = min(best[name], clock() - started)
    return best


def lognormal_factors(
    n_users: int, n_items: int, factors: int, spread: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian factors; `spread` is the standard deviation of the logarithm of item norms (iALS on Gowalla: .8)."""
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((n_users, factors), dtype=np.float32)
    items = rng.standard_normal((n_items, factors), dtype=np.float32)
    if spread:
        items *= np.exp(np.float32(spread) * rng.standard_normal((n_items, 1), dtype=np.float32))
    return users, items


def benchmark_topk(
    name: str,
    users: np.ndarray,
    items: np.ndarray,
    interacted: sparse.csr_matrix | None,
    repetitions: int,
    recommend: Callable[[bool], Any] | None = None,
) -> tuple[dict[str, Any], list[Check]]:
    """Users per second of `FactorIndex.search`, `implicit.topk` and a model's `recommend` for the top 100.

    Each is measured without and with excluding the items that the user interacted with.
    """
    from implicit.cpu.topk import topk

    n, threads = len(users), thread_budget()
    rng = np.random.default_rng(1)
    if interacted is None:
        interacted = sparse.csr_matrix(
            (np.ones(30 * n, np.float32), rng.integers(0, len(items), 30 * n), np.arange(0, 30 * n + 1, 30)),
            shape=(n, len(items)),
        )
        interacted.sum_duplicates()
    started = time.perf_counter()
    index = FactorIndex(items)
    built = time.perf_counter() - started
    found: dict[str, Any] = {}
    checks: list[Check] = []
    for label, excluded in (("", None), (", what they had left out", interacted)):
        calls = {
            "ours": lambda excluded=excluded: index.search(users, K, excluded=excluded, threads=threads),
            "implicit": lambda excluded=excluded: topk(
                items, users, K, filter_query_items=excluded, num_threads=threads
            ),
        }
        if recommend is not None:
            calls["recommend"] = lambda excluded=excluded: recommend(excluded is not None)
        seconds = time_interleaved(calls, repetitions)
        ratio = seconds["implicit"] / seconds["ours"]
        ids, _ = index.search(users[:200], K, excluded=None if excluded is None else excluded[:200])
        theirs, _ = topk(
            items, users[:200], K, filter_query_items=None if excluded is None else excluded[:200], num_threads=threads
        )
        agree = float((ids == theirs).mean())
        print(
            f"{name}{label}: {n / seconds['ours']:,.0f} users/s, "
            f"implicit.topk {n / seconds['implicit']:,.0f}, ratio {ratio:.2f}; "
            f"{agree:.2%} of the slots are equal; index built in {built * 1000:.0f} ms"
        )
        values = {"rate relative to implicit.topk": ratio, "share of slots equal to implicit.topk": agree}
        found[f"top {K}{label}"] = {
            "users_per_second": common.value(n / seconds["ours"], n=n),
            "ratio_implicit": common.value(ratio, n=n),
            "users_per_second_implicit": common.value(n / seconds["implicit"], n=n),
        }
        if recommend is not None:
            through = seconds["implicit"] / seconds["recommend"]
            print(f"{name}{label}, through recommend(): {n / seconds['recommend']:,.0f} users/s, ratio {through:.2f}")
            found[f"recommend, top {K}{label}"] = {
                "users_per_second": common.value(n / seconds["recommend"], n=n),
                "ratio_implicit": common.value(through),
            }
            values["rate of recommend() relative to implicit.topk"] = through
        checks += common.check(MUSTS, values, f"{name}{label}")
    return {name: found}, checks


def load_complete_journey(folder: Path) -> Any:
    """Training set of Complete Journey at 2017-11-01."""
    from datetime import datetime

    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions import FEATURES
    from features.training_data import training_set
    from qianmian.workspace import Workspace

    common.timed([sys.executable, "-m", "cli.main", "ingest", "completejourney", "--workspace", str(folder)])
    return training_set(Builder(Lake(Workspace(folder)), FEATURES), datetime(2017, 11, 1))


def load_gowalla(data: Path) -> Any:
    """Training pairs of the LightGCN split."""
    import pyarrow.parquet as pq

    from features.interactions import TrainingSet

    rows = pq.read_table(data / "lightgcn_gowalla" / "train.parquet")
    users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
    return TrainingSet.from_arrays(users, items, n_users=int(users.max()) + 1, n_items=int(items.max()) + 1)


def benchmark_fit(name: str, train: Any, repetitions: int) -> tuple[dict[str, Any], list[Check], Any]:
    """CPU seconds of our fit of iALS and of the library's fit on a given matrix, with the same number of threads."""
    from implicit.cpu.als import AlternatingLeastSquares

    from models.recommend.ials import ImplicitALSRecommender, noise_level

    model = ImplicitALSRecommender()
    counts = train.interactions.matrix(model.half_life_days)
    ridge = model.regularization * noise_level(counts)

    def bare() -> None:
        AlternatingLeastSquares(
            factors=model.factors,
            iterations=model.iterations,
            regularization=ridge,
            alpha=model.alpha,
            random_state=0,
            num_threads=thread_budget(),
        ).fit(counts, show_progress=False)

    seconds = time_interleaved({"bare": bare, "ours": lambda: model.fit(train)}, repetitions, time.process_time)
    line, checks = _fit_overhead(f"{name}, iALS", seconds)
    return {"ials": line}, checks, model


def benchmark_hybrid_fit(train: Any, repetitions: int) -> tuple[dict[str, Any], list[Check], Any]:
    """CPU seconds of our fit of the hybrid and of LightFM's, and rates of our batch top-k and of LightFM.predict."""
    from lightfm import LightFM

    from models.recommend.hybrid import HybridRecommender, _normalised, item_attributes, user_attributes

    model = HybridRecommender()
    users = _normalised(
        sparse.hstack(
            [sparse.identity(train.n_users, dtype=np.float32, format="csr"), user_attributes(train)[1]], format="csr"
        )
    )
    items = _normalised(
        sparse.hstack(
            [sparse.identity(train.n_items, dtype=np.float32, format="csr"), item_attributes(train)], format="csr"
        )
    )
    counts = train.interactions.matrix().tocoo()
    theirs: dict[str, Any] = {}

    def bare() -> None:
        theirs["model"] = LightFM(
            no_components=model.factors,
            loss="warp",
            learning_rate=model.learning_rate,
            item_alpha=model.item_alpha,
            user_alpha=model.user_alpha,
            random_state=np.random.RandomState(0),
        ).fit(counts, user_features=users, item_features=items, epochs=model.epochs, num_threads=1)

    seconds = time_interleaved({"bare": bare, "ours": lambda: model.fit(train)}, repetitions, time.process_time)
    line, checks = _fit_overhead("Complete Journey, hybrid", seconds)
    # LightFM scores given pairs; it gets all items of about 100 users, which takes about two seconds
    every_user, sample = np.arange(train.n_users), np.arange(0, train.n_users, max(1, train.n_users // 100))
    pairs = (
        np.repeat(sample, train.n_items).astype(np.int32),
        np.tile(np.arange(train.n_items, dtype=np.int32), len(sample)),
    )
    seconds = time_interleaved(
        {
            "ours": lambda: model.recommend(every_user, K),
            "theirs": lambda: theirs["model"].predict(
                *pairs, item_features=items, user_features=users, num_threads=thread_budget()
            ),
        },
        max(2, repetitions),
    )
    rate, their_rate = len(every_user) / seconds["ours"], len(sample) / seconds["theirs"]
    ratio = rate / their_rate
    print(
        f"hybrid, top {K} of {train.n_items:,} items: {rate:,.0f} users/s, "
        f"LightFM.predict {their_rate:,.0f} (for {len(sample)} users, scores only), ratio {ratio:.1f}"
    )
    line |= {
        "users_per_second": common.value(rate, n=len(every_user)),
        "ratio_predict": common.value(ratio),
    }
    return {"hybrid": line}, checks + common.check(MUSTS, {"rate relative to LightFM.predict": ratio}, "hybrid"), model


def _fit_overhead(name: str, seconds: dict[str, float]) -> tuple[dict[str, Any], list[Check]]:
    ratio = seconds["ours"] / seconds["bare"]
    print(f"{name}: fit {seconds['ours']:.2f} CPU s, the library's fit {seconds['bare']:.2f} CPU s, {ratio - 1:+.1%}")
    found = {
        "seconds": common.value(seconds["ours"]),
        "seconds_bare": common.value(seconds["bare"]),
        "ratio_bare": common.value(ratio),
    }
    return found, common.check(MUSTS, {"CPU seconds of a fit relative to the library": ratio}, name)


def benchmark_million_users(n_users: int) -> tuple[dict[str, Any], list[Check]]:
    """Search for many users × 100,000 items, in its own process to measure its peak memory."""
    results: dict[str, Any] = {}
    checks: list[Check] = []
    for label, spread in (("lengths differ", 0.8), ("all of one length", 0.0)):
        cost = common.Cost(**common.run_child([sys.executable, __file__, "--child", str(n_users), str(spread)]))
        rate = n_users / cost.wall_seconds
        size = f"{n_users:,} users × {MILLION['items']:,} items × {MILLION['factors']}"
        print(
            f"{size}, {label}: {cost}, {rate:,.0f} users/s "
            f"(the matrix of all scores would take {n_users * MILLION['items'] * 4 / 1e9:,.0f} GB)"
        )
        results[f"{size}, {label}"] = {"qianmian": {**cost.metrics(), "users_per_second": common.value(rate)}}
        checks += common.check(MUSTS, {"memory": cost.peak_mb}, f"{size}, {label}")
    return results, checks


def child(n_users: int, spread: float) -> None:
    """Search in chunks, like `score recommend`, and print the cost."""
    users, items = lognormal_factors(n_users, MILLION["items"], MILLION["factors"], spread)

    def search() -> int:
        index, valid = FactorIndex(items), 0
        for start in range(0, n_users, 50_000):
            ids, _ = index.search(users[start : start + 50_000], K)
            valid += int((ids >= 0).sum())
        return valid

    valid, cost = common.measure_cost(search)
    if valid != n_users * K:
        sys.exit(f"{n_users * K - valid} slots are empty")
    print(cost.json())


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), float(sys.argv[3]))
        return
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    repetitions = 2 if arguments.quick else REPETITIONS
    print(f"{common.machine()}; {thread_budget()} threads, top {K}, best of {repetitions}")
    results: dict[str, Any] = {}
    checks: list[Check] = []
    n = 4_000 if arguments.quick else 20_000
    for n_items, factors in ((10_000, 64), (50_000, 128)):
        users, items = lognormal_factors(n if n_items == 10_000 else n // 2, n_items, factors, 0.0)
        found, more = benchmark_topk(f"{n_items:,} items × {factors}, Gaussian", users, items, None, repetitions)
        results |= found
        checks += more
    with tempfile.TemporaryDirectory() as folder:
        train = load_complete_journey(Path(folder) / "workspace")
    found, more, model = benchmark_fit("Complete Journey", train, repetitions)
    checks += more
    warm = np.flatnonzero(np.diff(model.history_.indptr) > 0)
    rates, more = benchmark_topk(
        "completejourney",
        model.user_factors_[warm],
        model.index_.item_vectors,
        model.history_[warm],
        repetitions,
        lambda new_only: model.recommend(warm, K, exclude_purchased=new_only),
    )
    results["completejourney"] = {**found, **rates["completejourney"]}
    checks += more
    found, more, _ = benchmark_hybrid_fit(train, 1 if arguments.quick else 3)
    results["completejourney"] |= found
    checks += more
    if arguments.data is not None and (arguments.data / "lightgcn_gowalla" / "train.parquet").exists():
        train = load_gowalla(arguments.data)
        found, more, model = benchmark_fit("Gowalla", train, min(repetitions, 3))
        checks += more
        every_user = np.arange(train.n_users)
        rates, more = benchmark_topk(
            "gowalla",
            model.user_factors_,
            model.index_.item_vectors,
            model.history_,
            repetitions,
            lambda new_only: model.recommend(every_user, K, exclude_purchased=new_only),
        )
        results["gowalla"] = {**found, **rates["gowalla"]}
        checks += more
    else:
        print(
            "Gowalla is left out: pass --data DIR, where DIR has lightgcn_gowalla/train.parquet "
            "(https://github.com/kuandeng/LightGCN, Data/gowalla)"
        )
    found, more = benchmark_million_users(50_000 if arguments.quick else MILLION["users"])
    results |= found
    common.finish(results, checks + more, arguments.json)


if __name__ == "__main__":
    main()
