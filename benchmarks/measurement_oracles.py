"""The known answers of experiments, exact to the digits that are published: differences, sequences, checks, buckets.

A part of `benchmarks/measurement.py`. The vectors are those of GrowthBook's statistics engine and SDKs.
"""

from __future__ import annotations

from typing import Any

import common
from common import Must

from qianmian.bucketing import bucket_of, bucket_ranges, with_floor
from training.measurement.differences import chances, confidence_sequence, welch
from training.measurement.moments import ArmMoments
from training.measurement.sample_ratio import sample_ratio

MUSTS = {"failed": Must("metric", most=0)}
HEAVY = ArmMoments.of_sums(1396.87, 52377.9767, 3407), ArmMoments.of_sums(2422.7, 134698.29, 3461)
SHARES = ArmMoments.of_proportion(1396, 3000), ArmMoments.of_proportion(2422, 3461)
HALVES = ArmMoments.of_proportion(49, 100), ArmMoments.of_proportion(51, 100)


def vectors() -> dict[str, tuple[float, str]]:
    """What we compute and the published number, by name."""
    absolute, relative = welch(*HEAVY), welch(*HEAVY, relative=True)
    sequence = confidence_sequence(*SHARES, relative=True, planned=5000)
    bayesian = chances(*HALVES)
    ranges = bucket_ranges([0.5, 0.5], coverage=0.5)
    floored = with_floor([0.7, 0.2, 0.1], 0.1)
    return {
        "welch absolute": (absolute.value, "0.29000"),
        "welch absolute low": (absolute.low, "0.04538"),
        "welch absolute high": (absolute.high, "0.53462"),
        "welch absolute p": (absolute.p_value, "0.02016"),
        "welch relative": (relative.value, "0.70732"),
        "welch relative low": (relative.low, "-0.03526"),
        "welch relative high": (relative.high, "1.44989"),
        "welch relative p": (relative.p_value, "0.06191"),
        "sequence": (sequence.value, "0.50386"),
        "sequence low": (sequence.low, "0.40098"),
        "sequence high": (sequence.high, "0.60675"),
        "chance to win": (bayesian.chance_to_win, "0.60918"),
        "risk of the control": (bayesian.risk_control, "0.0814"),
        "risk of the treatment": (bayesian.risk_treatment, "0.04058"),
        "sample ratio, large": (sample_ratio({"a": 821_588, "b": 815_482}, {"a": 1, "b": 1}).p_value * 1e6, "1.82"),
        "sample ratio, small": (sample_ratio({"a": 5_050, "b": 4_800}, {"a": 1, "b": 1}).p_value, "0.01177"),
        "bucket seed a": (bucket_of("seed", "a"), "0.0505"),
        "bucket seed b": (bucket_of("seed", "b"), "0.2696"),
        "bucket of version 1, a": (bucket_of("", "a", version=1), "0.220"),
        "bucket of version 1, b a": (bucket_of("b", "a", version=1), "0.946"),
        "bucket of version 1, ef d": (bucket_of("ef", "d", version=1), "0.652"),
        **{
            f"range {place}": (value, text)
            for place, (value, text) in enumerate(zip(sum(ranges, ()), ("0", "0.25", "0.5", "0.75"), strict=True))
        },
        **{
            f"floor {place}": (value, text)
            for place, (value, text) in enumerate(zip(floored, ("0.59", "0.24", "0.17"), strict=True))
        },
    }


def is_exact(value: float, published: str) -> bool:
    """Whether a number rounds to the published one.

    Examples
    --------
    >>> is_exact(0.050504, "0.0505"), is_exact(0.05056, "0.0505")
    (True, False)
    """
    digits = len(published.partition(".")[2])
    return abs(value - float(published)) <= 0.5 * 10**-digits + 1e-12


def oracles() -> tuple[dict[str, Any], dict[str, float]]:
    """How many of the vectors are missed, and the values of the musts."""
    found = vectors()
    failed = [name for name, (value, published) in found.items() if not is_exact(value, published)]
    for name in failed:
        print(f"  missed: {name}: {found[name][0]!r}, published {found[name][1]}")
    results = {"qianmian": {"failed": common.value(float(len(failed)), n=len(found))}}
    return results, {"failed": float(len(failed))}


if __name__ == "__main__":
    common.show(oracles()[0])
