"""How ids are read: without Excel's wrappings; a placeholder is none, and one that lost its digits is refused."""

from __future__ import annotations

from features.data.ingest.columns import needs_value
from features.data.lake import quote
from features.data.placeholders import is_placeholder, is_scientific
from features.data.sources.casting import ColumnCast
from features.data.sources.cells import unwrapped
from qianmian.schema import Table

# More words mean "no value" in an id than in another text, where "-" or "unknown" is a value.
ID_COLUMNS = frozenset(
    {
        *("source_user_id", "id_value", "order_id", "item_id", "session_id", "event_id", "content_id", "campaign_id"),
        *("touch_id",),
    }
)
SCIENTIFIC_REASON = (
    "{} is a number in scientific notation, whose digits a spreadsheet has dropped: export it again, "
    "and do not open it in a spreadsheet, or open it with the column as text"
)
PLACEHOLDER_REASON = "{} is a placeholder such as NULL or N/A, not an id"


def id_cast(table: Table, name: str, column_cast: ColumnCast, sql_type: str) -> ColumnCast:
    """The cast of an id column: a placeholder becomes null.

    A placeholder customer leaves the row without a customer; where the table requires the id, the row is rejected. An
    identifier is judged by its type, see `identifier_value`.
    """
    if name == "id_value":
        return column_cast
    if sql_type == "VARCHAR":
        text = quote(name)
        # no word begins with a digit from 1 to 9; the comparison with all words is slow
        number = f"{text} >= '1' AND {text} < ':'"
        value = (
            f"CASE WHEN {number} THEN {text} WHEN {is_placeholder(name, text, blank=True)} THEN NULL ELSE {text} END"
        )
    else:
        value = f"CASE WHEN {is_placeholder(name, column_cast.value)} THEN NULL ELSE {column_cast.value} END"
    column = table.column(name)
    if column and needs_value(table, column):
        return ColumnCast(value, f"({column_cast.value}) IS NOT NULL", failed_reason=PLACEHOLDER_REASON.format(name))
    return ColumnCast(value, None)


def id_reasons(name: str) -> list[tuple[str, str]]:
    """(SQL condition, reason) of rows whose id has lost its digits."""
    return [(is_scientific(quote(name)), SCIENTIFIC_REASON.format(name))]


def id_text(name: str) -> str:
    """SQL of the text of an id column without Excel's wrappings."""
    return unwrapped(quote(name))
