"""Identity resolution: cost for ten million identity rows, and accuracy of record linkage on known duplicates.

    python benchmarks/identity.py [--data DIR] [--quick] [--json FILE]

Ten million rows of `identities` are resolved, including writing the `customers` table and the merge ledger. They
contain logins, telephone numbers, e-mail addresses, cards, devices, cookies, shared devices, contradictions, and one
cookie that 100,000 records share. The cost is compared with that of the bare library: pyarrow reads the same file and
SciPy computes connected components, without rules, times, ledger and output. Must: at most 8 × the CPU seconds of the
bare library, at most 6 GB, and no record linked through the shared cookie. `--quick` uses one million rows. Record
linkage on FEBRL 1–4 (`identity_febrl.py`) is run too if `--data` names the folder with these data sets, or its parent
folder with the data sets in `febrl/`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common
import duckdb
import identity_febrl
from common import Must

from qianmian.settings import Settings

MUSTS = {
    "CPU seconds relative to the bare library": Must("ratio", most=8.0),
    "memory": Must("peak_mb", most=6_144),
    "records linked through the shared cookie": Must("metric", most=0),
}
ROWS_PER_PERSON = 7
KIOSK_RECORDS = 100_000

# random values are hash(person, salt), so that the rows do not depend on the number of threads
IDENTITIES_SQL = """
CREATE MACRO draw(person, salt) AS (hash(person::VARCHAR || salt) % 1000000) / 1e6;
CREATE MACRO secret(kind, key) AS 'h1:' || md5(kind || key::VARCHAR);
CREATE MACRO moment(person, salt, days) AS
    TIMESTAMP '2023-01-01' + to_seconds((draw(person, salt) * days * 86400)::BIGINT);
CREATE TABLE people AS SELECT range AS p, moment(range, 'start', 300) AS start FROM range({people});
CREATE TABLE drawn AS
-- every person has an account; most have a telephone number (a few that of another person), an e-mail address, a device
SELECT 'shop' AS source, 'a' || p AS source_user_id, 'login' AS id_type, secret('login', p) AS id_value,
    start AS observed_at FROM people
