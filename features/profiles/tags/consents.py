"""The consents of each customer: the columns that the tags `consent_email`, `consent_sms` and `consent_push` read.

A customer may have several records, each with a consent of its own. The one that was told last counts, of those told at
the same moment a withdrawal. The profile history knows when a consent was told last, also where it stayed the same.
They are no features: no model learns from them.
"""

from __future__ import annotations

from collections.abc import Mapping

import ibis
import pyarrow as pa
from ibis import _

from features.compute.algebra import PROFILE_PREFIX
from features.compute.past_profiles import KEYS
from features.compute.views import Views
from features.data.lake import TableState
from features.data.tables import PROFILE_HISTORY, TOLD
from qianmian.schema import CONSENTS

CONSENT_SOURCES = {f"{PROFILE_PREFIX}{name}": "profiles" for name in CONSENTS}  # column → source table


def consent_columns(views: Views, table: pa.Table, states: Mapping[str, TableState]) -> dict[str, pa.Array]:
    """The consents of each row of `table` before the cutoff.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    table : pyarrow.Table
        Table of the profile build, n rows.
    states : mapping of str to TableState
        State of the canonical tables at the cutoff.

    Returns
    -------
    dict of str to pyarrow.Array
        Column name → n booleans, null if no record of the customer tells it. Columns that no record tells are missing.
    """
    names = [name for name in CONSENTS if "profiles" in states and name in states["profiles"].filled]
    if not names:
        return {}
    # a line of `_told` is moment|names|…; its text is used, because not all engines split or parse it alike
    history = views.rows.customer_table(PROFILE_HISTORY.name)
    lines = history.filter(history[TOLD] != "").select(*KEYS, line=history[TOLD].split("\n").unnest())
    lines = lines.mutate(moment=_.line.substr(0, _.line.find("|")), cells=_.line.replace("|", ","))
    if views.rows.is_past(views.as_of):
        lines = lines.filter(_.moment < views.as_of.isoformat(sep=" "))
    told = lines.group_by(list(KEYS)).aggregate(
        **{f"at_{name}": _.moment.max(where=_.cells.contains(f",{name},")) for name in names}
    )
    records = views["profiles"].select("one_id", *KEYS, *names).left_join(told, list(KEYS))
    # the greatest text is that of the latest moment, and of its withdrawals; a blank sorts before all of a moment
    last = {
        name: (ibis.coalesce(records[f"at_{name}"], "") + ibis.ifelse(records[name], " given", " withdrawn")).max(
            where=records[name].notnull()
        )
        for name in names
    }
    found = records.group_by("one_id").aggregate(**last).to_pyarrow()
    return {f"{PROFILE_PREFIX}{name}": _aligned(table, found, name) for name in names}


def _aligned(table: pa.Table, found: pa.Table, name: str) -> pa.Array:
    given = {
        one_id: text.endswith(" given")
        for one_id, text in zip(found["one_id"].to_pylist(), found[name].to_pylist(), strict=True)
        if text is not None
    }
    return pa.array([given.get(one_id) for one_id in table["one_id"].to_pylist()], pa.bool_())
