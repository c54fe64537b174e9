"""Parquet files of one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from features.data.lake import literal
from features.data.sources.files.input_files import InputFiles, name_clash
from qianmian.paths import exact_pattern

PARQUET_ENDINGS = (".parquet", ".pq")


def read_parquet_files(files: Sequence[Path]) -> InputFiles | str:
    listed = ", ".join(literal(exact_pattern(file)) for file in files)
    relation = f"SELECT * FROM read_parquet([{listed}], union_by_name=true, hive_partitioning=false, filename='_file')"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(f"DESCRIBE {relation}").fetchall()
    except duckdb.Error as error:
        return f"cannot be read as Parquet: {' '.join(str(error).split())[:300]}"
    columns = {row[0]: str(row[1]) for row in rows if row[0] != "_file"}
    return name_clash(columns) or InputFiles(relation, columns, None)


def is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET_ENDINGS)
