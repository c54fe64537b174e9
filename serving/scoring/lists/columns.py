"""The columns of lists: for each its key, its headings, and how its values are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypeAlias

from features.profiles.tags.chinese import CHINESE, ChineseTag
from qianmian.errors import UsageError, did_you_mean
from serving.scoring.lists.words import (
    SEPARATORS,
    Lang,
    channel_name,
    day,
    day_of_text,
    percent,
    pick,
    tag_value,
    why_not,
    yes_no,
)

Kind: TypeAlias = Literal[
    "plain", "number", "money", "percent", "stage", "band", "no_score", "tag", "channels", "contact_time"
]
TagWords: TypeAlias = Mapping[str, ChineseTag | None]  # tag → its Chinese words
DEMAND_SOURCES = ChineseTag(
    "需求类型依据", "需求类型根据什么判断", {"purchases": "购买记录", "first_sessions": "最初几次访问"}
)
DO_NOT_CONTACT = ChineseTag(
    "不联系的原因",
    "为什么不联系这位客户",
    {
        "shared_account": "共用账号，不是单个客户",
        "no_score": "无评分",
        "no_consent": "未许可触达",
        "no_uplift": "触达不会带来更多，甚至更少",
        "beyond_budget": "超出预算",
    },
)
CONTROL_GROUP = ChineseTag("分组", "触达，还是留作对照", {"contact": "触达组", "control": "对照组"})
NUMERIC_KINDS = ("number", "money", "percent")


@dataclass(frozen=True)
class ListColumn:
    """A column of a list.

    Attributes
    ----------
    key : str
        Name in ``--columns``.
    en, zh : str
        Headings.
    kind : str
        How values are written: ``plain`` by their type, ``tag`` by the words of the tag.
    words : ChineseTag or None
        Of a tag.
    """

    key: str
    en: str
    zh: str
    kind: Kind = "plain"
    words: ChineseTag | None = None

    def heading(self, lang: Lang) -> str:
        """The heading in a language."""
        return pick(lang, self.en, self.zh)

    def cell(self, value: Any, lang: Lang) -> str:
        """A value as text that a spreadsheet reads: numbers without separators of thousands; empty for None.

        Examples
        --------
        >>> probability = ListColumn("churn_probability", "Churn probability", "流失概率", "percent")
        >>> probability.cell(0.1234, "en"), probability.cell(None, "en")
        ('12.3%', '')
        """
        if value is None or value != value:
            return ""
        if self.kind == "percent":
            return percent(value, 1)
        if self.kind == "money":
            return f"{value:.2f}"
        if self.kind == "stage":
            return _by_type(value, lang, CHINESE["lifecycle_stage"])
        if self.kind == "band":
            return tag_value(CHINESE["churn_risk"], value, lang)
        if self.kind == "no_score":
            return why_not(value, lang)
        if self.kind == "channels":
            return SEPARATORS[lang].join(
                f"{channel_name(one['channel'], lang)} {percent(one['share'])}" for one in value
            )
        if self.kind == "contact_time" and isinstance(value, Mapping):
            when = tag_value(self.words, f"{value['day']}_{value['slot']}", lang)
            return pick(lang, f"{when.capitalize()}, {value['hours']}", f"{when}（{value['hours']}）")
        if self.kind == "tag" and isinstance(value, str):
            value = day_of_text(value, lang)
        return _by_type(value, lang, self.words)


def _by_type(value: Any, lang: Lang, words: ChineseTag | None) -> str:
    """A value written by its type; an object as shares, the largest first."""
    if isinstance(value, Mapping):
        shares = [(name, share) for name, share in value.items() if share is not None]
        if all(isinstance(share, float) for _, share in shares):
            ranked = sorted(shares, key=lambda pair: -pair[1])
            ranked = [pair for pair in ranked if percent(pair[1]) != percent(0.0)] or ranked[:1]
            return SEPARATORS[lang].join(f"{tag_value(words, name, lang)} {percent(share)}" for name, share in ranked)
        return SEPARATORS[lang].join(f"{name} {_by_type(part, lang, words)}" for name, part in shares)
    if isinstance(value, list | tuple):
        return SEPARATORS[lang].join(_by_type(part, lang, words) for part in value)
    if isinstance(value, bool):
        return yes_no(value, lang)
    if isinstance(value, float):
        return f"{round(value, 4):g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, date):
        return day(value, lang)
    return tag_value(words, value, lang)


_COLUMNS = (
    ListColumn("user_id", "Customer", "客户编号"),
    ListColumn("user_source", "Source", "来源系统"),
    ListColumn("one_id", "OneID", "OneID"),
    ListColumn("rank", "Rank", "排名"),
    ListColumn("score", "Similarity", "相似度", "number"),
    ListColumn("group", "Group", "分组", "tag", CONTROL_GROUP),
    ListColumn("churn_probability", "Churn probability", "流失概率", "percent"),
    ListColumn("risk_band", "Risk", "流失风险", "band"),
    ListColumn("expected_value", "Expected value", "预期价值", "money"),
    ListColumn("value_at_risk", "Value at risk", "预计流失金额", "money"),
    ListColumn("value_basis", "Expected value is", "预期价值口径"),
    ListColumn("prediction", "Prediction", "预测内容"),
    ListColumn("reason_1", "Reason 1", "原因一"),
    ListColumn("reason_2", "Reason 2", "原因二"),
    ListColumn("reason_3", "Reason 3", "原因三"),
    ListColumn("reasons", "Reasons", "原因"),
    ListColumn("no_score_reason", "No score because", "无评分原因", "no_score"),
    ListColumn("no_score_reasons", "No prediction because", "无预测原因", "no_score"),
    ListColumn("consent", "Consent", "触达许可"),
    ListColumn("contact", "Contact", "是否联系"),
    ListColumn("do_not_contact_reason", "Do not contact because", "不联系的原因", "tag", DO_NOT_CONTACT),
    ListColumn("uplift", "Uplift", "增益", "number"),
    ListColumn("uplift_decile", "Uplift decile", "增益分位", "number"),
    ListColumn("contact_reason", "Why, or why not", "联系说明"),
    ListColumn("lifecycle_stage", "Stage", "生命周期阶段", "stage"),
    ListColumn("previous_stage", "Stage before", "上一阶段", "stage"),
    ListColumn("next_stage", "Next stage", "下一阶段", "stage"),
    ListColumn("next_order_date", "Expected next order", "预计下次下单", "tag"),
    ListColumn("expected_date_of_next_order", "Expected next order", "预计下次下单", "tag"),
    ListColumn("expected_date_of_next_order_earliest", "Next order, earliest", "下次下单最早日期", "tag"),
    ListColumn("expected_date_of_next_order_latest", "Next order, latest", "下次下单最晚日期", "tag"),
    ListColumn("average_days_between_orders", "Days between orders", "平均下单间隔（天）", "number"),
    ListColumn("average_order_value", "Average order", "客单价", "money"),
    ListColumn("historic_clv", "Value so far", "历史价值", "money"),
    ListColumn("predicted_clv", "Predicted value", "预测价值", "money"),
    ListColumn("predicted_clv_low", "Predicted value, low", "预测价值下限", "money"),
    ListColumn("predicted_clv_high", "Predicted value, high", "预测价值上限", "money"),
    ListColumn("total_clv", "Total value", "总价值", "money"),
    ListColumn("historic_number_of_orders", "Orders so far", "历史订单数", "number"),
    ListColumn("predicted_number_of_orders", "Predicted orders", "预测订单数", "number"),
    ListColumn("predicted_number_of_orders_low", "Predicted orders, low", "预测订单数下限", "number"),
    ListColumn("predicted_number_of_orders_high", "Predicted orders, high", "预测订单数上限", "number"),
    ListColumn("purchase_probability", "Purchase probability", "购买概率", "percent"),
    ListColumn("left_probability", "Probability of having left", "已离开的概率", "percent"),
    ListColumn("left_days", "Left: no return within (days)", "离开判定天数", "number"),
    ListColumn("left_risk", "Risk of having left", "离开风险", "band"),
    ListColumn("propensities", "Propensities", "购买倾向"),
    ListColumn("demand_type", "Demand type", "需求类型", "tag", CHINESE["demand_type"]),
    ListColumn("demand_type_source", "Demand type by", "需求类型依据", "tag", DEMAND_SOURCES),
    ListColumn("demand_type_probability", "Probability of the demand type", "需求类型概率", "percent"),
    ListColumn("behaviour_cluster", "Cluster", "行为分群"),
    ListColumn("cluster_name", "Name of the cluster", "分群名称"),
    ListColumn("typicality", "Typicality", "典型度", "number"),
    ListColumn("ranked_channel_affinity", "Best channels", "渠道偏好排序", "channels"),
    ListColumn("best_contact_time", "Best contact time", "最佳触达时间", "contact_time", CHINESE["best_contact_time"]),
    ListColumn("as_of", "As of", "数据截至"),
    ListColumn("model_version", "Model version", "模型版本"),
)
COLUMNS: Mapping[str, ListColumn] = {column.key: column for column in _COLUMNS}


def column_of(key: str, tags: TagWords) -> ListColumn:
    """The column of a key: of `COLUMNS`, of a tag, or one with the key as its heading."""
    if key in COLUMNS:
        return COLUMNS[key]
    described = key.replace("_", " ").capitalize()
    words = tags.get(key)
    if words is None and (dated := tags.get(key.removesuffix("_as_of"))) is not None:  # of a model, beside its tag
        return ListColumn(key, described, f"{dated.name}截至", "tag")
    return ListColumn(key, described, words.name if words is not None else described, "tag", words)


def choose(wanted: Sequence[str] | None, default: Iterable[str], available: Iterable[str]) -> list[str]:
    """The keys of the columns of a list; the last one is always ``one_id``, by which an erasure finds a customer's row.

    Raises
    ------
    UsageError
        A name in `wanted` is not in `available`.

    Examples
    --------
    >>> choose(None, ["one_id", "user_id"], []), choose(["score"], [], ["score", "rank"])
    (['user_id', 'one_id'], ['score', 'one_id'])
    """
    names = list(dict.fromkeys(default if wanted is None else wanted))
    allowed = {*available, "one_id"}
    for name in names if wanted is not None else ():
        if name not in allowed:
            raise UsageError(
                f"unknown column{did_you_mean(name, allowed)}",
                where="--columns",
                got=name,
                allowed=", ".join(sorted(allowed)),
            )
    return [*(name for name in names if name != "one_id"), "one_id"]
