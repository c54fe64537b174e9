"""Tags of the propensity targets that the settings declare: their probabilities, published by `train propensity`."""

from __future__ import annotations

from features.profiles.tags.chinese import ChineseTag
from features.profiles.tags.declare import Tag
from qianmian.propensity_targets import PropensityTarget
from qianmian.settings import Settings

TTL_DAYS = 28
ZH_KINDS = {"item": "商品", "category": "品类", "brand": "品牌", "event": "行为"}


def tag_name(target: PropensityTarget) -> str:
    """Name of the tag of a target.

    Examples
    --------
    >>> tag_name(PropensityTarget("event", "cart"))
    'propensity_event_cart'
    """
    return f"propensity_{target.slug}"


def target_tags(settings: Settings) -> list[Tag]:
    """A model tag for each declared target; none without targets."""
    horizon = settings.propensity.horizon_days
    return [
        Tag(
            tag_name(target),
            "transaction" if target.view == "lines" else "behaviour",
            f"probability of {target} within the horizon of the model ({horizon} days by default)",
            how="model",
            ttl_days=TTL_DAYS,
            chinese=ChineseTag(
                f"{ZH_KINDS[target.kind]}倾向：{target.name}",
                f"在模型的预测期内（默认 {horizon} 天）{'购买' if target.view == 'lines' else '发生'}"
                f"{ZH_KINDS[target.kind]}“{target.name}”的概率",
            ),
        )
        for target in settings.propensity.declared
    ]
