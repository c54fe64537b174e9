"""The words of the churn report, English and Chinese side by side."""

from __future__ import annotations

from collections.abc import Mapping

from serving.scoring.lists.words import Lang, pick

TEXTS: Mapping[str, tuple[str, str]] = {
    "title": ("Who may not order again", "哪些客户可能不再下单"),
    "subtitle": ("Churn report as of {as_of}", "流失报告，数据截至 {as_of}"),
    "intro_active": (
        "{scored} customers bought in the last {active} days. This report says how likely each of them is to order nothing until {until} ({horizon} days), why, and whom to contact first.",
        "近 {active} 天内有 {scored} 位客户购买过。本报告说明其中每位客户截至 {until}（{horizon} 天内）不再下单的概率和原因，以及应该先联系谁。",
    ),
    "intro": (
        "This report says of {scored} customers how likely each is to order nothing until {until} ({horizon} days), why, and whom to contact first.",
        "本报告说明 {scored} 位客户中每一位截至 {until}（{horizon} 天内）不再下单的概率和原因，以及应该先联系谁。",
    ),
    "base_rate": (
        "In the past, {base_rate} of such customers ordered nothing for {horizon} days; this time the model expects {expected} of them ({expected_share}).",
        "以往这类客户中有 {base_rate} 在 {horizon} 天内没有下单；这一次模型预计有 {expected} 位（{expected_share}）。",
    ),
    "tile_scored": ("customers with a score", "有评分的客户"),
    "tile_expected": ("of them expected to order nothing", "预计不再下单的客户"),
    "tile_value": ("value at risk", "预计流失金额"),
    "tile_contact": ("customers to contact", "建议联系的客户"),
    "sure": ("How sure is this?", "预测有多可靠？"),
    "auc": (
        "Take one customer who ordered nothing and one who ordered: in {auc} of 100 such pairs the model gave the first the higher probability (95% interval {low} to {high}); guessing gets 50.",
        "任取一位没有下单的客户和一位下了单的客户：每 100 对中，模型有 {auc} 对给前者更高的概率（95% 区间 {low}–{high}），随机猜测是 50 对。",
    ),
    "brier": (
        "The mean squared error of the probabilities (Brier score, lower is better) is {brier}; it would be {base} if everybody got the same probability.",
        "概率的均方误差（Brier 分数，越低越好）为 {brier}；如果给每个人同样的概率，则为 {base}。",
    ),
    "tested": (
        "Measured on {n} customers, on days that the model had not seen.",
        "以上在 {n} 位客户上测得，所用日期模型训练时从未见过。",
    ),
    "no_evaluation": (
        "The model was registered without a stored evaluation; train it again to see here how sure it is.",
        "该模型注册时没有保存评估结果；重新训练后，这里会说明预测有多可靠。",
    ),
    "by_band": ("Predicted against what happened, by risk", "各风险等级：预测与实际"),
    "by_month": ("Predicted against what happened, by date", "各日期：预测与实际"),
    "month_note": (
        "Each date is predicted by a model of that time; bars are 95% intervals.",
        "每个日期都由当时的模型预测；竖线为 95% 区间。",
    ),
    "predicted": ("predicted", "预测"),
    "observed": ("observed", "实际"),
    "few": ("few customers", "客户较少"),
    "bands": ("How many, and how much is at stake", "有多少客户，涉及多少金额"),
    "risk": ("Risk", "风险"),
    "customers": ("Customers", "客户数"),
    "mean_probability": ("Mean probability", "平均概率"),
    "expected": ("Expected to order nothing", "预计不再下单"),
    "value_at_risk": ("Value at risk", "预计流失金额"),
    "share_at_risk": ("Share of it", "占比"),
    "all": ("All", "合计"),
    "value_note": (
        "Value at risk is churn probability × expected value ({basis}).",
        "预计流失金额 = 流失概率 × 预期价值（{basis}）。",
    ),
    "no_value": (
        "The data have no amounts, so there is no value at risk; customers are sorted by probability.",
        "数据中没有金额，因此无法计算预计流失金额；客户按概率排序。",
    ),
    "curve": ("Value at risk, by how many customers are contacted", "联系多少客户，覆盖多少预计流失金额"),
    "by_value": ("highest value at risk first", "按预计流失金额从高到低"),
    "by_risk": ("highest probability first", "按流失概率从高到低"),
    "curve_x": ("share of the customers with a score", "占有评分客户的比例"),
    "overlap": (
        "The {n} customers with the highest value at risk carry {by_value} of it, the {n} with the highest probability {by_risk}; {same} customers are in both lists.",
        "预计流失金额最高的 {n} 位客户占总额的 {by_value}，流失概率最高的 {n} 位只占 {by_risk}；两份名单中有 {same} 位相同。",
    ),
    "top": ("Whom to contact first", "先联系谁"),
    "top_note": (
        "The first {n} of {of} customers to contact, by {sort}. Click a heading to sort. Typical is the median of the customers with a score.",
        "建议联系的 {of} 位客户中的前 {n} 位，按{sort}排序。点击表头可重新排序。“一般客户”指有评分客户的中位数。",
    ),
    "sort_value_at_risk": ("value at risk", "预计流失金额"),
    "sort_risk": ("churn probability", "流失概率"),
    "nobody": ("Nobody is to be contacted; the table below says why.", "没有建议联系的客户，原因见下表。"),
    "customer": ("Customer", "客户"),
    "probability": ("Probability", "概率"),
    "why": ("Why", "原因"),
    "stage": ("Stage", "阶段"),
    "next_order": ("Next order expected", "预计下次下单"),
    "consent": ("Consent", "触达许可"),
    "not_contacted": ("Whom not to contact, and why", "不建议联系谁，为什么"),
    "reason": ("Reason", "原因"),
    "to_contact": ("to contact", "建议联系"),
    "all_customers": ("all customers", "全部客户"),
    "reconcile": ("Every customer is in one row of this table.", "每位客户只计入此表的一行。"),
    "held_back": (
        "The {n} with the highest {sort} who are not to be contacted",
        "不建议联系的客户中{sort}最高的 {n} 位",
    ),
    "next": ("What to do next", "下一步"),
    "next_list": (
        "Work through the list from the top: the first {n} carry {share} of the value at risk of all who may be contacted.",
        "从名单最上面开始联系：前 {n} 位占全部可联系客户预计流失金额的 {share}。",
    ),
    "next_list_risk": (
        "Work through the list from the top: it is sorted by probability.",
        "从名单最上面开始联系：名单按概率排序。",
    ),
    "next_reason": (
        "Let the reason choose the message: a reminder for who is later than usual, an offer for who spends less.",
        "按原因决定内容：比平时晚下单的客户适合提醒，消费减少的客户适合优惠。",
    ),
    "next_control": (
        "Leave out a tenth of the list by lot, and compare the orders of both groups after {until}. The probabilities say who is likely to stay away, not whom a message brings back.",
        "随机留出名单的十分之一不联系，{until} 之后比较两组的下单情况。概率说明谁可能不再下单，但不说明谁会因为触达而回来。",
    ),
    "next_again": (
        "Score again in a week (`qianmian score churn`): who has ordered meanwhile drops out.",
        "一周后重新评分（`qianmian score churn`）：期间下单的客户会自动离开名单。",
    ),
    "provenance": ("Where this comes from", "数据来源"),
    "model": ("Model", "模型"),
    "model_value": (
        "{name}, version {version}; trained on the data before {as_of}",
        "{name}，版本 {version}；用 {as_of} 之前的数据训练",
    ),
    "kind": ("Kind of model", "模型类型"),
    "profiles": ("Profiles", "画像"),
    "profiles_value": ("as of {as_of} (UTC), {n} customers", "截至 {as_of}（UTC），{n} 位客户"),
    "data": ("Digest of the data", "数据摘要"),
    "command": ("Made by", "生成方式"),
    "personal": (
        "This file names customers. Keep it as you keep customer data; `qianmian erase` removes erased customers from it.",
        "本文件包含客户编号，请按客户数据的要求保管；`qianmian erase` 删除客户时会同时从本文件中移除。",
    ),
}


class ReportTexts:
    """The texts of a language.

    Examples
    --------
    >>> ReportTexts("en")("sure"), ReportTexts("zh")("subtitle", as_of="2018年1月2日")
    ('How sure is this?', '流失报告，数据截至 2018年1月2日')
    """

    def __init__(self, lang: Lang) -> None:
        self.lang = lang

    def __call__(self, key: str, **values: object) -> str:
        return pick(self.lang, *TEXTS[key]).format(**values)
