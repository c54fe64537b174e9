"""Customer tags in five categories, made by rule, statistic or model. `TAGS` is the registry of the built-in tags."""

from __future__ import annotations

from dataclasses import replace

from features.definitions import FEATURES
from features.profiles.lifecycle import INACTIVITY_SOURCES, PREVIOUS_STAGE
from features.profiles.tags import basic, behaviour, interest, lifecycle, transaction
from features.profiles.tags.built_in_claims import CLAIMS
from features.profiles.tags.chinese import CHINESE
from features.profiles.tags.declare import Tag, TagValue, check, tag_values
from features.profiles.tags.facts import TagFacts
from qianmian.registry import Registry

# names of the columns a tag may use, besides the attributes of a profile
INPUTS: tuple[str, ...] = (*(feature.name for feature in FEATURES), *INACTIVITY_SOURCES, PREVIOUS_STAGE)
TAGS: Registry[Tag] = Registry(
    "tag",
    {
        tag.name: replace(tag, claim=CLAIMS.get(tag.name, tag.claim), chinese=CHINESE.get(tag.name))
        for tag in check(
            [tag for module in (basic, behaviour, transaction, interest, lifecycle) for tag in module.TAGS], INPUTS
        )
    },
)

__all__ = ["INPUTS", "TAGS", "Tag", "TagFacts", "TagValue", "check", "tag_values"]
