"""Cost of `qianmian ingest files` over CSV files, relative to a bare copy of the same file by DuckDB in the same run.

    python benchmarks/ingest.py [--quick] [--json FILE]

The bare copy reads the CSV file as text, casts the mapped columns and writes zstd Parquet: no checks, no quarantine, no
merge with the lake; it is run three times and the cheapest run counts. The inputs are generated and always the same:
one million order lines; 1.47 million order lines whose time is an expression; one million customer profiles, ingested
twice, so that the second ingest reads only rows that the lake has. Musts: CPU seconds relative to the copy, and memory.
`--quick` reads a tenth of the rows, where the start of Python dominates, and checks only the memory.

What the cost is made of, from profiles of each statement (`PRAGMA enable_profiling`), and what to keep in mind:

- An expression that occurs twice in a query is computed twice inside CASE, and outside CASE for all rows, even if no
  row needs it. `features.data.ingest.contract` therefore reads, casts and checks in nested queries, and asks why a cast
  failed only where its result is null.
- The two sides of AND and OR are computed for all rows; only CASE and coalesce stop early. Trimming a text takes
  longer than casting it to a number (106 against 17 ns) and a pattern (75 ns) four times as long as LIKE. A lambda
  compiles its patterns for every 2,048 rows, and IN with a list of many words becomes a join.
- The calendar of a time zone takes 145 ns a row, also that of UTC: `make_timestamp(epoch_us(…))` takes 10.
- A subquery with ORDER BY is sorted even where the order is of no use (`MergedTable.rows` has none).
- Rows of a dimension are compared by one hash (`features.data.ingest.compared_rows`).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
import duckdb
from common import Must

ROWS = {"orders": 1_000_000, "times": 1_470_000, "profiles": 1_000_000}
LINES = """
    'o' || (i // 4) AS order_no, 'c' || (hash(i // 4) % 50000) AS customer, 's' || (hash(i, 1) % 5000) AS item,
    strftime(TIMESTAMP '2017-01-01' + to_seconds((i // 4) * 80), '{form}') AS ordered_at,
    1 + hash(i, 2) % 5 AS quantity, printf('%.2f', (100 + hash(i, 3) % 5000) / 100) AS amount,
    CASE WHEN hash(i, 4) % 3 = 0 THEN 'web' ELSE 'store' END AS channel
"""
PROFILES = """
    'c' || i AS id, CASE hash(i, 1) % 3 WHEN 0 THEN 'f' WHEN 1 THEN 'm' END AS gender,
    strftime(DATE '1950-01-01' + (hash(i, 2) % 18000)::INT, '%Y-%m-%d') AS birth_date,
    'region ' || (hash(i, 3) % 20) AS region, 'city ' || (hash(i, 4) % 500) AS city,
    strftime(DATE '2015-01-01' + (hash(i, 5) % 1000)::INT, '%Y-%m-%d') AS registered,
    'tier ' || (hash(i, 6) % 4) AS tier, hash(i, 7) % 10000 AS points,
    CASE hash(i, 8) % 3 WHEN 0 THEN 'true' WHEN 1 THEN 'false' END AS mail, 'hobby ' || (hash(i, 9) % 30) AS hobby
"""
ORDER_COLUMNS = "order_id: order_no, source_user_id: customer, item_id: item, quantity: quantity, amount: amount"
MUSTS = {
    "orders, CPU seconds relative to the bare copy": Must("ratio", most=10.0),
    "times, CPU seconds relative to the bare copy": Must("ratio", most=9.0),
    "profiles, CPU seconds relative to the bare copy": Must("ratio", most=15.0),
    "profiles again, CPU seconds relative to the bare copy": Must("ratio", most=9.0),
    "memory": Must("peak_mb", most=2_560),
}


@dataclass(frozen=True)
class Input:
    """One generated CSV file.

    Attributes
    ----------
    columns : str
        SQL of its columns over the row number `i`.
    table, mapping : str
        Canonical table, and the YAML mapping of its columns.
    casts : str
        SQL of the columns that the bare copy casts.
    """

    columns: str
    table: str
    mapping: str
    casts: str


INPUTS = {
    "orders": Input(
        LINES.format(form="%Y-%m-%d %H:%M:%S"),
        "transactions",
        f"{{{ORDER_COLUMNS}, ts: ordered_at, channel: channel}}",
        "ordered_at::TIMESTAMP AS ordered_at, quantity::DOUBLE AS quantity, amount::DOUBLE AS amount",
    ),
    "times": Input(
        LINES.format(form="%Y-%m-%dT%H:%M:%SZ"),
        "transactions",
        f"{{{ORDER_COLUMNS}, ts: \"date_trunc('minute', ordered_at)\"}}",
        "date_trunc('minute', ordered_at::TIMESTAMP) AS ordered_at, quantity::DOUBLE AS quantity, "
        "amount::DOUBLE AS amount",
    ),
    "profiles": Input(
        PROFILES,
        "profiles",
        "{source_user_id: id, gender: gender, birth_date: birth_date, region: region, city: city, "
        "registered_at: registered, member_tier: tier, points_balance: points, consent_email: mail, hobby: hobby}",
        "birth_date::DATE AS birth_date, registered::TIMESTAMP AS registered, points::DOUBLE AS points, "
        "mail::BOOLEAN AS mail",
    ),
}
BARE = """
import duckdb
duckdb.sql("COPY (SELECT * REPLACE ({casts}) FROM read_csv('{file}', all_varchar=true)) TO '{target}' "
           "(FORMAT parquet, COMPRESSION zstd)")
"""


def write(name: str, rows: int, folder: Path) -> Path:
    """Write the CSV file of one input and its `sources.yaml`, and return the path of the latter."""
    given, config = INPUTS[name], folder / f"{name}.yaml"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {given.columns} FROM range({rows}) AS t(i)) TO '{folder / name}.csv' (HEADER)"
        )
    config.write_text(
        f"source: shop\ntimezone: UTC\ntables:\n  {given.table}:\n    path: {name}.csv\n    columns: {given.mapping}\n"
    )
    return config


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    values: dict[str, float] = {}
    metrics = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, rows in ROWS.items():
            rows = rows // 10 if arguments.quick else rows
            config = write(name, rows, folder)
            bare = BARE.format(casts=INPUTS[name].casts, file=folder / f"{name}.csv", target=folder / "bare.parquet")
            copied = min((common.timed([sys.executable, "-c", bare]) for _ in range(3)), key=lambda c: c.cpu_seconds)
            print(f"{name:14s} bare copy {copied}", flush=True)
            command = [sys.executable, "-m", "cli.main", "ingest", "files", "--config", str(config)]
            for run in (name, f"{name} again") if name == "profiles" else (name,):
                cost = common.timed([*command, "--workspace", str(folder / f"workspace-{name}")])
                ratio = cost.cpu_seconds / copied.cpu_seconds
                print(f"{run:14s} {cost}: {ratio:.1f} × the CPU seconds of the copy of {rows:,} rows", flush=True)
                if not arguments.quick:
                    values[f"{run}, CPU seconds relative to the bare copy"] = ratio
                values["memory"] = max(values.get("memory", 0.0), cost.peak_mb)
                metrics[run] = {
                    "qianmian": {**cost.metrics(), "ratio_copy": common.value(ratio)},
                    "DuckDB copy": copied.metrics(),
                }
    common.finish(metrics, common.check(MUSTS, values), arguments.json)


if __name__ == "__main__":
    main()
