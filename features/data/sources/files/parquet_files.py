"""Parquet files of one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from features.data.lake import literal
from features.data.sources.files.csv_format import UnreadableFile
from features.data.sources.files.input_files import InputFiles, ReadRequest, TableInput, name_clash
from qianmian.paths import exact_pattern

PARQUET_ENDINGS = (".parquet", ".pq")


class ParquetInput(TableInput):
    """Parquet files of one table; columns are matched by name.

    Raises
    ------
    UnreadableFile
        A file is no Parquet file, or two of its columns cannot be told apart.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(str(file) for file in files)
        listed = ", ".join(map(_exact, files))
        self._relation = (
            f"SELECT * FROM read_parquet([{listed}], union_by_name=true, hive_partitioning=false, filename='_file')"
        )
        try:
            with duckdb.connect() as connection:
                described = connection.execute(f"DESCRIBE {self._relation}").fetchall()
                self.columns_of_file = {
                    file: frozenset(
                        str(row[0])
                        for row in connection.execute(
                            f"DESCRIBE SELECT * FROM read_parquet({_exact(file)}, hive_partitioning=false)"
                        ).fetchall()
                    )
                    for file in self.files
                }
        except duckdb.Error as error:
            raise UnreadableFile(f"cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from error
        self.columns = {row[0]: str(row[1]) for row in described if row[0] != "_file"}
        clash = name_clash(self.columns)
        if clash:
            raise UnreadableFile(clash)

    def count_rows(self, file: str) -> int:
        with duckdb.connect() as connection:
            row = connection.execute(f"SELECT sum(num_rows) FROM parquet_file_metadata({_exact(file)})").fetchone()
        return int(row[0]) if row else 0

    def read(self, request: ReadRequest) -> InputFiles:
        return InputFiles(self._relation)


def _exact(file: str | Path) -> str:
    return literal(exact_pattern(file))


def is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET_ENDINGS)
