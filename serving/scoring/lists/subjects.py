"""What features are about, in words: the table from which reasons become sentences.

A feature is looked up by its name without the window, so that `orders_28d` and `orders_91d` share a line. A feature
that has none, such as one of an industry pack, is worded by its description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from features.compute.algebra import NO_RECORD_PREFIX, PROFILE_PREFIX, Feature
from features.definitions.behaviour import COUNTED_EVENT_TYPES
from features.profiles.tags.chinese import CHINESE, DAY_PARTS_ZH

Kind: TypeAlias = Literal["recency", "rhythm", "regularity", "count", "amount", "measure", "category", "record"]
WINDOW = re.compile(r"(?P<stem>.+?)_(?P<days>\d+)d")


@dataclass(frozen=True)
class Subject:
    """What a feature is about.

    Attributes
    ----------
    group : str
        Features of one group say the same in other numbers; a customer gets one reason of a group.
    kind : str
        How the value is worded (`serving.scoring.lists.sentences`): ``recency`` is days since, ``rhythm`` days between
        orders, ``count`` and ``amount`` a total of a window, ``measure`` a label with a value, ``category`` a text,
        ``record`` whether a source has the profile of the customer.
    en, zh : str
        The noun. Of a count, English has the singular and the plural (``order|orders``) and Chinese a text with a place
        for the number (``下单 {} 次``).
    sign : int
        1 if customers with a larger value leave more often, −1 if less often, 0 if it depends.
    told_by : str
        Name of the feature by which it is told instead; empty for itself.
    """

    group: str
    kind: Kind
    en: str
    zh: str
    sign: int = 0
    told_by: str = ""


def _counts(group: str, sign: int, **nouns: tuple[str, str]) -> dict[str, Subject]:
    return {stem: Subject(group, "count", en, zh, sign) for stem, (en, zh) in nouns.items()}


def _measures(group: str, sign: int, **labels: tuple[str, str]) -> dict[str, Subject]:
    return {stem: Subject(group, "measure", en, zh, sign) for stem, (en, zh) in labels.items()}


def _recency(**nouns: tuple[str, str]) -> dict[str, Subject]:
    return {f"days_since_last_{stem}": Subject("visits", "recency", en, zh, 1) for stem, (en, zh) in nouns.items()}


_EVENTS_ZH = dict(
    zip(
        COUNTED_EVENT_TYPES,
        ("浏览", "加购", "收藏", "搜索", "打开消息", "点击消息", "核销优惠券", "购买行为"),
        strict=True,
    )
)

SUBJECTS: Mapping[str, Subject] = {
    "days_since_last_order": Subject("recency", "recency", "order", "下单", 1),
    "gaps_silent": Subject("recency", "recency", "", "", 1, "days_since_last_order"),
    "gaps_silent_max": Subject("recency", "recency", "", "", 1, "days_since_last_order"),
    "days_since_first_order": Subject("tenure", "measure", "time since the first order", "首单距今", -1),
    "gap_days_mean": Subject("frequency", "rhythm", "", "", 1),
    "gap_days_max": Subject("frequency", "measure", "longest time between orders", "最长下单间隔", 1),
    "order_gap_days_mean": Subject("frequency", "measure", "mean time between orders", "平均下单间隔", 1),
    "last_gap_days": Subject("frequency", "measure", "time before the last order", "最近一次下单间隔", 1),
    "gap_days_std": Subject("regularity", "regularity", "", ""),
    "order_gap_days_std": Subject("regularity", "regularity", "", ""),
    "gap_variation": Subject("regularity", "regularity", "", "", 0, "gap_days_std"),
    "orders_trend": Subject("frequency", "count", "", "", -1, "orders_28d"),
    "orders_slope": Subject("frequency", "count", "", "", -1, "orders_28d"),
    "amount": Subject("money", "amount", "spent", "消费", -1),
    "amount_total": Subject("money", "amount", "spent", "消费", -1),
    "amount_trend": Subject("money", "amount", "", "", -1, "amount_28d"),
    "amount_slope": Subject("money", "amount", "", "", -1, "amount_28d"),
    **_counts(
        "frequency",
        -1,
        orders=("order|orders", "下单 {} 次"),
        orders_total=("order|orders", "下单 {} 次"),
        order_days=("day with an order|days with an order", "有 {} 天下单"),
        order_weeks=("week with an order|weeks with an order", "有 {} 周下单"),
    ),
    **_counts(
        "basket",
        -1,
        lines=("order line|order lines", "购买 {} 行商品"),
        lines_total=("order line|order lines", "购买 {} 行商品"),
        units=("unit|units", "购买 {} 件"),
        items_distinct=("different item|different items", "购买 {} 种商品"),
    ),
    **_counts(
        "categories",
        -1,
        categories_distinct=("category bought|categories bought", "购买 {} 个一级品类"),
        subcategories_distinct=("subcategory bought|subcategories bought", "购买 {} 个细分品类"),
        brands_distinct=("brand bought|brands bought", "购买 {} 个品牌"),
    ),
    "categories_expected": Subject(
        "categories", "measure", "purchases of categories that are due", "预计再次购买品类的次数", -1
    ),
    **_counts(
        "visits",
        -1,
        events=("action|actions", "{} 次行为"),
        event_days=("day with a visit|days with a visit", "有 {} 天来访"),
        sessions=("visit|visits", "访问 {} 次"),
        viewed_items=("item viewed|items viewed", "浏览 {} 种商品"),
        viewed_categories=("category viewed|categories viewed", "浏览 {} 个品类"),
        content_events=("action with content|actions with content", "{} 次内容行为"),
        **{
            f"{kind}_events": (f"{kind.replace('_', ' ')} action|{kind.replace('_', ' ')} actions", f"{zh} {{}} 次")
            for kind, zh in _EVENTS_ZH.items()
        },
    ),
    **_counts(
        "messages",
        0,
        touches=("message|messages", "收到 {} 次触达"),
        touches_total=("message|messages", "收到 {} 次触达"),
        touch_campaigns=("campaign|campaigns", "收到 {} 个活动的触达"),
        touches_opened=("message opened|messages opened", "打开 {} 次触达"),
        touches_clicked=("message clicked|messages clicked", "点击 {} 次触达"),
    ),
    **_counts(
        "refunds",
        0,
        refunded_lines=("line returned|lines returned", "退货 {} 行"),
    ),
    **_counts("discounts", 0, coupon_orders=("order with a coupon|orders with a coupon", "用券下单 {} 次")),
    **_recency(
        event=("visit", "来访"),
        login=("login", "登录"),
        view=("page view", "浏览"),
        cart=("item put into the cart", "加购"),
        favourite=("favourite", "收藏"),
        search=("search", "搜索"),
        purchase=("purchase event", "购买"),
    ),
    "days_since_last_refund": Subject("refunds", "recency", "return", "退货"),
    "days_since_last_touch": Subject("messages", "recency", "message", "触达"),
    "days_since_last_open": Subject("messages", "recency", "opened message", "打开消息", 1),
    "days_since_last_click": Subject("messages", "recency", "clicked message", "点击消息", 1),
    **_measures(
        "order value",
        0,
        order_value_mean=("average order", "平均每单金额"),
        order_value_max=("largest order", "最大一单金额"),
        order_value_std=("spread of the order values", "每单金额的波动"),
        first_order_value=("first order", "首单金额"),
        last_order_value=("last order", "最近一单金额"),
        line_amount_max=("dearest order line", "最贵一行商品"),
        basket_lines_mean=("order lines per order", "每单商品行数"),
        basket_lines_max=("order lines of the largest order", "最大一单商品行数"),
        basket_units_mean=("units per order", "每单件数"),
    ),
    **_measures(
        "discounts",
        0,
        discount_rate=("share of the price saved by discounts", "折扣占原价的比例"),
        coupon_rate=("share of the price saved by coupons", "优惠券占原价的比例"),
        discounted_line_share=("share of order lines with a discount", "打折商品行占比"),
        coupon_order_share=("share of orders with a coupon", "用券订单占比"),
        discount=("discounts", "折扣金额"),
        coupon_discount=("coupon discounts", "优惠券抵扣"),
    ),
    **_measures(
        "messages",
        0,
        touch_open_rate=("share of messages opened", "触达打开率"),
        touch_click_rate=("share of messages clicked", "触达点击率"),
        touches_delivered=("messages that arrived", "送达的触达数"),
        touches_unopened=("messages that arrived and stayed unopened", "送达未打开的触达数"),
        touch_click_per_open=("share of opened messages that were clicked", "打开后点击率"),
        message_clicks_per_open=("clicks per opened message", "每次打开的点击数"),
        touch_gap_days_mean=("mean time between messages", "平均触达间隔"),
    ),
    **_measures(
        "prices",
        0,
        price_level_mean=("price level of the goods bought", "所购商品价位"),
        price_level_std=("spread of the price levels of the goods bought", "所购商品价位的波动"),
        price_level_lines=("order lines that have a price level", "有价位的商品行数"),
        viewed_price_level_mean=("price level of the goods viewed", "所看商品价位"),
        viewed_price_level_events=("actions with goods that have a price level", "对有价位商品的行为次数"),
    ),
    **_measures(
        "repeats",
        0,
        lines_per_item=("order lines per item", "每种商品购买行数"),
        recent_lines_per_item=("order lines per item in 91 days", "近 91 天每种商品购买行数"),
        top_item_share=("share of order lines of the main item", "最常买商品占比"),
        item_entropy=("spread over items", "商品分散程度"),
    ),
    **_measures(
        "clicks",
        0,
        cart_per_view=("items put into the cart per view", "每次浏览加购数"),
        favourite_per_view=("favourites per view", "每次浏览收藏数"),
        purchase_per_view=("purchases per view", "每次浏览购买数"),
        purchase_per_cart=("purchases per item put into the cart", "每次加购购买数"),
        cart_items=("items put into the cart", "加购商品数"),
        favourite_items=("items marked as favourite", "收藏商品数"),
    ),
    **_measures(
        "visits",
        0,
        days_since_first_event=("time since the first visit", "首次来访距今"),
        days_since_registered=("time since the registration", "注册距今"),
        events_per_session=("actions per visit", "每次访问行为数"),
        event_gap_days_mean=("mean time between actions", "平均行为间隔"),
        event_gap_days_std=("spread of the time between actions", "行为间隔的波动"),
        events_trend=("actions against the week before", "行为较前一周的变化"),
        events_slope=("change of the actions a day", "每日行为数的变化"),
        view_seconds_mean=("seconds per view", "每次浏览秒数"),
        visit_channels_distinct=("channels visited", "来访渠道数"),
        channels_distinct=("channels of orders", "下单渠道数"),
    ),
    **_measures(
        "content",
        0,
        content_event_share=("share of actions with content", "内容行为占比"),
        contents_distinct=("different contents", "看过的内容数"),
        content_seconds=("seconds with content", "内容停留秒数"),
        top_topic_share=("share of the time with the main topic", "偏好主题时长占比"),
        topic_seconds=("seconds with contents that have a topic", "有主题内容的停留秒数"),
        topic_entropy=("spread over topics", "主题分散程度"),
    ),
    **_measures(
        "refunds",
        0,
        refunded_amount=("refunds", "退款金额"),
        refund_rate=("refunds per amount paid", "退款占消费的比例"),
    ),
    **_measures(
        "hours",
        0,
        weekend_order_share=("share of orders at weekends", "周末订单占比"),
        weekday_entropy=("spread of the orders over the weekdays", "下单星期分散程度"),
        order_hour_entropy=("spread of the orders over the hours", "下单时刻分散程度"),
        event_hour_entropy=("spread of the actions over the hours", "行为时刻分散程度"),
        **{
            f"{part}_order_share": (f"share of orders {'at' if part == 'night' else 'in the'} {part}", f"{zh}订单占比")
            for part, zh in DAY_PARTS_ZH.items()
        },
        **{
            f"{part}_event_share": (f"share of actions {'at' if part == 'night' else 'in the'} {part}", f"{zh}行为占比")
            for part, zh in DAY_PARTS_ZH.items()
        },
    ),
    **_measures(
        "stores",
        0,
        stores_distinct=("different stores", "去过的门店数"),
        top_store_share=("share of orders in the main store", "常去门店订单占比"),
    ),
    **_measures(
        "categories",
        0,
        top_category_share=("share of order lines in the main category", "偏好品类占比"),
        top_brand_share=("share of order lines of the main brand", "偏好品牌占比"),
        category_entropy=("spread over categories", "品类分散程度"),
        top_spend_category_share=("share of the money in the category of most money", "消费最多品类的金额占比"),
        viewed_category_share=("share of actions in the category met most", "来访最多品类占比"),
    ),
    "days_since_points_expired": Subject("points", "measure", "time since the points lapsed", "积分过期距今"),
    "top_category": Subject("categories", "category", "category bought most", "购买最多的品类"),
    "last_category": Subject("categories", "category", "category bought last", "最近购买的品类"),
    "first_category": Subject("categories", "category", "category bought first", "首次购买的品类"),
    "top_brand": Subject("categories", "category", "brand bought most", "购买最多的品牌"),
    "top_channel": Subject("channels", "category", "channel of most orders", "下单最多的渠道"),
}


def split_window(name: str) -> tuple[str, int | None]:
    """The name of a feature without its window, and the window in days.

    Examples
    --------
    >>> split_window("orders_91d"), split_window("orders_total")
    (('orders', 91), ('orders_total', None))
    """
    found = WINDOW.fullmatch(name)
    return (found["stem"], int(found["days"])) if found else (name, None)


def subject_of(feature: Feature) -> Subject:
    """The subject of a feature; one without a line in the table is a group of its own, worded by its description."""
    name = feature.name
    if name.startswith(NO_RECORD_PREFIX):
        source = name.removeprefix(NO_RECORD_PREFIX)
        return Subject(name, "record", f"the source {source}", f"来源 {source} ")
    stem, _ = split_window(name)
    described = described_zh = feature.description or name.replace("_", " ")
    if name.startswith(PROFILE_PREFIX):
        attribute = name.removeprefix(PROFILE_PREFIX)
        described = described_zh = attribute.replace("_", " ")
        if attribute in CHINESE:
            described_zh = CHINESE[attribute].name
    own = Subject(name, "category" if feature.categorical else "measure", described, described_zh)
    return SUBJECTS.get(stem, own)
