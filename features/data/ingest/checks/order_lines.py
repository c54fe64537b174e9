"""Whether lines of known orders are further lines, or known lines that changed or were numbered anew."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.ingest.columns import told_columns
from features.data.ingest.order_lines import FURTHER, PLACED
from features.data.lake import quote
from qianmian.errors import DataError

MIN_CHANGED = 20  # so few lines that may be changed ones are kept with a warning, whatever their share
MAX_CHANGED_SHARE = 0.5


@per_table("transactions")
def renumbered_lines(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of lines of known orders that are new by their mapped number only; refuse an input of such lines.

    Raises
    ------
    DataError
        If most of the new lines of known orders are so: the lake holds them under numbers that ingest gave.
    """
    staged = found.staged[table]
    if "line_no" not in staged.mapped or not found.merged[table].kept:
        return
    content = ", ".join(
        quote(name) for name in told_columns(staged.table, staged.columns, staged.mapped) if name != "line_no"
    )
    compared, equal = found.rows(
        f"WITH added AS (SELECT source, order_id, line_no, hash({content}) AS content "
        f"FROM ({found.new(table)}) "
        "ANTI JOIN lake_transactions USING (source, order_id, line_no) "
        "SEMI JOIN lake_transactions USING (source, order_id)), "
        f"known AS (SELECT source, order_id, hash({content}) AS content FROM lake_transactions "
        "SEMI JOIN added USING (source, order_id)) SELECT count(*), (SELECT count(*) FROM added "
        "SEMI JOIN known USING (source, order_id, content)) FROM added"
    )[0]
    if not equal:
        return
    message = f"{equal:,} of {compared:,} new lines of known orders equal known lines but for `line_no`"
    if equal >= MIN_CHANGED and equal > MAX_CHANGED_SHARE * compared:
        raise DataError(
            "known order lines come under other line numbers, and would count twice",
            where=f"transactions of source {found.source.name}",
            got=message,
            hint="leave `line_no` as it was mapped before, or ingest all files into a new workspace; "
            "the lake is unchanged",
        )
    yield TableFinding(
        message,
        "map `line_no` to a column that does not change from export to export",
        equal,
    )


@per_table("transactions")
def further_lines(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of lines that another file or ingest of the same order lacks; refuse an input whose lines were changed.

    Raises
    ------
    DataError
        If most lines of the orders that are known are other ones although item, or time and amount, are the same. The
        mapping has changed then, or the values were corrected, and the orders would count twice.
    """
    if not found.merged[table].further_lines:
        return
    lines, orders, changed = found.rows(
        f"SELECT count(*), count(DISTINCT (source, order_id)), count(*) FILTER (may_be_changed) FROM {FURTHER}"
    )[0]
    ((order, count, total),) = found.rows(
        f"SELECT order_id, count(*), (SELECT count(*) FROM ({found.after(table)}) AS t "
        f"WHERE t.source = f.source AND t.order_id = f.order_id) FROM {FURTHER} AS f GROUP BY source, order_id "
        "ORDER BY count(*) DESC, order_id LIMIT 1"
    )
    example = f"order {order} had {total - count:,} and has {total:,}"
    if changed >= MIN_CHANGED:
        compared = found.rows(f"SELECT count(*) FROM {PLACED} WHERE _side > base")[0][0]
        if changed > MAX_CHANGED_SHARE * compared:
            raise DataError(
                "orders that are known come with other content, and would count twice",
                where=f"transactions of source {found.source.name}",
                got=f"{changed:,} of {compared:,} lines differ from the known lines of their orders; {example}",
                hint="if sources.yaml was changed, ingest into a new workspace; if the values were corrected, map "
                "`line_no`, so that a changed line is told from a further one; the lake is unchanged",
            )
    doubtful = f"; {changed:,} of them look like changed lines: same item, or same time and amount" if changed else ""
    yield TableFinding(
        f"{lines:,} lines were added to {orders:,} orders that another file or an earlier ingest holds without them "
        f"({example}){doubtful}",
        "nothing, if exports split orders; if they repeat orders with corrected values, map `line_no`",
        lines,
    )
