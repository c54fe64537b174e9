"""Drift of what a monitor watches: false alarms, planted drift, and Complete Journey replayed.

A part of `benchmarks/measurement.py`; by itself: `python benchmarks/measurement_drift.py`.

Simulations: twenty columns that share a factor, in seven windows of 56 days, of which the last is now. Every day has an
effect of its own (standard deviation .1 of that of the rows), which is correlated from day to day (.5), and every
weekday has one. Histograms of days are drawn from their distributions, so that a million rows cost what a thousand do.
`SHOPS` has others: days that are correlated by .8; weekdays of their own, with other numbers of rows; heavy tails, in
rows and days; counts, on days whose number of rows varies more than chance would have it.

- `false_alarm_rate_ROWS`: times that any column is said to have drifted although nothing has changed;
  `false_alarm_rate_ROWS_SHOP` is that of the other shops, of half as many simulations.
- `noise_alarm_rate_ROWS`: times that any column is beyond noise, by the permuted days alone, whatever its effect.
- `detected`: times that a column which moved by .2 standard deviations is found at 10,000 rows.
- `ks_test`: the same days judged by two-sample tests of rows with Bonferroni's correction, which know no days.

Complete Journey: a champion of 2017-04-24, the first that there can be, is replayed month by month to the end of the
twelve months; then the orders of every third day of the last weeks are taken away, as if a nightly import had failed,
and looked at again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import Must
from completejourney import cli
from numpy.typing import NDArray
from scipy.special import kolmogi
from scipy.stats import norm, poisson

import training.monitoring.drift as monitored
from models.day_histograms import BINS, DayHistograms

ALPHA, COLUMNS, WINDOWS, UNITS, UNIT_DAYS = 0.05, 20, 7, 8, 7
DAY_SPREAD, SHARED, HEAVY = 0.1, 0.5, 1.5
SIZES, PLANTED_ROWS, PLANTED = (1_000, 1_000_000), 10_000, 0.2
SIMULATIONS, PERMUTATIONS, OTHER_SEEDS = 1_000, 499, 70_000
MOST_FALSE, MOST_FALSE_OTHER = (ALPHA + 2 * (ALPHA * (1 - ALPHA) / n) ** 0.5 for n in (SIMULATIONS, SIMULATIONS // 2))
# a training needs 112 days: two horizons to be active, one to learn from and one to test; the data begin on 2017-01-01
TRAINED, END = "2017-04-24", "2018-01-02"
FAILED_FROM = 292  # day of the year, 2017-10-19
PEER = "ks_test"
MUSTS = {
    "false_alarm_rate": Must("metric", most=MOST_FALSE),
    "false_alarm_rate_other_shops": Must("metric", most=MOST_FALSE_OTHER),
    "detected": Must("metric", least=0.95),
    "replay_cpu_seconds": Must("cpu_seconds", most=60),
}


@dataclass(frozen=True)
class Shop:
    """How the days of a simulated shop vary.

    Attributes
    ----------
    correlation : float
        Of the effects of neighbouring days.
    weekday_spread : float
        Standard deviation of the effects of the weekdays.
    rows : {"normal", "lognormal", "counts"}
        Distribution of the rows of a day.
    heavy_days : bool
        Whether the effects of days have the tails of Student's t with 3 degrees of freedom.
    weekly_volume : float
        By what share the number of rows swings within a week.
    busy_days : bool
        Whether the number of rows of a day varies more than that of a Poisson distribution.
    """

    correlation: float = 0.5
    weekday_spread: float = 0.1
    rows: str = "normal"
    heavy_days: bool = False
    weekly_volume: float = 0.0
    busy_days: bool = False


USUAL_SHOP = Shop()
SHOPS = {
    "correlated": Shop(correlation=0.8),
    "weekly": Shop(correlation=0.3, weekday_spread=0.3, weekly_volume=0.6),
    "heavy": Shop(rows="lognormal", heavy_days=True),
    "counts": Shop(rows="counts", busy_days=True),
}
Floats = NDArray[np.float64]
Measured = tuple[dict[str, Any], dict[str, float]]


def drift(folder: Path | None = None, simulations: int = SIMULATIONS) -> Measured:
    """False alarms, detection and the replay; and the values of the musts.

    Parameters
    ----------
    folder : Path, optional
        Folder for a workspace with Complete Journey; without it nothing is replayed.
    simulations : int
    """
    n, begun = simulations, time.process_time()
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    false, others = [], []
    for rows in SIZES:
        alarms = np.array([_alarms(seed, rows) for seed in range(n)])
        for name, rate in zip(("false_alarm_rate", "noise_alarm_rate"), alarms.mean(axis=0), strict=False):
            ours[f"{name}_{rows}"] = _share(float(rate), n)
        theirs[f"false_alarm_rate_{rows}"] = _share(float(alarms[:, 2].mean()), n)
        false.append(float(alarms[:, 0].mean()))
        if rows == max(SIZES):
            single = float(np.mean([_beyond_noise(seed, rows, together=0.0) for seed in range(n)]))
            ours[f"noise_alarm_rate_{rows}_without_runs"] = _share(single, n)
        print(f"{rows:,} rows: " + ", ".join(f"{part:.3f}" for part in alarms.mean(axis=0)), flush=True)
    for name, shop in SHOPS.items():
        for rows in SIZES:
            seeds = range(OTHER_SEEDS, OTHER_SEEDS + n // 2)
            rate = float(np.mean([_alarms(seed, rows, shop)[0] for seed in seeds]))
            ours[f"false_alarm_rate_{rows}_{name}"] = _share(rate, n // 2)
            others.append(rate)
            print(f"{rows:,} rows, {name}: {rate:.3f}", flush=True)
    found = float(np.mean([_finds(seed) for seed in range(n)]))
    ours["false_alarm_rate"] = _share(max(false), n)
    ours["detected"] = _share(found, n)
    ours["simulations_cpu_seconds"] = common.value(time.process_time() - begun, n=n)
    values = {"false_alarm_rate": max(false), "false_alarm_rate_other_shops": max(others), "detected": found}
    if folder is not None:
        replayed = replay(folder / "completejourney_replayed")
        ours |= {name: common.value(number) for name, number in replayed.items()}
        values["replay_cpu_seconds"] = replayed["replay_cpu_seconds"]
    return {"qianmian": ours, PEER: theirs}, values


def _share(rate: float, n: int) -> dict[str, Any]:
    spread = 1.96 * (rate * (1 - rate) / n) ** 0.5
    return common.value(rate, max(rate - spread, 0.0), min(rate + spread, 1.0), n)


def simulated(
    seed: int, rows: int, planted: float = 0.0, shop: Shop = USUAL_SHOP
) -> tuple[DayHistograms, DayHistograms]:
    """Histograms of a reference and of now; the first column of now is moved by `planted` standard deviations."""
    rng = np.random.default_rng(seed)
    days = WINDOWS * UNITS * UNIT_DAYS
    own, shared = rng.normal(size=(days, COLUMNS)), rng.normal(size=(days, 1))
    if shop.heavy_days:
        own = rng.standard_t(3, size=(days, COLUMNS)) / np.sqrt(3)
    innovations = np.sqrt(1 - SHARED**2) * own + SHARED * shared
    means = innovations.copy()
    for day in range(1, days):
        kept = shop.correlation * means[day - 1]
        means[day] = kept + np.sqrt(1 - shop.correlation**2) * innovations[day]
    means = DAY_SPREAD * means + rng.normal(0, shop.weekday_spread, (7, COLUMNS))[np.arange(days) % 7]
    means[-UNITS * UNIT_DAYS :, 0] += planted
    volume = 1 + shop.weekly_volume * np.sin(2 * np.pi * np.arange(days) / 7)
    if shop.busy_days:
        volume = volume * rng.gamma(2, 0.5, days)
    n = rng.poisson(rows / (UNITS * UNIT_DAYS) * volume)
    edges, below, (centres, variances) = _distribution(shop.rows, means)
    ends = np.zeros((days, COLUMNS, 1)), np.ones((days, COLUMNS, 1))
    shares = np.diff(np.concatenate([ends[0], below, ends[1]], axis=2), axis=2)
    counts = np.zeros((days, COLUMNS, BINS + 2))
    counts[:, :, : shares.shape[2]] = rng.multinomial(n[:, None], shares)
    sums = n[:, None] * centres + np.sqrt(n[:, None] * variances) * rng.normal(size=(days, COLUMNS))
    squares = n[:, None] * (variances + centres**2)
    parts = [part.reshape(WINDOWS, UNITS, UNIT_DAYS, *part.shape[1:]).sum(axis=2) for part in (counts, sums, squares)]
    ends_of, bounds = np.arange(float(WINDOWS)), UNIT_DAYS * np.arange(1.0, UNITS)
    every = np.full((COLUMNS, BINS + 1), np.nan)
    every[:, : len(edges)] = edges
    reference, now = (
        DayHistograms(ends_of[rows_], bounds, every, *(part[rows_] for part in parts))
        for rows_ in (slice(0, -1), slice(-1, None))
    )
    return reference, now


def _distribution(rows: str, means: Floats) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Edges of the bins, shares of the rows below them by day and column, and mean and variance of the rows."""
    deciles = norm.ppf(np.arange(1, BINS) / BINS)
    if rows == "counts":
        expected, counts = 2 * np.exp(means), np.arange(7)
        return counts + 0.5, poisson.cdf(counts, expected[:, :, None]), (expected, expected)
    below = norm.cdf(deciles - means[:, :, None])
    if rows == "lognormal":
        centres = np.exp(HEAVY * means + HEAVY**2 / 2)
        return np.exp(HEAVY * deciles), below, (centres, (np.exp(HEAVY**2) - 1) * centres**2)
    return deciles, below, (means, np.ones_like(means))


