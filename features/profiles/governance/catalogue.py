"""The tag catalogue: what each tag means, how it is made, its owner, and its coverage in a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from features.profiles.snapshot import Snapshot
from features.profiles.tags.chinese import ChineseTag
from features.profiles.tags.declare import Tag, TagValue
from features.profiles.tags.tagging import missing_features


@dataclass(frozen=True)
class CatalogueEntry:
    """One tag of the catalogue.

    Attributes
    ----------
    coverage : float or None
        Share of customers with a known value; None if the tag is absent.
    values : int or None
        Number of distinct known values.
    top_value : str, float, bool or None
        Most frequent value (count descending, then text ascending).
    lacks : tuple of str
        Reasons why the tag is absent: unsupported features, kinds of rows that were never recorded, or a note that no
        model has published it.
    """

    name: str
    category: str
    kind: str
    how: str
    owner: str
    ttl_days: int
    needs: tuple[str, ...]
    description: str
    chinese: ChineseTag | None = None
    coverage: float | None = None
    values: int | None = None
    top_value: TagValue = None
    lacks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON-compatible data; `name_zh`, `description_zh` and `values_zh` are its Chinese words."""
        words = {name: value for name, value in self.__dict__.items() if name != "chinese"}
        chinese = self.chinese
        return {
            **words,
            "needs": list(self.needs),
            "lacks": list(self.lacks),
            "name_zh": chinese.name if chinese is not None else None,
            "description_zh": chinese.description if chinese is not None else None,
            "values_zh": dict(chinese.values) if chinese is not None else {},
        }


def catalogue(tags: Sequence[Tag], snapshot: Snapshot) -> list[CatalogueEntry]:
    """One entry per declared tag, with its coverage in the snapshot."""
    present = set(snapshot.table.column_names)
    entries = []
    for tag in tags:
        made = (tag.name, tag.category, tag.kind, tag.how, tag.owner, tag.ttl_days)
        about = (*made, tag.inputs, tag.description, tag.chinese)
        if tag.name not in snapshot.tags:
            lacks = snapshot.unrecorded.get(tag.name) or missing_features(tag, present)
            if tag.how == "model":
                lacks = ("not published by a model yet",)
            entries.append(CatalogueEntry(*about, lacks=lacks))
            continue
        known = [value for value in snapshot.tags[tag.name] if value is not None]
        counted = Counter(known)
        top = min(counted, key=lambda value: (-counted[value], str(value))) if counted else None
        entries.append(CatalogueEntry(*about, round(len(known) / max(len(snapshot.one_ids), 1), 4), len(counted), top))
    return entries
