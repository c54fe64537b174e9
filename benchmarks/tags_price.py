"""Price tags on Complete Journey: whether `price_band` agrees between halves, and whether `trading` tells what follows.

    python benchmarks/tags_price.py [--quick] [--json FILE]

At each moment, from rows before it:

- agreement: the lines of each customer are divided in two halves at random, once by order and once by line. Each half
  gets its own band, with the edges of everybody; Cohen's kappa compares those that are known in both. The placebo
  exchanges the price levels of the lines of each category.
- stability: the tags are made again without the lines of more than 100 units (fuel in thousandths of a gallon, where
  the source does not convert it).
- trading: mean price level of the next 28 days minus that of the customer before the last 56, of `up` minus `down`.
  The placebo exchanges each customer's lines between the two windows. The levels are those known at the moment.

All choices were made at the moments up to 2017-09-05, except that the first form of `trading` (28 days against 182) was
also looked at once at the later moments. Musts, at every later moment: kappa of halves by order ≥ .6; the
same band for ≥ 98 % of the customers without the large lines; a band for ≥ 60 % of the customers with 20 lines; over
these moments together, `trading` at least three standard errors above its placebo.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import pyarrow as pa
from common import Check, Must

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles.tags import TAGS
from features.profiles.tags.declare import fit_tags, tag_values
from qianmian.workspace import Workspace

CHOSEN_AT = (datetime(2017, 7, 4), datetime(2017, 9, 5))
TESTED_AT = (datetime(2017, 10, 3), datetime(2017, 12, 5))
PRICE_TAGS = tuple(TAGS[name] for name in ("price_band", "demand_type", "trading"))
BANDS = TAGS["price_band"].values
MIN_LINES, LARGE_UNITS, NEXT_DAYS, MIN_NEXT_LINES, SEEDS = 20, 100, 28, 10, 5
MUSTS = {
    "kappa of halves by order": Must("metric", least=0.6),
    "same band without large lines": Must("metric", least=0.98),
    "known": Must("metric", least=0.6),
    "trading above its placebo, standard errors": Must("metric", least=3.0),
}


def kappa(one: Sequence[str], other: Sequence[str], values: Sequence[str], weighted: bool = False) -> float:
    """Cohen's kappa of two ratings; `weighted` by the distance of the values."""
    at = {value: number for number, value in enumerate(values)}
    table = np.zeros((len(values), len(values)))
    np.add.at(table, ([at[value] for value in one], [at[value] for value in other]), 1.0)
    distance = np.abs(np.subtract.outer(range(len(values)), range(len(values)))).astype(float)
    cost = distance if weighted else (distance > 0).astype(float)
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(1 - (cost * table).sum() / (cost * chance).sum())


def builder_of(workspace: Path, most_units: float | None = None) -> Builder:
    """The builder of a workspace, of its lines of up to so many units only."""
    builder = Builder(Lake(Workspace(workspace)), FEATURES)
    if most_units is not None:
        builder.backend.raw_sql("ALTER VIEW transactions RENAME TO all_transactions")
        builder.backend.raw_sql(
            "CREATE VIEW transactions AS SELECT * FROM all_transactions "
            f"WHERE coalesce(quantity, 0) <= {float(most_units)}"
        )
    return builder


