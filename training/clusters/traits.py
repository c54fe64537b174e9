"""The traits that clusters are made of and named by: features of the profile, in blocks, with their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trait:
    """A feature that says how a customer behaves: no identifier, no attribute, no count that grows with the calendar.

    Attributes
    ----------
    feature : str
        Name of the feature.
    block : str
        Features of one block say nearly the same; each block counts as one.
    high, low : (str, str)
        Words in English and Chinese for customers above and below the average of all; empty if nobody would say so.
    log : bool
        Whether the logarithm counts: of counts and amounts.
    """

    feature: str
    block: str
    high: tuple[str, str]
    low: tuple[str, str] = ("", "")
    log: bool = False


TRAITS: Mapping[str, Trait] = {
    trait.feature: trait
    for trait in (
        Trait("orders_182d", "often", ("frequent orders", "常下单"), ("rare orders", "少下单"), log=True),
        Trait("gap_variation", "rhythm", ("irregular rhythm", "时买时停"), ("steady rhythm", "节奏稳定"), log=True),
        Trait("basket_lines_mean", "basket", ("large baskets", "大单"), ("small baskets", "小单"), log=True),
        Trait(
            "order_value_mean", "basket", ("high order value", "客单价高"), ("low order value", "客单价低"), log=True
        ),
        Trait("price_level_mean", "price", ("dear goods", "偏高价"), ("cheap goods", "偏低价")),
        Trait("discounted_line_share_182d", "discount", ("discounts", "爱折扣"), ("full price", "买原价")),
        Trait("coupon_order_share", "coupon", ("coupons", "用优惠券"), ("no coupons", "不用券")),
        Trait("weekend_order_share", "weekend", ("weekends", "周末买"), ("weekdays", "工作日买")),
        Trait("morning_order_share", "hours", ("mornings", "上午买")),
        Trait("afternoon_order_share", "hours", ("afternoons", "下午买")),
        Trait("evening_order_share", "hours", ("evenings", "晚上买")),
        Trait("night_order_share", "hours", ("nights", "凌晨买")),
        Trait("top_category_share_91d", "what", ("few categories", "品类集中"), ("many categories", "品类广")),
        Trait("top_brand_share", "brand", ("one brand", "认准品牌"), ("many brands", "品牌多样")),
        Trait("recent_lines_per_item", "repeat", ("repeated items", "爱复购"), ("new items", "爱尝新"), log=True),
        Trait("top_store_share", "store", ("one store", "只去一店"), ("many stores", "多店")),
        Trait("refund_rate", "refund", ("refunds", "常退货"), log=True),
        Trait("view_events_91d", "browsing", ("much browsing", "常浏览"), ("little browsing", "少浏览"), log=True),
        Trait("cart_per_view", "cart", ("full carts", "爱加购"), ("few carts", "少加购"), log=True),
        Trait("content_event_share_91d", "content", ("content", "爱看内容"), ("no content", "少看内容")),
        Trait("touch_open_rate", "messages", ("opened messages", "常开消息"), ("ignored messages", "不看消息")),
    )
}

HABITS = ("often", "basket", "coupon", "weekend", "store", "browsing", "content")
EVERYTHING = tuple(dict.fromkeys(trait.block for trait in TRAITS.values()))


@dataclass(frozen=True)
class SpaceCandidate:
    """A space that clusters may be made in.

    Attributes
    ----------
    name : str
    blocks : tuple of str
        Blocks of traits.
    components : int
        Number of principal components; 0 for all features as they are.
    """

    name: str
    blocks: tuple[str, ...]
    components: int = 0

    def features(self, varying: Sequence[str]) -> list[str]:
        """The features of the space, of those that vary between customers."""
        return [name for name in varying if TRAITS[name].block in self.blocks]


SPACES: Mapping[str, SpaceCandidate] = {
    space.name: space
    for space in (
        SpaceCandidate("habits", HABITS),
        SpaceCandidate("habits, 4 components", HABITS, 4),
        SpaceCandidate("everything", EVERYTHING),
        SpaceCandidate("everything, 4 components", EVERYTHING, 4),
    )
}
