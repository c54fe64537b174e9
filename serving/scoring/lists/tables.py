"""Lists of any scores: the columns of their table, with headings and values in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.profiles.snapshot import Snapshot
from qianmian.schema import CONSENT_CHANNELS
from serving.scoring.lists.columns import ListColumn, TagWords, choose, column_of
from serving.scoring.lists.files import PeopleList
from serving.scoring.lists.words import Lang, consent_words

# highest first, by the first of these that a table has values of; then by propensities, the one that is shown first
SORTED_BY = ("score", "uplift", "predicted_clv", "predicted_number_of_orders")
CHINESE_COLUMN = "_zh"  # ends the name of a column that has the Chinese of another
TARGETS = "propensities"  # of which each target is a column of its own
ADDED = ("lifecycle_stage", "consent")  # of the profiles, where the table does not have them


def list_of_table(
    table: pa.Table,
    lang: Lang,
    tag_words: TagWords,
    columns: Sequence[str] | None = None,
    top: int | None = None,
    snapshot: Snapshot | None = None,
) -> PeopleList:
    """Make a list of scores.

    Parameters
    ----------
    table : pyarrow.Table
        A row for each customer or score, with the identity columns.
    lang : str
        Language.
    tag_words : mapping
        Tag → its Chinese words.
    columns : sequence of str, optional
        Columns of the table, or tags of the profiles; default: those of the table, with stage and consent.
    top : int, optional
        Only the first so many rows.
    snapshot : Snapshot, optional
        Profiles of the same moment, whose tags may be columns.

    Raises
    ------
    UsageError
        A name in `columns` is unknown.
    """
    table, targets = _with_targets(_in_language(table, lang))
    first = [*(name for name in columns or () if name in targets), *targets]
    by = next((name for name in (*SORTED_BY, *first) if _has_values(table, name)), None)
    if by is not None:
        keys = [(by, "descending"), ("one_id", "ascending")]
        table = table.take(pc.sort_indices(table, keys, null_placement="at_end"))
    several_sources = len(table["user_source"].unique()) > 1  # of all, whoever comes first
    table = table.slice(0, top)
    values = {name: table[name].to_pylist() for name in table.column_names}
    if snapshot is not None:
        rows = snapshot.user_map.rows(np.asarray(values["one_id"], dtype=np.str_)).tolist()
        tags = {name: tag for name, tag in snapshot.tags.items() if name not in values}
        added = {name: [tag[row] if row >= 0 else None for row in rows] for name, tag in tags.items()}
        if consents := {
            channel: added[f"consent_{channel}"] for channel in CONSENT_CHANNELS if f"consent_{channel}" in added
        }:
            added["consent"] = [_consent(consents, place, lang) for place in range(len(rows))]
    else:
        added = {}
    moments = [name for name in ("as_of", "model_version") if name in values]  # they stay last
    default = [name for name in values if name not in moments and (name != "user_source" or several_sources)]
    default += [*(name for name in ADDED if name in added), *moments]
    keys_shown = choose(columns, default, [*values, *added])
    own = {name: ListColumn(name, name, name, "percent") for name in targets}
    return PeopleList(
        [own.get(key) or column_of(key, tag_words) for key in keys_shown],
        {key: {**added, **values}[key] for key in keys_shown},
        lang,
    )


def _in_language(table: pa.Table, lang: Lang) -> pa.Table:
    """The table with one column for each name that it has in two languages: ``NAME`` and ``NAME_zh``."""
    for chinese in [name for name in table.column_names if name.endswith(CHINESE_COLUMN)]:
        name = chinese.removesuffix(CHINESE_COLUMN)
        if lang == "zh":
            table = table.set_column(table.schema.get_field_index(name), name, table[chinese])
        table = table.drop_columns([chinese])
    return table


def _with_targets(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The table with a column for each target in the place of all propensities, and the names of the targets."""
    if TARGETS not in table.column_names:
        return table, []
    place = table.schema.get_field_index(TARGETS)
    struct = table[TARGETS].combine_chunks()
    names = [field.name for field in struct.type]
    table = table.remove_column(place)
    for offset, (name, values) in enumerate(zip(names, struct.flatten(), strict=True)):
        table = table.add_column(place + offset, name, values)
    return table, names


def _has_values(table: pa.Table, name: str) -> bool:
    return name in table.column_names and table[name].null_count < table.num_rows


def _consent(consents: Mapping[str, Sequence[bool | None]], place: int, lang: Lang) -> str:
    return consent_words({channel: values[place] for channel, values in consents.items()}, lang)
