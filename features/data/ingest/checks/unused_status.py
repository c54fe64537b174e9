"""Whether the file says which orders were refunded or cancelled in a column that the mapping does not use."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.lake import literal
from features.data.sources.expressions import in_expression


@per_table("transactions")
def unused_status(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if every row counts as paid although an unused column says that some were refunded or cancelled."""
    status = found.staged[table].findings.status
    if status is None:
        return
    name = in_expression(status.column)
    whens = " ".join(
        f"WHEN {name} IN ({', '.join(map(literal, words))}) THEN '{meaning}'"
        for meaning, words in status.words.items()
        if words
    )
    said = ", ".join(word for words in status.words.values() for word in words)
    yield TableFinding(
        f"the column {status.column} is not used and says {said} in {status.rows:,} rows, which count as paid",
        f"add `status: CASE {whens} ELSE 'paid' END`",
        status.rows,
    )
