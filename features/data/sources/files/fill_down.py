"""Exports that fill the cells of an order only in its first line (Shopify): fill the others, and recognise them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from features.data.lake import quote
from features.data.sources.files.column_use import ColumnUse
from features.data.sources.files.csv_format import CsvFormat, UnreadableFile, read_head, split_record
from features.data.sources.files.settings import TableSettings
from qianmian.errors import did_you_mean

# what a blank cell of these makes wrong without an error; a blank amount may be meant, since it is the order's
_FILLED_PER_ORDER = ("status", "source_user_id", "ts", "store_id", "channel")
_MAX_ROWS = 1000


def fill_down_problems(columns: Sequence[str], mapped: Mapping[str, str], present: Sequence[str]) -> list[str]:
    """Problems with the key `fill_down`."""
    problems = [f"{name!r} is no column{did_you_mean(name, present)}" for name in columns if name not in present]
    if columns and "order_id" not in mapped:
        problems.append("it needs order_id in `columns`: cells are filled within one order")
    return problems


def filled_relation(relation: str, columns: Sequence[str], order: str, order_columns: Sequence[str]) -> str:
    """SELECT in which blank cells of `columns` have the last value above in the same file and the same order.

    Parameters
    ----------
    order : str
        SQL of the order number over the columns of `relation`.
    order_columns : sequence of str
        Columns that it reads; where they are filled themselves, the last value above in the file counts.
    """
    rows = f"SELECT *, row_number() OVER () AS _nth FROM ({relation})"
    whole_file = [name for name in columns if name in order_columns]
    within = [name for name in columns if name not in order_columns]
    if whole_file:
        rows = f"SELECT * REPLACE ({_last_above(whole_file, '_file')}) FROM ({rows})"
    if within:
        rows = (
            f"SELECT * REPLACE ({_last_above(within, '_file, _order')}) "
            f"FROM (SELECT *, ({order}) AS _order FROM ({rows}))"
        )
    extra = "_nth, _order" if within else "_nth"
    return f"SELECT * EXCLUDE ({extra}) FROM ({rows}) ORDER BY _nth"


def _last_above(columns: Sequence[str], group: str) -> str:
    window = f"(PARTITION BY {group} ORDER BY _nth ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    return ", ".join(
        f"last_value(CASE WHEN trim({quote(name)}::VARCHAR) <> '' THEN {quote(name)} END IGNORE NULLS) OVER {window} "
        f"AS {quote(name)}"
        for name in columns
    )


def first_line_columns(
    file: Path, found: CsvFormat, settings: TableSettings, mapped: Mapping[str, str], use: ColumnUse
) -> list[str]:
    """Columns that seem to be filled only in the first line of an order, by the first rows of a file.

    Two orders of several lines at least, and all but a tenth of them, have the cell in their first line only, and no
    order of one line lacks it. Only columns are considered without which `status`, the customer or the time is wrong.
    """
    order = mapped.get("order_id")
    if order is None or order not in found.names:
        return []
    suspects = {
        name
        for target in _FILLED_PER_ORDER
        if target in mapped
        for name in use.names(mapped[target])
        if name in found.names and name != order
    }
    rows = _first_rows(file, found, settings)
    position = {name: index for index, name in enumerate(found.names)}
    result = []
    for name in found.names:
        if name not in suspects:
            continue
        orders: dict[str, list[bool]] = {}
        for row in rows:
            orders.setdefault(row[position[order]], []).append(bool(row[position[name]].strip()))
        several = [cells for cells in orders.values() if len(cells) > 1]
        first_only = sum(cells[0] and not any(cells[1:]) for cells in several)
        single = [cells[0] for cells in orders.values() if len(cells) == 1]
        if first_only >= 2 and first_only * 10 >= len(several) * 9 and all(single):
            result.append(name)
    return result


def _first_rows(file: Path, found: CsvFormat, settings: TableSettings) -> list[list[str]]:
    lines = read_head(file, settings.encoding).lines[found.skipped + found.header_lines :]
    rows: list[list[str]] = []
    while lines and len(rows) < _MAX_ROWS:
        try:
            cells, used = split_record(lines, found.delimiter, found.quote)
        except UnreadableFile:  # a stray quote
            break
        if len(cells) == len(found.names):
            rows.append(cells)
        lines = lines[used:]
    return rows
