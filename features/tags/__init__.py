"""Tags: what a person would say about a customer, in five categories, by rule from profile features. `TAGS` is the registry."""

from __future__ import annotations

from features.tags import basic, behaviour, interest, lifecycle, transaction
from features.tags.declare import Tag, TagValue, tag_values
from qianmian.registry import Registry

TAGS: Registry[Tag] = Registry(
    "tag", {tag.name: tag for module in (basic, behaviour, transaction, interest, lifecycle) for tag in module.TAGS}
)

__all__ = ["TAGS", "Tag", "TagValue", "tag_values"]