UNION ALL SELECT 'shop', 'a' || p, 'phone', secret('phone', CASE WHEN draw(p, 'lent') < 0.01 THEN p // 2 ELSE p END),
    start FROM people WHERE draw(p, 'phone') < 0.8
UNION ALL SELECT 'shop', 'a' || p, 'email', secret('email', p), start FROM people WHERE draw(p, 'email') < 0.6
UNION ALL SELECT 'shop', 'a' || p, 'device', 'd' || CASE WHEN draw(p, 'family') < 0.05 THEN p // 4 ELSE p END,
    start + INTERVAL 1 DAY FROM people WHERE draw(p, 'device') < 0.7
-- 40 % of the persons also have a record of the store
UNION ALL SELECT 'store', 'c' || p, 'phone', secret('phone', p), moment(p, 'store', 700)
    FROM people WHERE draw(p, 'store') < 0.4
UNION ALL SELECT 'store', 'c' || p, 'card', secret('card', p), moment(p, 'store', 700)
    FROM people WHERE draw(p, 'store') < 0.4
UNION ALL SELECT 'store', 'c' || p, 'email', secret('email', p), moment(p, 'store', 700)
    FROM people WHERE draw(p, 'store') < 0.2
-- visits before the login: an anonymous record per cookie, which is linked to the account at the login
UNION ALL SELECT 'web', 'w' || n || '-' || p, 'cookie', 'k' || n || '-' || p, start - to_days(n * 20 + 1)
    FROM people, range(2) AS visits(n) WHERE draw(p, 'visit' || n) < 0.6
UNION ALL SELECT 'shop', 'a' || p, 'cookie', 'k' || n || '-' || p, start
    FROM people, range(2) AS visits(n) WHERE draw(p, 'visit' || n) < 0.6
-- a browser that a second person logs in from: a contradiction
UNION ALL SELECT 'shop', 'a' || (p + 1), 'cookie', 'k0-' || p, start + INTERVAL 3 DAY
    FROM people WHERE draw(p, 'visit0') < 0.6 AND draw(p, 'second') < 0.01
-- a public screen in a shop
UNION ALL SELECT 'kiosk', 'q' || range, 'cookie', 'kiosk', TIMESTAMP '2023-06-01' + to_minutes(range)
    FROM range({kiosk});
"""


def write_lake(root: Path, rows: int) -> None:
    """Write a lake with `rows` rows of identities and no other tables."""
    from features.data.lake import Lake
    from qianmian.workspace import Workspace

    with duckdb.connect() as connection:
        connection.execute(
            IDENTITIES_SQL.format(people=rows // ROWS_PER_PERSON, kiosk=KIOSK_RECORDS * rows // 10_000_000)
        )
        missing = rows - int((connection.execute("SELECT count(*) FROM drawn").fetchone() or (0,))[0])
        assert missing >= 0, missing
        # the other rows are visitors with a single record
        connection.execute(
            "INSERT INTO drawn SELECT 'web', 'x' || range, 'cookie', 'x' || range, "
            f"TIMESTAMP '2023-01-01' + to_seconds(range) FROM range({missing})"
        )
        Lake(Workspace(root).create()).commit(
            connection, {"identities": "SELECT * FROM drawn ORDER BY hash(source_user_id, id_value)"}
        )


def resolve_child(root: Path) -> dict[str, Any]:
    from features.data.identity import resolve
    from features.data.lake import Lake
    from qianmian.workspace import Workspace

    lake = Lake(Workspace(root))
    _, cost = common.measure_cost(lambda: resolve(lake, Settings()))
    with duckdb.connect() as connection:
        customers = f"read_parquet('{lake.parquet_path(lake.state('customers'))}')"
        records, people = connection.execute(
            f"SELECT count(DISTINCT source || source_user_id), count(DISTINCT one_id) FROM {customers}"
        ).fetchone() or (0, 0)
        ledger_counts = connection.execute(
            f"SELECT action, count(*) FROM '{root}/identity/ledger/*.parquet' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        kiosk = connection.execute(
            f"SELECT count(*) FROM {customers} WHERE source = 'kiosk' AND ledger_id IS NOT NULL"
        ).fetchone() or (0,)
    return {
        "cost": asdict(cost),
        "records": records,
        "one_ids": people,
        "kiosk_linked": kiosk[0],
        **dict(ledger_counts),
    }


def bare_child(root: Path) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    from features.data.lake import Lake
    from qianmian.workspace import Workspace

    def components() -> None:
        lake = Lake(Workspace(root))
        table = pq.read_table(
            lake.parquet_path(lake.state("identities")), columns=["source", "source_user_id", "id_type", "id_value"]
        )

        def codes(one: str, other: str) -> Any:
            joined = pc.binary_join_element_wise(table[one], table[other], "\x1f").combine_chunks()
            return joined.dictionary_encode().indices.to_numpy()

        record, value = codes("source", "source_user_id"), codes("id_type", "id_value")
        size = int(record.max()) + int(value.max()) + 2
        graph = coo_matrix((np.ones(len(record), np.int8), (record, value + int(record.max()) + 1)), shape=(size, size))
        connected_components(graph, directed=False)

    return {"cost": asdict(common.measure_cost(components)[1])}


def in_child(what: str, root: Path) -> tuple[dict[str, Any], common.Cost]:
    found = common.run_child([sys.executable, __file__, "--child", what, str(root)])
    return found, common.Cost(**found.pop("cost"))


def benchmark_resolution(rows: int) -> tuple[dict[str, Any], list[common.Check]]:
    folder = Path(tempfile.mkdtemp(prefix="qianmian-identity-"))
    try:
        write_lake(folder / "workspace", rows)
        _, bare = in_child("bare", folder / "workspace")
        ours, cost = in_child("resolve", folder / "workspace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = cost.cpu_seconds / bare.cpu_seconds
    print(f"{rows:,} identity rows, {ours['records']:,} records -> {ours['one_ids']:,} one_ids")
    print(f"  qianmian           {cost}, including rules, periods, ledger and files")
    print(f"  bare components    {bare}, reading and grouping only; ratio of CPU seconds {ratio:.1f}")
    print(
        "  ledger             "
        + ", ".join(f"{ours[name]:,} {name}" for name in ("merge", "conflict", "shared") if name in ours)
    )
    counts = {name: common.value(ours[name]) for name in ("records", "one_ids")}
    values = {
        "CPU seconds relative to the bare library": ratio,
        "memory": cost.peak_mb,
        "records linked through the shared cookie": ours["kiosk_linked"],
    }
    return {
        f"identities_{rows}": {
            "qianmian": {**cost.metrics(), **counts, "ratio_bare": common.value(ratio)},
            "bare components": bare.metrics(),
        }
    }, common.check(MUSTS, values)


def main() -> None:
    arguments = common.parser(__doc__.splitlines()[0]).parse_args()
    print(common.machine())
    results, checks = benchmark_resolution(1_000_000 if arguments.quick else 10_000_000)
    if arguments.data is None:
        print("record linkage on FEBRL is left out: pass the folder of the data sets with --data DIR")
    else:
        folder = arguments.data / "febrl" if (arguments.data / "febrl").is_dir() else arguments.data
        linked = identity_febrl.run(folder, arguments.quick)
        results |= linked
        checks += identity_febrl.checks(linked)
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"resolve": resolve_child, "bare": bare_child}[sys.argv[2]](Path(sys.argv[3]))))
    else:
        main()