def tags_at(builder: Builder, as_of: datetime) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The price tags of all customers with `lines_total`, by one_id, and the fitted parameters."""
    names = {name for tag in PRICE_TAGS for name in tag.inputs} | {"lines_total"}
    table = builder.build(as_of, [feature for feature in FEATURES if feature.name in names]).table
    tags = [tag for tag in PRICE_TAGS if tag.supported(table.column_names)]
    values = tag_values(table, tags)
    return pd.DataFrame(
        {**values, "lines": table["lines_total"].to_numpy()}, index=table["one_id"].to_pylist()
    ), fit_tags(table, tags)


def lines_around(builder: Builder, as_of: datetime) -> pd.DataFrame:
    """The lines until 28 days after a moment, with the price levels known at the moment."""
    later = as_of + timedelta(days=NEXT_DAYS)
    t = builder.views(later)["lines"]
    lines = t.select("one_id", "source", "order_id", "ts", "item_id", "category").to_pandas()
    levels = builder.views(as_of).price_levels.to_pandas()
    lines = lines.merge(levels, on="item_id").sort_values(["one_id", "ts", "order_id", "item_id"], ignore_index=True)
    return lines.assign(days=(as_of - lines.ts) / pd.Timedelta(days=1))


def features_of(lines: pd.DataFrame, customers: pd.Index) -> pa.Table:
    """The features of price levels, computed from lines, for tags of made-up lines."""
    columns = {}
    for days, suffix in ((56.0, "_56d"), (np.inf, "")):
        groups = lines[lines.days <= days].groupby("one_id").price_level
        columns[f"price_level_mean{suffix}"] = groups.mean()
        columns[f"price_level_std{suffix}"] = groups.std()
        columns[f"price_level_lines{suffix}"] = groups.size().astype(float)
    return pa.table({name: values.reindex(customers).fillna(0.0).to_numpy() for name, values in columns.items()})


def bands(lines: pd.DataFrame, customers: pd.Index, fitted: dict[str, Any]) -> np.ndarray:
    """The price band of each customer, None if unknown."""
    values = tag_values(features_of(lines, customers), [TAGS["price_band"]], fitted=fitted)
    return np.asarray(values["price_band"], dtype=object)


def agreement(lines: pd.DataFrame, customers: pd.Index, placebo: bool) -> dict[str, float]:
    """Kappa between the bands of two halves, by order and by line, averaged over several random divisions."""
    found: dict[str, list[float]] = {}
    if placebo:
        rng = np.random.default_rng(SEEDS)
        exchanged = lines.groupby("category").price_level.transform(lambda levels: rng.permutation(levels.to_numpy()))
        lines = lines.assign(price_level=exchanged)
    fitted = fit_tags(features_of(lines, customers), [TAGS["price_band"]])
    orders = lines.groupby(["source", "order_id"], sort=False).ngroup().to_numpy()
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        halves = {"order": rng.integers(0, 2, orders.max() + 1)[orders], "line": rng.integers(0, 2, len(lines))}
        for unit, half in halves.items():
            one, other = (bands(lines[half == number], customers, fitted) for number in (0, 1))
            both = np.array([a is not None and b is not None for a, b in zip(one, other, strict=True)])
            for name, weighted in (("kappa", False), ("weighted kappa", True)):
                value = kappa(one[both], other[both], BANDS, weighted) if both.any() else np.nan
                found.setdefault(f"{name} of halves by {unit}", []).append(value)
            found.setdefault(f"known in both halves by {unit}", []).append(float(both.mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def change(lines: pd.DataFrame, customers: pd.Index, placebo: int | None = None) -> dict[str, float]:
    """Mean change of the next days' level against the level before the last 56, of `up` minus `down`."""
    past = lines[lines.days > 0]
    if placebo is not None:
        order = np.random.default_rng(placebo).permutation(len(past))
        shuffled = past.iloc[order].sort_values("one_id", kind="stable")  # lines of a customer in another order
        past = past.assign(price_level=shuffled.price_level.to_numpy())
    values = tag_values(features_of(past, customers), [TAGS["trading"]])["trading"]
    direction = pd.Series(values, index=customers)
    after = lines[lines.days <= 0].groupby("one_id").price_level
    enough = after.size() >= MIN_NEXT_LINES
    before = past[past.days > 56].groupby("one_id").price_level.mean()
    shift = (after.mean()[enough] - before).dropna()
    direction = direction.reindex(shift.index)
    up, down = shift[direction == "up"], shift[direction == "down"]
    return {
        "difference": float(up.mean() - down.mean()),
        "error": float(np.sqrt(up.var() / len(up) + down.var() / len(down))) if min(len(up), len(down)) > 1 else np.nan,
        "up": float((np.asarray(values) == "up").sum()),
        "down": float((np.asarray(values) == "down").sum()),
        "known": float(sum(value is not None for value in values)),
    }


