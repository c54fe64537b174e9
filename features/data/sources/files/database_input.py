"""A table of a database in place of files."""

from __future__ import annotations

from features.data.lake import literal
from features.data.sources.databases import DatabaseQuery, column_types, copy_rows, shown_url, url_problem
from features.data.sources.files.input_files import InputFiles, ReadRequest, TableInput
from features.data.sources.files.settings import TableSettings
from qianmian.errors import DataError, did_you_mean
from qianmian.paths import exact_pattern


class DatabaseInput(TableInput):
    """Rows of one table or query; they are copied to the scratch folder when the ingest begins."""

    def __init__(self, rows: DatabaseQuery, columns: dict[str, str], table: str) -> None:
        self.rows, self.columns, self.table = rows, columns, table
        self.files = (f"{shown_url(rows.url)} {rows.table or 'query'}",)
        self.columns_of_file = {self.files[0]: frozenset(columns)}

    @classmethod
    def open(cls, settings: TableSettings, table: str) -> tuple[DatabaseInput | None, str]:
        """The input that an entry with `url` describes, or None and the problem with it, which begins with the key."""
        rows = DatabaseQuery(str(settings.url), settings.table, settings.query, settings.watermark, settings.overlap)
        problem = url_problem(rows.url)
        if problem:
            return None, f"url: {problem}"
        try:
            columns = column_types(rows)
        except DataError as error:
            return None, f"url: {error}"
        if rows.watermark is not None and rows.watermark not in columns:
            return None, (
                f"watermark: unknown column {rows.watermark}{did_you_mean(rows.watermark, columns)}; "
                f"the columns are {', '.join(columns)}"
            )
        return cls(rows, columns, table), ""

    def count_rows(self, file: str) -> int:
        return 0  # there is one "file", so none can lack a column of another

    def read(self, request: ReadRequest) -> InputFiles:
        view = f"database_{self.table}"
        target = request.scratch / f"{view}.parquet"
        mark = copy_rows(self.rows, target, request.watermark, request.limit)
        parquet = f"read_parquet({literal(exact_pattern(target))}, hive_partitioning=false)"
        request.connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM {parquet}")
        return InputFiles(f"SELECT *, {literal(self.files[0])} AS _file FROM {view}", reached=mark)