def _alarms(seed: int, rows: int, shop: Shop = USUAL_SHOP) -> tuple[bool, bool, bool]:
    """Whether any column has drifted, is beyond noise, and is rejected by a test of rows; nothing has changed."""
    reference, now = simulated(seed, rows, shop=shop)
    found = monitored.drift(reference, now, monitored.Limits(ALPHA), seed, PERMUTATIONS)
    return any(one.drifted for one in found), any(one.beyond_noise for one in found), _tests(reference, now)


def _beyond_noise(seed: int, rows: int, together: float) -> bool:
    """Whether any column is beyond noise; nothing has changed."""
    found = monitored.drift(*simulated(seed, rows), monitored.Limits(ALPHA), seed, PERMUTATIONS, together)
    return any(one.beyond_noise for one in found)


def _tests(reference: DayHistograms, now: DayHistograms) -> bool:
    """Whether a two-sample Kolmogorov–Smirnov test, at the bounds of the bins, rejects any column (Bonferroni)."""
    sides = [part.counts.sum(axis=(0, 1)) for part in (reference, now)]
    totals = [side.sum(axis=1) for side in sides]
    shares = [np.cumsum(side, axis=1) / total[:, None] for side, total in zip(sides, totals, strict=True)]
    distance = np.abs(shares[0] - shares[1]).max(axis=1)
    n = totals[0] * totals[1] / (totals[0] + totals[1])
    return bool((distance * np.sqrt(n) > kolmogi(ALPHA / COLUMNS)).any())


