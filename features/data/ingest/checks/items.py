"""Whether the items of a source are its own, and whether items vanished from its catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.catalogue import LACKING
from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.ingest.columns import content_columns
from features.data.lake import literal, quote
from qianmian.errors import DataError

MIN_LISTED_SHARE = 0.5  # a file that lists fewer of the known items is no catalogue but a list of changes


@per_table("items")
def items_of_another_source(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if a source changes items that another source described, and refuse it unless both say that they share them.

    Raises
    ------
    DataError
        If ``shared: true`` is missing. The same number may be other goods there.
    """
    if not found.merged[table].kept:
        return
    staged, source = found.staged[table], found.source.name
    joined = f"FROM ({found.new(table)}) AS n JOIN lake_items AS l USING (item_id) WHERE l.source <> {literal(source)}"
    known = {row[0] for row in found.rows("DESCRIBE lake_items")}
    compared = [
        name
        for name in content_columns(staged.table, staged.columns)
        if name in staged.mapped and name in known and name != "merchandise"  # may be declared by any source
    ]
    if len(compared) < 2:  # nothing but the key
        return
    differs = [f"n.{quote(name)}::VARCHAR IS DISTINCT FROM l.{quote(name)}::VARCHAR" for name in compared]
    changed, owners = found.rows(
        f"SELECT count(*), string_agg(DISTINCT l.source, ', ' ORDER BY l.source) {joined} AND ({' OR '.join(differs)})"
    )[0]
    if not changed:
        return
    example = ""
    for name, is_other in zip(compared, differs, strict=True):
        shown = f"coalesce(n.{quote(name)}::VARCHAR, 'empty'), coalesce(l.{quote(name)}::VARCHAR, 'empty')"
        row = found.rows(f"SELECT item_id, l.source, {shown} {joined} AND {is_other} ORDER BY item_id LIMIT 1")
        if row:
            item, owner, new, old = row[0]
            example = f"item {item}: {name} is {old} in {owner} and {new} in {source}"
            break
    if not found.raw[table].shared:
        raise DataError(
            f"{changed:,} item ids of {source} are those of other items",
            where=f"items of source {source}, described before by {owners}",
            got=example,
            hint="under tables.items write `shared: false` if the goods are its own (its ids are then stored as "
            f"`{source}:…`), or `shared: true` if the sources share one catalogue (the newer row then replaces the "
            "older); the lake is unchanged",
        )
    yield TableFinding(
        f"{changed:,} items that {owners} described were changed by {source} ({example})",
        "nothing, if the sources share one catalogue; `shared: false` under tables.items if the goods are other ones",
        changed,
    )


@per_table("items")
def vanished_items(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of items that a catalogue no longer lists although nothing says whether it is complete.

    Raises
    ------
    DataError
        If a complete catalogue lacks more of the known items than is allowed.
    """
    raw, catalogue = found.raw[table], found.catalogue
    if not catalogue.lacking:
        return
    example = found.rows(f"SELECT min(item_id) FROM {LACKING}")[0][0]
    message = (
        f"{catalogue.lacking:,} of {catalogue.known:,} items of {found.source.name} are no longer in its catalogue, "
        f"for example {example}"
    )
    if raw.complete and catalogue.lacking > raw.max_vanished * catalogue.known:
        raise DataError(
            "the catalogue lacks more items than one expects of a complete one",
            where=", ".join(raw.files[:3]),
            got=message,
            hint="export it again if it was cut off; otherwise allow a larger share with `max_vanished: 1` beside "
            "`complete: true`; the lake is unchanged",
        )
    if raw.complete is None and catalogue.known - catalogue.lacking >= MIN_LISTED_SHARE * catalogue.known:
        yield TableFinding(
            f"{message}; they stay on offer",
            "under tables.items write `complete: true` if the file is the full catalogue (items that it lacks are then "
            "no longer offered), `complete: false` if it is a part of it",
            catalogue.lacking,
        )
