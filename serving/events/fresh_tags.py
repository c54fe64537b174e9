"""Tags of single customers with their accepted events, from their fresh features."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from features.compute.algebra import PROFILE_PREFIX
from features.profiles.snapshot import Snapshot
from features.profiles.tags.declare import Tag, TagContext, TagValue, clean_values
from features.profiles.tags.lifecycle import counted_from
from features.profiles.tags.pack_tags import tags_for
from qianmian.settings import Settings
from serving.events.fresh_features import FreshFeatures, FreshValues

FROM_EVENTS = frozenset({"events", "lines", "orders", "refunds"})  # views of what is accepted as events
KNOWN_AT_BUILD = frozenset({"profiles"})  # attributes of a customer, which a tag may combine with events


class FreshTags:
    """Computes tags as a build would, from the features of one customer with the events since the last build.

    Of the tags of the profiles, all are computed that follow from behaviour: rules, and statistics with the parameters
    that were fitted at the build. Tags of models are not, nor those that read the touches of campaigns, which are not
    accepted as events, or attributes only.

    Parameters
    ----------
    snapshot : Snapshot
        The profiles.
    settings : Settings
        Settings for the rules.

    Attributes
    ----------
    features : FreshFeatures
        What computes the features.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self.features = FreshFeatures(snapshot, settings)
        self._snapshot, self._settings = snapshot, settings

    def of(self, fresh: FreshValues, only: Collection[str] | None = None) -> dict[str, TagValue]:
        """Values of the tags that follow from the features of a customer.

        Parameters
        ----------
        fresh : FreshValues
            What `FreshFeatures.of` gave.
        only : collection of str, optional
            Names of the tags that are wanted; default: all.
        """
        columns = {name: np.asarray([value]) for name, value in fresh.values.items()}
        wanted = self._tags if only is None else [tag for tag in self._tags if tag.name in only]
        return {tag.name: self._value(tag, columns, fresh.as_of) for tag in wanted}

    def _value(self, tag: Tag, columns: Mapping[str, Any], as_of: datetime) -> TagValue:
        assert tag.rule is not None
        parameters = counted_from(self._snapshot.tag_facts[tag.name].fitted, as_of, self._settings)
        context = TagContext(self._settings, dict(parameters))
        result = tag.rule({name: columns[name] for name in tag.inputs if name in columns}, context)
        return clean_values(np.asarray(result))[0]

    @cached_property
    def _tags(self) -> list[Tag]:
        names = set(self.features.names)
        return [tag for tag in tags_for(self._settings) if self._follows(tag, names)]

    def _follows(self, tag: Tag, names: set[str]) -> bool:
        """Whether the profiles have a tag, as it is declared now, that follows from the features with these names."""
        facts = self._snapshot.tag_facts.get(tag.name)
        if facts is None or tag.rule is None or (facts.how, facts.description) != (tag.how, tag.description):
            return False
        tables = set(facts.source.split("+"))
        if not tables & FROM_EVENTS or tables - FROM_EVENTS - KNOWN_AT_BUILD:
            return False
        missing = set(tag.inputs) - names - set(self._snapshot.unsupported)
        return tag.supported(names) and all(name.startswith(PROFILE_PREFIX) for name in missing)
