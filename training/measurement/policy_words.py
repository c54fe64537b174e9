"""The value of a policy in sentences, in English and Chinese."""

from __future__ import annotations

from typing import Literal

from training.measurement.off_policy import OffPolicyValue

Lang = Literal["en", "zh"]


def sentences(value: OffPolicyValue, lang: Lang) -> list[str]:
    """What the target policy would have brought beside what was done, and whether the difference can be relied on."""
    best, logged, gain = value.value, value.logged, value.gain
    relative = f"{gain.value / logged.value:+.1%}" if logged.value else "–"
    if lang == "zh":
        lines = [
            f"目标策略平均每次决策的回报为 {best.value:.4g}（95% 区间 {best.low:.4g} 至 {best.high:.4g}），"
            f"实际执行的策略为 {logged.value:.4g}。",
            f"两者之差为 {gain.value:+.4g}（{relative}），95% 区间 {gain.low:+.4g} 至 {gain.high:+.4g}："
            + (
                "区间包含 0，日志不足以判断哪个更好。"
                if gain.low <= 0 <= gain.high
                else f"目标策略更{'好' if gain.value > 0 else '差'}。"
            ),
        ]
        return ["以下数值不可使用：" + "；".join(value.refusals), *lines] if value.refusals else lines
    lines = [
        f"The target policy would have brought {best.value:.4g} a decision, somewhere between {best.low:.4g} and "
        f"{best.high:.4g}; what was done brought {logged.value:.4g}.",
        f"That is {gain.value:+.4g} a decision ({relative}), somewhere between {gain.low:+.4g} and {gain.high:+.4g}: "
        + (
            "the log does not tell which of the two is better."
            if gain.low <= 0 <= gain.high
            else f"the target policy is {'better' if gain.value > 0 else 'worse'}."
        ),
    ]
    return ["This value must not be used: " + "; ".join(value.refusals) + ".", *lines] if value.refusals else lines
