"""The value of a policy in sentences, in English and Chinese."""

from __future__ import annotations

from training.measurement.notes import Language
from training.measurement.off_policy import OffPolicyValue
from training.measurement.words import decimal, number, signed


def sentences(value: OffPolicyValue, language: Language) -> list[str]:
    """What the target policy would have brought beside what was done, and whether the difference can be relied on."""
    best, logged, gain = value.value, value.logged, value.gain
    told, low, high = (number(one) for one in (best.value, best.low, best.high))
    more, least, most = (signed(number, one) for one in (gain.value, gain.low, gain.high))
    is_unclear, is_better = gain.low <= 0 <= gain.high, gain.value > 0
    refusals = [refusal.text(language) for refusal in value.refusals]
    percent = signed(decimal, 100 * gain.value / logged.value) if logged.value else ""
    if language == "zh":
        relative = f"（{percent}%）" if percent else ""
        verdict = "区间包含 0，日志不足以判断哪个更好。" if is_unclear else f"目标策略更{'好' if is_better else '差'}。"
        lines = [
            f"目标策略平均每次决策的回报为 {told}（95% 区间 {low} 至 {high}），"
            f"实际执行的策略为 {number(logged.value)}。",
            f"两者之差为 {more}{relative}，95% 区间 {least} 至 {most}：{verdict}",
        ]
        return ["以下数值不可使用：" + "；".join(refusals) + "。", *lines] if refusals else lines
    relative = f" ({percent} %)" if percent else ""
    verdict = (
        "the log does not tell which of the two is better."
        if is_unclear
        else f"the target policy is {'better' if is_better else 'worse'}."
    )
    lines = [
        f"The target policy would have brought {told} a decision, somewhere between {low} and {high}; what was done "
        f"brought {number(logged.value)}.",
        f"That is {more} a decision{relative}, somewhere between {least} and {most}: {verdict}",
    ]
    return ["This value must not be used: " + "; ".join(refusals) + ".", *lines] if refusals else lines
