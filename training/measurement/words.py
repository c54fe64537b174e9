"""What an experiment says, in sentences without statistics, in English and Chinese; every claim with its figures."""

from __future__ import annotations

from collections.abc import Callable

from qianmian.propensity_targets import TARGET_COLUMNS
from training.measurement.differences import Difference
from training.measurement.effects import Measurement, MetricEffect
from training.measurement.notes import Language
from training.measurement.sample_ratio import SampleRatio

RARE_IMBALANCE = 0.01  # p value of the balance of the pre-period, below which a sentence warns
NOUNS = {
    "en": {"order": "customers with an order", "orders": "orders", "amount": "sales"},
    "zh": {"order": "下单客户", "orders": "订单", "amount": "销售额"},
}


def sentences(found: Measurement, language: Language = "en") -> list[str]:
    """The result in sentences, the sample ratio first if it is off.

    Parameters
    ----------
    found : Measurement
    language : {"en", "zh"}
    """
    lines = [] if found.is_valid else [mismatch_sentence(found.ratio, language)]
    for effect in found.effects:
        lines.append(crossed_out(effect_sentence(effect, found, language), not found.is_valid))
        if effect.balance is not None and effect.balance.p_value < RARE_IMBALANCE:
            lines.append(_imbalance(effect, language))
    return lines


def crossed_out(text: str, crossed: bool) -> str:
    """The text between ``~~``, as Markdown crosses out, if it is not to be trusted.

    Examples
    --------
    >>> crossed_out("+3 %", True), crossed_out("+3 %", False)
    ('~~+3 %~~', '+3 %')
    """
    return f"~~{text}~~" if crossed and text else text


def mismatch_sentence(ratio: SampleRatio, language: Language = "en") -> str:
    """That the arms are not as large as they were drawn, with the p value."""
    counts = " : ".join(f"{count:,} {name}" for name, count in ratio.counts.items())
    expected = " : ".join(f"{count:,.0f}" for count in ratio.expected.values())
    if language == "zh":
        return (
            f"各组人数与分流比例不符（p = {number(ratio.p_value)}）：实际 {counts}，应为 {expected}。"
            "说明某一组有客户丢失或混入，下面划掉的数字不可信；请先查明原因，或用 --expected 说明分流比例。"
        )
    return (
        f"The arms are not as large as they were drawn (p = {number(ratio.p_value)}): {counts}, expected {expected}. "
        "Customers were lost or added in one arm, so the figures below are crossed out: find the cause first, or say "
        "with --expected how the arms were drawn."
    )


def effect_sentence(effect: MetricEffect, found: Measurement, language: Language = "en") -> str:
    """What one variant did to one metric."""
    absolute, relative = effect.decided_by.at(found.daily)
    # the test is that of the absolute difference; a quotient with a noisy control may say something else
    if relative is not None and relative.excludes_zero != absolute.excludes_zero:
        relative = None
    shown = relative or absolute
    noun = _noun(effect.metric, language)
    tests = len(found.effects)
    chance = tests > 1 and shown.excludes_zero and effect.p_holm >= 0.05
    if language == "zh":
        return _chinese(effect, found.control, shown, relative is not None, noun, tests if chance else 0)
    return _english(effect, found.control, shown, relative is not None, noun, tests if chance else 0)


def _noun(metric: str, language: Language) -> str:
    """What a metric counts; a target such as ``category=NAME`` counts customers."""
    if _is_target(metric):
        return f"购买或发生 {metric} 的客户" if language == "zh" else f"customers with {metric}"
    return NOUNS[language].get(metric, metric)


def _is_target(metric: str) -> bool:
    return "=" in metric and metric.partition("=")[0] in TARGET_COLUMNS


def _english(effect: MetricEffect, control: str, shown: Difference, relative: bool, noun: str, tests: int) -> str:
    def size(value: float) -> str:
        return f"{decimal(100 * value)} %" if relative else number(value)

    per = "" if relative else " a customer"
    if not shown.excludes_zero:
        return (
            f"{effect.variant} and {control} cannot be told apart in {noun}: the difference is somewhere between "
            f"{signed(size, shown.low)} and {signed(size, shown.high)}{per}."
        )
    is_count = effect.metric in ("order", "orders") or _is_target(effect.metric)
    more = "more" if shown.value > 0 else "fewer" if is_count else "less"
    low, high = sorted((abs(shown.low), abs(shown.high)))
    text = (
        f"{effect.variant} brought {size(abs(shown.value))} {more} {noun}{per} than {control}, somewhere between "
        f"{size(low)} and {size(high)}"
    )
    if tests:
        return f"{text}. But of {tests} differences one may look so by chance (corrected p = {number(effect.p_holm)})."
    return f"{text}."


def _chinese(effect: MetricEffect, control: str, shown: Difference, relative: bool, noun: str, tests: int) -> str:
    def size(value: float) -> str:
        return f"{decimal(100 * value)}%" if relative else number(value)

    per = "" if relative else "每位客户"
    if not shown.excludes_zero:
        return (
            f"在{noun}上，{effect.variant} 与 {control} 看不出差别：差异在 {signed(size, shown.low)} 到 "
            f"{signed(size, shown.high)} 之间{'（每位客户）' if per else ''}。"
        )
    low, high = sorted((abs(shown.low), abs(shown.high)))
    more = "多带来" if shown.value > 0 else "少带来"
    text = (
        f"与 {control} 相比，{effect.variant} {per}{more} {size(abs(shown.value))} 的{noun}，"
        f"大致在 {size(low)} 到 {size(high)} 之间"
    )
    if tests:
        return f"{text}。但同时比较了 {tests} 项，可能只是巧合（校正后 p = {number(effect.p_holm)}）。"
    return f"{text}。"


def _imbalance(effect: MetricEffect, language: Language) -> str:
    assert effect.balance is not None
    p_value = number(effect.balance.p_value)
    if language == "zh":
        return (
            f"注意：实验开始前，{effect.variant} 与对照组的 {effect.metric} 已有差别（p = {p_value}）；"
            "校正后的结果已考虑这一点，但仍请检查分流方式。"
        )
    return (
        f"Note: {effect.metric} of {effect.variant} and of the control differed before the experiment (p = {p_value}); "
        "the adjusted result takes that into account, but check how the customers were drawn."
    )


def number(value: float) -> str:
    """A number with three digits that count.

    Examples
    --------
    >>> number(0.012345), number(1234.5), number(1.82e-6)
    ('0.0123', '1,234', '1.82e-06')
    """
    if value < 0:
        return f"−{number(-value)}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def decimal(value: float) -> str:
    """A percentage with one decimal place, none from a thousand on."""
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def signed(size: Callable[[float], str], value: float) -> str:
    """A difference with its sign: `size` prints its absolute value."""
    return f"{'−' if value < 0 else '+'}{size(abs(value))}"
