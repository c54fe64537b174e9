"""Items that vanish from the catalogue of their source, and items that come back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.ingest.merge import MergedTable
from features.data.lake import literal
from features.data.sources.base import RawTable

LACKING, BACK = "lacking_items", "items_back"


@dataclass(frozen=True)
class CatalogueChange:
    """The items of one source in the lake, compared with the catalogue that is read.

    Attributes
    ----------
    known : int
        Items of the source in the lake that are not withdrawn.
    lacking : int
        How many of them the catalogue does not list; their ids are in the temp table `LACKING`.
    vanished : int
        How many items are withdrawn: all that are lacking, if the catalogue is complete.
    back : int
        Items that the complete catalogue lists again.
    """

    known: int = 0
    lacking: int = 0
    vanished: int = 0
    back: int = 0


def compare_catalogue(
    connection: duckdb.DuckDBPyConnection, raw: RawTable, source: str, staged: StagedTable, merged: MergedTable
) -> tuple[MergedTable, CatalogueChange]:
    """Compare the items that are read with those of the same source in the lake.

    If the catalogue is complete, the items that it lacks become unavailable; their rows stay. A rejected row lists its
    item all the same.

    Returns
    -------
    MergedTable
        With the withdrawn items, and with those that are back.
    CatalogueChange
        The counts.
    """
    listed = f"item_id IN (SELECT item_id FROM {staged.typed} WHERE item_id IS NOT NULL)"
    of_source, offered = f"source = {literal(source)}", "available IS DISTINCT FROM false"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {LACKING} AS SELECT item_id FROM lake_items "
        f"WHERE {of_source} AND {offered} AND NOT {listed}"
    )
    # a catalogue that maps `available` says itself which items are offered
    says_back = "false" if "available" in staged.mapped else "NOT available"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {BACK} AS SELECT item_id FROM lake_items "
        f"WHERE ({of_source} OR source IS NULL) AND {says_back} AND {listed}"
    )
    row = connection.execute(
        f"SELECT (SELECT count(*) FROM lake_items WHERE {of_source} AND {offered}), "
        f"(SELECT count(*) FROM {LACKING}), (SELECT count(*) FROM {BACK})"
    ).fetchone()
    known, lacking, back = row or (0, 0, 0)
    if not raw.complete:
        return merged, CatalogueChange(known, lacking)
    available = (
        f"CASE WHEN item_id IN (SELECT item_id FROM {LACKING}) THEN false "
        f"WHEN item_id IN (SELECT item_id FROM {BACK}) THEN true ELSE available END AS available"
    )
    # items without a source, of events or of a lake that did not record sources yet, become those of the first complete
    # catalogue that lists them
    owner = f"CASE WHEN source IS NULL AND {listed} THEN {literal(source)} ELSE source END AS source"
    query, rows = (f"SELECT * REPLACE ({available}, {owner}) FROM ({old})" for old in (merged.query, merged.rows))
    return replace(merged, query=query, rows=rows), CatalogueChange(known, lacking, lacking, back)
