"""The words of a monitor, English and Chinese side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Lang: TypeAlias = Literal["en", "zh"]

TEXTS: Mapping[str, tuple[str, str]] = {
    # checks
    "features": ("drift of features", "特征漂移"),
    "vanished": ("features that vanished", "消失的特征"),
    "scores": ("drift of scores", "分数漂移"),
    "outcomes": ("drift of outcomes", "结果漂移"),
    "calibration": ("calibration", "校准"),
    "discrimination": ("AUC", "AUC"),
    "population": ("customers scored", "评分客户数"),
    "model_age": ("age of the model", "模型时效"),
    "profiles_age": ("age of the profiles", "画像时效"),
    "data_age": ("age of the data", "数据时效"),
    "rows_transactions": ("rows of transactions", "交易数据行数"),
    "rows_events": ("rows of events", "行为数据行数"),
    "ids_transactions": ("transactions without a user id", "无用户 ID 的交易数据"),
    "ids_events": ("events without a user id", "无用户 ID 的行为数据"),
    "fallback": ("responses of a fallback", "兜底响应"),
    # statuses
    "fine": ("fine", "正常"),
    "alarm": ("ALARM", "告警"),
    "unknown": ("cannot be said", "无法判断"),
    # statements
    "no_drift": (
        "none of {n} columns has drifted; the largest change is {name}: {change} (between months of the reference up to {usual})",
        "{n} 列均未漂移；变化最大的是 {name}：{change}（参考期各月之间最多 {usual}）",
    ),
    "drifted": ("{n} of {of} columns have drifted: {names}", "{of} 列中有 {n} 列漂移：{names}"),
    "expected": ("{text}; as expected, {names} grow with the calendar", "{text}；{names} 随日历增长，属预期变化"),
    "mean_of": ("the mean is {now}, and was {then}: {change}", "均值为 {now}，参考期为 {then}：{change}"),
    "one_window": (
        "{text}; the reference is of one moment, so what is usual between months is not known",
        "{text}；参考期只有一个时点，无法得知月与月之间的正常波动",
    ),
    "too_few": ("{n} customers are scored, at least {least} are needed", "仅有 {n} 位客户有评分，至少需要 {least} 位"),
    "no_reference": ("the training data of the model had no customer to score", "模型训练数据中没有可评分的客户"),
    "none_vanished": ("all {n} features of the model are computed", "模型的 {n} 个特征均可计算"),
    "vanished_now": (
        "{names}: no longer declared, or without data; the model reads the default. Bring the column back, or train again",
        "{names}：已不再声明或没有数据；模型读取默认值。请恢复该列或重新训练",
    ),
    "no_labels": (
        "the outcomes of the first customers scored after the training are known on {date}",
        "训练之后首批评分客户的结果将于 {date} 得知",
    ),
    "no_outcomes": (
        "predictions of {job} are not compared with outcomes here; `qianmian train` evaluates them",
        "{job} 模型不与实际结果比较；由 `qianmian train` 评估",
    ),
    "no_earlier_outcomes": ("the reference has no outcomes", "参考期没有结果"),
    "calibrated": (
        "at {date}, predicted {predicted}, observed {observed} [{low}, {high}] of {n}",
        "{date}：预测 {predicted}，实际 {observed} [{low}, {high}]，共 {n} 位",
    ),
    "calibrated_each": (
        "at {date}, predicted / observed of {n} customers: {groups}",
        "{date}：{n} 位客户的预测 / 实际：{groups}",
    ),
    "uncalibrated": ("{text}; out of bounds: {groups}", "{text}；超出范围：{groups}"),
    "one_class": (
        "at {date}, the outcome of {yes} of {n} customers was yes: an AUC needs both outcomes",
        "{date}：{n} 位客户中 {yes} 位的结果为“是”：AUC 需要两类结果",
    ),
    "one_class_each": (
        "at {date}, all {n} customers had the same outcome: an AUC needs both outcomes",
        "{date}：{n} 位客户的结果全部相同：AUC 需要两类结果",
    ),
    "of": ("{name}: {text}", "{name}：{text}"),
    "each": ("{texts}", "{texts}"),
    "auc": (
        "{now} [{low}, {high}] at {date}; at the training {then} [{then_low}, {then_high}]",
        "{date}：{now} [{low}, {high}]；训练时 {then} [{then_low}, {then_high}]",
    ),
    "auc_alone": (
        "{now} [{low}, {high}] at {date}; an earlier version trained the model and did not store its AUC",
        "{date}：{now} [{low}, {high}]；旧版本训练的模型未保存 AUC",
    ),
    "age": ("as of {date}, {days} days old; at most {most}", "截至 {date}，已 {days} 天；上限 {most} 天"),
    "later": ("as of {date}, later than the moment of the check", "截至 {date}，晚于检查时点"),
    "no_profiles": ("no profiles are published; run `qianmian features`", "尚未发布画像；请运行 `qianmian features`"),
    "no_rows": ("no row has a date", "没有带日期的行"),
    "rows": (
        "{now} in the last 7 days; in the {weeks} weeks before, {low} to {high} a week",
        "最近 7 天 {now} 行；此前 {weeks} 周每周 {low} 至 {high} 行",
    ),
    "rows_empty": ("{text}; {empty} of the last 7 days have none", "{text}；最近 7 天中有 {empty} 天没有数据"),
    "few_weeks": (
        "{weeks} weeks of history, at least {least} are needed to say what is usual",
        "仅有 {weeks} 周历史，至少需要 {least} 周才能判断常态",
    ),
    "population_now": ("{now}; in the reference {low} to {high}", "{now} 位；参考期为 {low} 至 {high} 位"),
    "ids": ("{now} in the last 28 days, {then} in the 28 before", "最近 28 天 {now}，此前 28 天 {then}"),
    "fallback_elsewhere": (
        "only lists of items have any; servers count them, not the workspace: label `fallback` of the metric `qianmian_recommendations_total`",
        "只有商品列表有兜底；由服务端计数，工作区没有记录：见指标 `qianmian_recommendations_total` 的标签 `fallback`",
    ),
    # report
    "title": ("Is the model still right?", "模型是否仍然可靠？"),
    "subtitle": (
        "{model} version {version}, trained on data before {model_as_of}, checked as of {as_of}",
        "{model} 版本 {version}，训练数据截至 {model_as_of}，检查时点 {as_of}",
    ),
    "stored": ("The reference was stored with the model at its training.", "参考期数据在训练时随模型保存。"),
    "recomputed": (
        "An earlier version trained the model and stored no reference: it was computed from the data as they are today, so that a change of the whole history is not noticed. The next training stores one.",
        "该模型由旧版本训练，没有保存参考期：参考期按当前数据重新计算，因此看不出整段历史的改动。下次训练会保存。",
    ),
    "verdict_fine": ("Nothing needs attention.", "无需处理。"),
    "verdict_alarm": ("{n} checks need attention: {names}.", "有 {n} 项需要处理：{names}。"),
    "check": ("Check", "检查项"),
    "result": ("Result", "结果"),
    "details": ("What was found", "说明"),
    "columns": ("How far features and scores have moved", "特征与分数的变化幅度"),
    "columns_note": (
        "The shift is the difference of the means in standard deviations, PSI the population stability index. Neither grows with the number of customers. A column has drifted if its change is beyond what days that change places at random would show (adjusted p at most {alpha}), above the limit ({shift} standard deviations, PSI {psi}) and above what is usual between the months of the reference.",
        "“偏移”为均值之差（以标准差计），PSI 为群体稳定性指数，二者都不随客户数增大。只有当变化超出随机交换日期所产生的噪声（校正后 p 不超过 {alpha}）、超过阈值（{shift} 个标准差，PSI {psi}）并超过参考期各月之间的正常波动时，才算漂移。",
    ),
    "column": ("Column", "列"),
    "mean_then": ("Mean then", "参考期均值"),
    "mean_now": ("Mean now", "当前均值"),
    "shift": ("Shift", "偏移"),
    "psi": ("PSI", "PSI"),
    "p": ("p", "p"),
    "usual": ("Usual shift", "正常偏移"),
    "score": ("score", "分数"),
    "outcome": ("outcome", "结果"),
    "pictures": ("Then and now", "对比图"),
    "then": ("reference", "参考期"),
    "now": ("now", "当前"),
    "bins": ("from low to high values, in the bins of the reference", "数值从低到高，按参考期分箱"),
    "bands": ("Predicted against observed, by risk", "各风险等级：预测与实际"),
    "group": ("Risk", "风险"),
    "customers": ("Customers", "客户数"),
    "predicted": ("Predicted", "预测"),
    "observed": ("Observed", "实际"),
    "ratio": ("Observed ÷ predicted", "实际 ÷ 预测"),
    "all": ("all", "全部"),
    "low": ("low", "低"),
    "medium": ("medium", "中"),
    "high": ("high", "高"),
    "command": ("Repeat it", "重现命令"),
    "no_person": ("This file names no customer.", "本文件不含任何客户信息。"),
}
CALENDAR = {"en": ", ", "zh": "、"}


@dataclass(frozen=True)
class CheckText:
    """A sentence with its values, which is said in either language.

    Examples
    --------
    >>> CheckText("none_vanished", {"n": 3}).say("en")
    'all 3 features of the model are computed'
    """

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def say(self, lang: Lang) -> str:
        """The sentence."""
        spoken = {name: self._value(value, lang) for name, value in self.values.items()}
        return TEXTS[self.key][lang == "zh"].format(**spoken)

    @staticmethod
    def _value(value: Any, lang: Lang) -> str:
        if isinstance(value, CheckText):
            return value.say(lang)
        if isinstance(value, tuple):
            return CALENDAR[lang].join(CheckText._value(part, lang) for part in value)
        return f"{value:,}" if isinstance(value, int) else str(value)


def word(key: str, lang: Lang) -> str:
    """A text without values."""
    return TEXTS[key][lang == "zh"]


def named(name: str) -> CheckText | str:
    """The name of a group or column: a word in either language, or as it is."""
    return CheckText(name) if name in TEXTS else name
