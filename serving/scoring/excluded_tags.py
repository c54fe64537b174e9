"""Customers whom an audience leaves out by their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.profiles.tags import TAGS
from qianmian.errors import InvalidRequest, did_you_mean
from qianmian.schema import CONSENTS
from serving.champions import Champions

SHOWN_VALUES = 20
TagExclusions = Mapping[str, Sequence[str | bool | None]]  # tag → values of the customers to leave out


def with_tags(champions: Champions, tags: TagExclusions) -> NDArray[np.bool_]:
    """Which customers of the profiles have one of the values of a tag, (n,); consents as accepted events tell them.

    Raises
    ------
    InvalidRequest
        A tag or value is unknown, or the tag has numbers.
    """
    snapshot = champions.customers
    found = np.zeros(len(snapshot.one_ids), dtype=bool)
    live = champions.live if not set(CONSENTS).isdisjoint(tags) else None
    told = live.told_consents() if live is not None else {}
    for tag, values in tags.items():
        built = snapshot.tags.get(tag)
        if built is None and live is not None and tag in CONSENTS:
            built = pa.nulls(len(found), pa.bool_())  # only events tell of them
        if built is None:
            raise InvalidRequest(
                "the profiles have no such tag",
                got=tag,
                allowed=", ".join(sorted(snapshot.tags)),
                field="exclude_tags",
                hint="`qianmian tags list` describes them" + did_you_mean(tag, sorted(snapshot.tags)),
            )
        column = pa.array(built)
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        _check_values(tag, values, encoded.dictionary)
        names = encoded.dictionary.to_pylist()
        chosen = [code for code, name in enumerate(names) if _has(values, name)] + [-1] * (None in values)
        with_tag = np.isin(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), chosen)
        for one_id, consents in told.items():
            if tag in consents and (row := snapshot.user_map.row(one_id)) >= 0:
                with_tag[row] = _has(values, consents[tag])
        found |= with_tag
    return found


def _check_values(tag: str, values: Sequence[str | bool | None], of_customers: pa.Array) -> None:
    """Check that customers can have these values of a tag, of which they have `of_customers`.

    Raises
    ------
    InvalidRequest
    """
    if pa.types.is_floating(of_customers.type) or pa.types.is_integer(of_customers.type):
        raise InvalidRequest(
            "nobody can be left out by a tag of numbers, of which equal ones mean little",
            got=tag,
            allowed="tags of words, yes or no",
            field="exclude_tags",
            hint="give the ids of the customers to leave out, such as the members of a segment, in `exclude`",
        )
    names = of_customers.to_pylist()
    declared = TAGS[tag].values if tag in TAGS else ()
    for value in values:
        # a declared value may be one that no customer has today; a mistake must not leave nobody out
        is_open = not declared and isinstance(value, bool) == pa.types.is_boolean(of_customers.type)
        if not (value is None or is_open or _has([*declared, *names], value)):
            raise InvalidRequest(
                f"the tag {tag} has no such value",
                got=value,
                allowed=", ".join(
                    str(one).lower() if isinstance(one, bool) else str(one) for one in declared or names[:SHOWN_VALUES]
                ),
                field="exclude_tags",
            )


def _has(values: Sequence[Any], value: Any) -> bool:
    """Whether a value is among others of its type: in Python, True equals 1."""
    return any(one == value and type(one) is type(value) for one in values)
