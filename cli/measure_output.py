"""What `qianmian measure` prints: tables of differences with intervals, sentences, and rows of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from cli.console import Output
    from training.measurement.differences import Difference
    from training.measurement.effects import EffectEstimate, Measurement, MetricEffect
    from training.measurement.funnels import FunnelEffects
    from training.measurement.notes import Language


INTERVALS = "intervals: 95 %"
CUPED_NOTE = "the sentences report CUPED, which removes the noise that the pre-period explains"
FUNNEL_NOTE = "compared are shares of all who were exposed: who reaches the step before is an effect of the variant too"
CHINESE = {
    "metric": "指标",
    "order": "是否下单",
    "orders": "订单数",
    "amount": "销售额",
    "variant": "实验组",
    "estimate": "估计",
    "raw": "原始",
    "at any look": "（随时有效）",
    "at one look": "（一次查看）",
    "difference": "差异",
    "relative": "相对差异",
    "p (Holm)": "p（Holm 校正）",
    "p (BH)": "p（BH 校正）",
    "difference from": "相对于对照组",
    "mean of control": "对照组均值",
    "mean of variant": "实验组均值",
    "chance to win": "优于对照的概率",
    "balance of the pre-period": "实验前平衡性",
    "difference before": "实验前差异",
    "variance that CUPED removes": "CUPED 消除的方差",
    "by segment": "按细分群体",
    "segment": "细分维度",
    "value": "取值",
    "in control": "对照组人数",
    "in variant": "实验组人数",
    "too few, or all alike": "人数过少或取值相同",
    "do the segments differ (at one look)?": "各群体的差异是否不同（一次查看）？",
    "step": "步骤",
    "reached": "到达人数",
    "exposed": "曝光人数",
    "of exposed": "占曝光人数",
    "of previous step": "占上一步人数",
    "points": "百分点差异",
    "sample ratio p": "样本比例 p",
    "note": "说明",
    INTERVALS: "区间均为 95%",
    CUPED_NOTE: "有实验前数据时，上面的结论以 CUPED（消除实验前差异带来的噪声）为准",
    FUNNEL_NOTE: "比较的是占全部曝光客户的比例：能否到达上一步，本身就受实验影响",
}
Translate = Callable[[str], str]


def print_measurement(output: Output, found: Measurement, language: Language) -> None:
    """Print the sentences and the tables; figures of a sample-ratio mismatch are crossed out."""
    from training.measurement.words import crossed_out, number, sentences

    crossed, say = not found.is_valid, translator(language)
    for line in sentences(found, language):
        output.say(line)
    for note in found.notes:
        output.say(f"{say('note')}: {note.text(language)}")
    heads = (say("metric"), say("variant"))
    columns: tuple[str, ...] = (_at(say, "difference", found.daily), say("relative"), "p", say("p (Holm)"))
    rows = [
        [
            *(say(effect.metric), effect.variant, say(name)),
            *(crossed_out(text, crossed) for text in _figures(effect, made, found.daily)),
        ]
        for effect in found.effects
        for name, made in _estimates(effect)
    ]
    output.table(_title(say, found), (*heads, say("estimate"), *columns), rows, right=columns)
    columns = (say("mean of control"), say("mean of variant"), _at(say, "relative", False))
    columns = (*columns, say("p (BH)"), say("chance to win"))
    more = [
        [
            say(effect.metric),
            effect.variant,
            number(effect.mean_control),
            number(effect.mean_treatment),
            crossed_out(format_difference(effect.decided_by.relative, percent=True), crossed),
            crossed_out(number(effect.p_benjamini_hochberg), crossed),
            crossed_out(f"{effect.chances.chance_to_win:.1%}", crossed),
        ]
        for effect in found.effects
    ]
    output.table("", (*heads, *columns), more, right=columns)
    _print_balance(output, found, say)
    _print_segments(output, found, say)
    output.say(say(INTERVALS))
    if any(effect.cuped for effect in found.effects):
        output.say(say(CUPED_NOTE))


def translator(language: Language) -> Translate:
    """A function from the English words of a table to those of a language."""
    return (lambda text: CHINESE.get(text, text)) if language == "zh" else (lambda text: text)


def _at(say: Translate, text: str, daily: bool) -> str:
    look = "at any look" if daily else "at one look"
    return f"{say(text)} {say(look)}" if say(look) == look else f"{say(text)}{say(look)}"


def _title(say: Translate, found: Measurement | FunnelEffects) -> str:
    """The control, the sizes of the arms and the p value of the sample-ratio check."""
    from training.measurement.words import number

    counts = ", ".join(f"{name} {count:,}" for name, count in found.ratio.counts.items())
    ratio = f"{say('sample ratio p')} = {number(found.ratio.p_value)}"
    return f"{say('difference from')} {found.control}; {counts} ({ratio})"


def _estimates(effect: MetricEffect) -> list[tuple[str, EffectEstimate]]:
    return [("raw", effect.raw)] + ([("CUPED", effect.cuped)] if effect.cuped else [])


def _figures(effect: MetricEffect, made: EffectEstimate, daily: bool) -> list[str]:
    from training.measurement.words import number

    absolute, relative = made.at(daily)
    adjusted_p = number(effect.p_holm) if made is effect.decided_by else ""
    shown = [format_difference(absolute), format_difference(relative, percent=True), number(absolute.p_value)]
    return [*shown, adjusted_p]


def _print_balance(output: Output, found: Measurement, say: Translate) -> None:
    from training.measurement.words import number

    rows = [
        [
            say(effect.metric),
            effect.variant,
            format_difference(effect.balance),
            number(effect.balance.p_value),
            f"{effect.variance_removed:.0%}",
        ]
        for effect in found.effects
        if effect.balance is not None and effect.variance_removed is not None
    ]
    columns = (say("difference before"), "p", say("variance that CUPED removes"))
    if rows:
        heads = (say("metric"), say("variant"))
        output.table(say("balance of the pre-period"), (*heads, *columns), rows, right=columns)


def _print_segments(output: Output, found: Measurement, say: Translate) -> None:
    from training.measurement.words import crossed_out, number

    crossed = not found.is_valid
    rows = [
        [
            say(effect.metric),
            effect.variant,
            one.segment,
            one.value,
            one.n_control,
            one.n_treatment,
            crossed_out(format_difference(one.difference), crossed) or say("too few, or all alike"),
            "" if one.difference is None else crossed_out(number(one.p_holm), crossed),
        ]
        for effect in found.effects
        for one in effect.segments
    ]
    if not rows:
        return
    heads = (say("metric"), say("variant"), say("segment"), say("value"))
    columns = (say("in control"), say("in variant"), _at(say, "difference", found.daily), say("p (Holm)"))
    output.table(say("by segment"), (*heads, *columns), rows, right=columns)
    for effect in found.effects:
        for test in effect.interactions:
            figures = f"Cochran's Q = {number(test.statistic)}, {say('p (Holm)')} = {number(test.p_holm)}"
            differ = say("do the segments differ (at one look)?")
            output.say(f"{say(effect.metric)}, {effect.variant}, {test.segment}: {differ} {figures}")


def print_funnel(output: Output, found: FunnelEffects, language: Language) -> None:
    """Print the steps of each variant; figures of a sample-ratio mismatch are crossed out."""
    from training.measurement.words import crossed_out, mismatch_sentence, number

    crossed, say = not found.is_valid, translator(language)
    if crossed:
        output.say(mismatch_sentence(found.ratio, language))
    for note in found.notes:
        output.say(f"{say('note')}: {note.text(language)}")
    rows = [
        [
            one.step,
            one.variant,
            one.reached,
            one.exposed,
            f"{one.share:.2%}",
            "" if one.of_previous is None else f"{one.of_previous:.1%}",
            crossed_out(format_difference(one.difference, points=True), crossed),
            "" if one.difference is None else crossed_out(number(one.p_holm), crossed),
        ]
        for one in found.effects
    ]
    columns: tuple[str, ...] = (say("reached"), say("exposed"), say("of exposed"), say("of previous step"))
    columns = (*columns, _at(say, "points", found.daily), say("p (Holm)"))
    title = f"{' → '.join(found.steps)}; {_title(say, found)}"
    output.table(title, (say("step"), say("variant"), *columns), rows, right=columns)
    output.say(say(FUNNEL_NOTE))


def format_difference(found: Difference | None, percent: bool = False, points: bool = False) -> str:
    """A difference with its interval; empty without one.

    Examples
    --------
    >>> from training.measurement.differences import Difference
    >>> format_difference(Difference(0.031, 0.004, 0.058, 0.02, 0.01), percent=True)
    '+3.1 % (+0.4 … +5.8)'
    """
    if found is None:
        return ""
    values = (found.value, found.low, found.high)
    if percent or points:
        value, low, high = (f"{100 * one:+.{2 if points else 1}f}".replace("-", "−") for one in values)
        return f"{value}{' %' if percent else ''} ({low} … {high})"
    value, low, high = (f"{one:+.3g}".replace("-", "−") for one in values)
    return f"{value} ({low} … {high})"


def effect_table(effects: Sequence[MetricEffect], daily: bool, valid: bool) -> pa.Table:
    """One row a metric, variant and estimate: raw, CUPED, and each segment."""

    rows: list[dict[str, Any]] = []
    for effect in effects:
        head = {"metric": effect.metric, "variant": effect.variant, "valid": valid}
        for name, made in (("raw", effect.raw), ("cuped", effect.cuped)):
            if made is None:
                continue
            absolute, relative = made.at(daily)
            sizes = (effect.n_control, effect.n_treatment)
            rows.append({**head, "estimate": name, "segment": None, "value": None, **_cells(sizes, absolute, relative)})
            rows[-1] |= {
                "p_holm": effect.p_holm if made is effect.decided_by else None,
                "p_benjamini_hochberg": effect.p_benjamini_hochberg if made is effect.decided_by else None,
            }
        for one in effect.segments:
            cells = _cells((one.n_control, one.n_treatment), one.difference, None)
            name = "raw" if effect.cuped is None else "cuped"
            rows.append({**head, "estimate": name, "segment": one.segment, "value": one.value, **cells})
            rows[-1] |= {"p_holm": one.p_holm if one.difference else None, "p_benjamini_hochberg": None}
    return _typed(rows)


def funnel_table(found: FunnelEffects) -> pa.Table:
    """One row a step and variant."""
    rows = [
        {
            "step": one.step,
            "variant": one.variant,
            "valid": found.is_valid,
            "reached": one.reached,
            "exposed": one.exposed,
            "share": one.share,
            "of_previous": one.of_previous,
            "difference": one.difference.value if one.difference else None,
            "difference_low": one.difference.low if one.difference else None,
            "difference_high": one.difference.high if one.difference else None,
            "p_value": one.difference.p_value if one.difference else None,
            "p_holm": one.p_holm if one.difference else None,
        }
        for one in found.effects
    ]
    return _typed(rows)


def _cells(sizes: tuple[int, int], absolute: Difference | None, relative: Difference | None) -> dict[str, Any]:
    return {
        "n_control": sizes[0],
        "n_variant": sizes[1],
        "difference": absolute.value if absolute else None,
        "difference_low": absolute.low if absolute else None,
        "difference_high": absolute.high if absolute else None,
        "relative": relative.value if relative else None,
        "relative_low": relative.low if relative else None,
        "relative_high": relative.high if relative else None,
        "p_value": absolute.p_value if absolute else None,
    }


def _typed(rows: list[dict[str, Any]]) -> pa.Table:
    """A table whose types do not depend on which cells are empty."""
    import pyarrow as pa

    texts = {"metric", "variant", "estimate", "segment", "value", "step"}
    counts = {"n_control", "n_variant", "reached", "exposed"}
    kinds = {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(counts, pa.int64()), "valid": pa.bool_()}
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]]))
