"""Keys of a table of `sources.yaml` that say when its rows hold: `file_date` and `fixed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from features.data.lake import literal
from qianmian.errors import did_you_mean
from qianmian.schema import TABLES, Table

YEARS = ("%Y", "%y", "%G")
DATED_TABLES = tuple(name for name, table in TABLES.items() if any(column.dates_row for column in table.columns))


def file_date_sql(pattern: str, file_column: str = "_file") -> str:
    """SQL of the date in the name of each row's file.

    Examples
    --------
    >>> file_date_sql("people_%Y-%m.csv")
    "strptime(parse_filename(_file), 'people_%Y-%m.csv')"
    """
    return f"strptime(parse_filename({file_column}), {literal(pattern)})"


def file_date_problems(
    pattern: str | None, table: Table, mapped: Mapping[str, object], files: Sequence[str]
) -> list[str]:
    """Problems of the key `file_date`, each beginning with the key.

    Examples
    --------
    >>> file_date_problems("p_%Y.csv", TABLES["profiles"], {}, ["/data/people.csv"])
    ["file_date: 'people.csv' does not match 'p_%Y.csv'"]
    """
    if pattern is None:
        return []
    if table.name not in DATED_TABLES:
        return [f"file_date: the rows of {table.name} have their own times; the tables are {', '.join(DATED_TABLES)}"]
    if "valid_from" in mapped:
        return ["file_date: valid_from is mapped, which dates each row; remove one of the two"]
    if not any(year in pattern for year in YEARS):
        return [f"file_date: {pattern!r} has no year; write the name of a file with %Y, %m and %d for its date"]
    problems = []
    for file in files:
        name = Path(file).name
        try:
            datetime.strptime(name, pattern)  # noqa: DTZ007
        except ValueError:
            problems.append(f"file_date: {name!r} does not match {pattern!r}")
    return problems[:3]


def fixed_attributes(fixed: Sequence[str] | Literal["all"]) -> frozenset[str] | Literal["all"]:
    """The value of the key `fixed` as `RawTable` takes it."""
    return "all" if isinstance(fixed, str) else frozenset(fixed)


def fixed_problems(fixed: Sequence[str] | Literal["all"], table: Table, mapped: Mapping[str, object]) -> list[str]:
    """Problems of the key `fixed`, each beginning with the key.

    Examples
    --------
    >>> fixed_problems(["age_bnd"], TABLES["profiles"], {"source_user_id": "id", "age_band": "age"})
    ["fixed: 'age_bnd' is not mapped (did you mean age_band?)"]
    """
    if not fixed:
        return []
    if table.name != "profiles":
        return ["fixed: only attributes of profiles have a history; remove the key"]
    attributes = [name for name in mapped if name not in (*table.key, "valid_from")]
    return [
        f"fixed: {name!r} is not mapped{did_you_mean(name, attributes)}"
        for name in ([] if isinstance(fixed, str) else fixed)
        if name not in attributes
    ]
