"""Input of `scale.py`: copies of Complete Journey with new customers, and a synthetic shop of a million customers.

Both are Parquet files with a `sources.yaml`, which `qianmian ingest files` reads.
"""

from __future__ import annotations

from pathlib import Path

import common  # noqa: F401  puts the packages of the project on the path
import duckdb
import yaml

from features.data.sources.completejourney import CompleteJourney

COPIED = {"transactions": "order_id", "profiles": None, "events": None, "touches": "touch_id"}  # table → its own id
MILLION = {"customers": 1_000_000, "items": 100_000, "lines": 50_000_000}

# Random values are hashes of (row, salt), so that the rows do not depend on the number of threads. Popularity of items
# is proportional to 1 ÷ rank. Six of ten lines repeat one of the twenty favourites of the customer, the first of them
# more often; a customer buys mostly in two of fifty departments. The times grow with the order number.
MACROS = """
CREATE MACRO draw(number, salt) AS hash(number, salt) / 18446744073709551616.0;
CREATE MACRO chosen(number, salt, n) AS (hash(number, salt) % n)::BIGINT;
CREATE MACRO ranked(u) AS least({items} - 1, floor(pow({items}, u)))::BIGINT;
CREATE MACRO skewed(u, n, power) AS least(n - 1, floor(n * pow(u, power)))::BIGINT;
CREATE MACRO favourite(customer, place) AS
    ranked(draw(customer * 20 + place, 5)) // 50 * 50 + chosen(customer * 2 + place % 2, 6, 50);
"""
LINES = """
SELECT 'o' || order_no AS order_id, 'c' || customer AS customer, 'i' || item AS item,
    TIMESTAMP '2022-01-01' + to_seconds((order_no * (730.0 * 86400 / {orders}))::BIGINT) AS ordered_at,
    quantity, round(quantity * (1 + chosen(item, 7, 2000) / 100), 2) AS amount
FROM (
    SELECT order_no, customer, 1 + chosen(i, 4, 3) AS quantity,
        CASE WHEN draw(i, 2) < 0.6 THEN favourite(customer, skewed(draw(i, 3), 20, 2.0)) ELSE ranked(draw(i, 3)) END
            % {items} AS item
    FROM (SELECT i, i // 5 AS order_no, skewed(draw(i // 5, 1), {customers}, 1.3) AS customer
          FROM range({lines}) AS t(i)))
"""
CATALOGUE = """
SELECT 'i' || i AS item, 'department ' || (i % 50) || '/shelf ' || (i % 500) AS category, 'brand ' || chosen(i, 8, 3000)
    AS brand FROM range({items}) AS t(i)
"""
MILLION_COLUMNS = {
    "transactions": {
        "order_id": "order_id",
        "source_user_id": "customer",
        "item_id": "item",
        "ts": "ordered_at",
        "quantity": "quantity",
        "amount": "amount",
    },
    "items": {"item_id": "item", "category": "category", "brand": "brand"},
}


def write_copies(folder: Path, copies: int) -> Path:
    """Write Complete Journey `copies` times, each time with new customers, and return the path of `sources.yaml`.

    The goods and campaigns are those of the original. The values are already those of the canonical columns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone='UTC'; SET temp_directory='{folder / 'spill'}'")
        source = CompleteJourney()
        for raw in source.tables(connection):
            columns = dict(raw.columns)
            rows = f"({raw.relation}) AS r"
            if raw.table in COPIED:
                rows = f"range({copies}) AS copies(n), {rows}"
                for name in ("source_user_id", COPIED[raw.table]):
                    if name is not None:
                        columns[name] = f"concat({columns[name]}, '-', n)"
            picked = ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())
            connection.execute(f"COPY (SELECT {picked} FROM {rows}) TO '{folder / raw.table}.parquet' (FORMAT parquet)")
            tables[raw.table] = {"path": f"{raw.table}.parquet", "columns": {name: name for name in columns}}
            if raw.fixed:
                tables[raw.table]["fixed"] = raw.fixed
    return _write_config(folder, tables)


def write_million(folder: Path, share: float = 1.0) -> Path:
    """Write the synthetic shop, or a share of its customers and lines, and return the path of `sources.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: number if name == "items" else int(number * share) for name, number in MILLION.items()}
    sizes["orders"] = sizes["lines"] // 5
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone='UTC'; SET temp_directory='{folder / 'spill'}'; {MACROS.format(**sizes)}")
        for table, query in (("transactions", LINES), ("items", CATALOGUE)):
            connection.execute(f"COPY ({query.format(**sizes)}) TO '{folder / table}.parquet' (FORMAT parquet)")
    return _write_config(
        folder, {table: {"path": f"{table}.parquet", "columns": columns} for table, columns in MILLION_COLUMNS.items()}
    )


def _write_config(folder: Path, tables: dict[str, dict[str, object]]) -> Path:
    config = folder / "sources.yaml"
    config.write_text(yaml.safe_dump({"source": "shop", "timezone": "UTC", "tables": tables}, sort_keys=False))
    return config