def figures_at(workspace: Path, as_of: datetime, placebos: int) -> dict[str, float]:
    """All figures at one moment."""
    builder = builder_of(workspace)
    tags, _ = tags_at(builder, as_of)
    without, _ = tags_at(builder_of(workspace, LARGE_UNITS), as_of)
    regular = tags.index[tags.lines >= MIN_LINES]
    band, other = tags.price_band, without.price_band.reindex(tags.index)
    result = {
        "customers": float(len(regular)),
        **{f"{name} known": float(tags.loc[regular, name].notna().mean()) for name in tags if name != "lines"},
        "known": float(band[regular].notna().mean()),
        "same band without large lines": float(((band == other) | (band.isna() & other.isna())).mean()),
    }
    lines = lines_around(builder, as_of)
    customers = pd.Index(regular)
    past = lines[(lines.days > 0) & lines.one_id.isin(customers)]
    result |= agreement(past, customers, placebo=False)
    result |= {f"placebo, {name}": value for name, value in agreement(past, customers, placebo=True).items()}
    actual = change(lines, customers)
    shuffled = pd.DataFrame([change(lines, customers, seed) for seed in range(placebos)])
    return {
        **result,
        **{f"trading {name}": value for name, value in actual.items()},
        **{f"placebo, trading {name}": float(value) for name, value in shuffled.mean().items()},
        "placebo, trading error of the mean": float(shuffled.difference.std() / np.sqrt(placebos)),
    }


def above_placebo(figures: Sequence[dict[str, float]]) -> float:
    """Trading minus its placebo, averaged over moments, in standard errors."""
    gains = [one["trading difference"] - one["placebo, trading difference"] for one in figures]
    squares = [one["trading error"] ** 2 + one["placebo, trading error of the mean"] ** 2 for one in figures]
    return float(np.mean(gains) / (np.sqrt(np.sum(squares)) / len(figures)))


def price_figures(
    workspace: Path,
    moments: Sequence[datetime] = (*CHOSEN_AT, *TESTED_AT),
    placebos: int = 20,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, float]]:
    """Figures of the price tags of a workspace at several moments, by moment (YYYY-MM-DD)."""
    result = {}
    for as_of in moments:
        result[f"{as_of:%Y-%m-%d}"] = found = figures_at(workspace, as_of, placebos)
        progress(f"{as_of:%Y-%m-%d}")
        for name, value in found.items():
            progress(f"  {name:48s} {value:.4g}")
        progress(f"  {'trading above its placebo, standard errors':48s} {above_placebo([found]):.3g}")
    return result


def price_checks(figures: dict[str, dict[str, float]]) -> list[Check]:
    """The musts at the moments after those at which the tags were chosen."""
    tested = {name: found for name, found in figures.items() if name > f"{CHOSEN_AT[-1]:%Y-%m-%d}"}
    checks = []
    for moment, found in tested.items():
        checks += common.check(MUSTS, {name: found[name] for name in MUSTS if name in found}, moment)
    pooled = above_placebo(list(tested.values()))
    return [*checks, *common.check(MUSTS, {"trading above its placebo, standard errors": pooled}, ", ".join(tested))]


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        command = [sys.executable, "-m", "cli.main", "ingest", "completejourney", "--workspace", str(workspace)]
        common.timed(command)
        moments = TESTED_AT if arguments.quick else (*CHOSEN_AT, *TESTED_AT)
        figures = price_figures(workspace, moments, 5 if arguments.quick else 20, lambda text: print(text, flush=True))
    results = {
        f"completejourney {moment}": {"qianmian": {name: common.value(value) for name, value in found.items()}}
        for moment, found in figures.items()
    }
    common.finish(results, price_checks(figures), arguments.json)


if __name__ == "__main__":
    main()