def _finds(seed: int) -> bool:
    reference, now = simulated(seed, PLANTED_ROWS, PLANTED)
    found = monitored.drift(reference, now, monitored.Limits(ALPHA), seed, PERMUTATIONS)
    return found[0].drifted


def replay(workspace: Path) -> dict[str, float]:
    """CPU seconds of the replay, the number of its moments, and whether a failed import is found."""
    cli(workspace, "ingest", "completejourney")
    cli(workspace, "train", "churn", "--as-of", TRAINED)
    cost = cli(workspace, "monitor", "--replay", "--as-of", END)
    moments = monitor(workspace, "--replay", "--as-of", END)["replay"]["churn"]
    for one in moments:
        print(f"{one['as_of'][:10]}: {'; '.join(_alarms_of(one)) or 'fine'}", flush=True)
    before = {name for name, one in moments[-1]["columns"].items() if one["drifted"]}
    drop_days(workspace)
    planted = monitor(workspace, "--as-of", moments[-1]["as_of"])["models"]["churn"]
    print(f"after a failed import: {'; '.join(_alarms_of(planted))}")
    after = {name for name, one in planted["columns"].items() if one["drifted"]}
    return {
        "replay_cpu_seconds": cost.cpu_seconds,
        "replay_moments": float(len(moments)),
        "columns_that_a_failed_import_moves": float(len(after - before)),
    }


def monitor(workspace: Path, *words: str) -> dict[str, Any]:
    """What `qianmian monitor --json` prints; an alarm has an exit code of its own."""
    command = [sys.executable, "-m", "cli.main", "monitor", *words, "--json", "--workspace", str(workspace)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout))


def _alarms_of(report: dict[str, Any]) -> list[str]:
    return [f"{check['check']}: {check['text']}" for check in report["checks"] if check["status"] == "alarm"]


def drop_days(workspace: Path) -> None:
    """Take the transactions of every third day out of the lake, from 2017-10-19 on."""
    for path in sorted((workspace / "lake" / "transactions").rglob("*.parquet")):
        table = pq.read_table(path)
        day = pc.day_of_year(table["ts"])
        third = pc.equal(pc.subtract(day, pc.multiply(pc.divide(day, 3), 3)), 0)
        lost = pc.and_(third, pc.greater_equal(day, FAILED_FROM))
        pq.write_table(table.filter(pc.invert(lost)), path)


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    part = common.Part("drift", lambda _data, folder: drift(folder, 100 if arguments.quick else SIMULATIONS), MUSTS)
    common.run_parts({"drift": part}, ["drift"], arguments.data, arguments.json)


if __name__ == "__main__":
    main()
