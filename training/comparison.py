"""Whether a new model is behind the champion: the differences of their losses on the same rows of the test period.

The rows are those on which the new model was evaluated, so it has not learnt from them; and the champion must not have
either. If its data end before the test period, the champion itself is compared, as it is in production. Otherwise it is
its evaluated twin: the model that was evaluated when the champion was registered, fitted without the test period of
then, which the bundle of the champion holds. Without a twin, or for a job whose models cannot be compared on rows,
nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import ModelBundle, load_evaluated
from models.persist import load_json
from qianmian.errors import ArtifactError
from training.bootstrap import bootstrap_means, percentile_interval
from training.report import Metric

FEWEST_ROWS = 50  # of a comparison, and of a slice that can hold a model back
HORIZONS = ("horizon_days", "active_days", "min_days")  # facts that say what is predicted, and of whom
ALPHA = 0.05
TEST_START = "test_start"  # fact of a bundle: begin of the test period, of whose days its evaluated twin knows nothing
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossComparison:
    """What a job declares, so that its models can be compared.

    Attributes
    ----------
    metric : str
        Of which each row has a loss: `brier`, `log_loss`.
    start : datetime
        Begin of the test period; features are of before it.
    own : ndarray of float64, shape (n,)
        Loss of each of n customers by the evaluated model.
    losses : callable
        The same by the model of another bundle of the job, NaN where it says nothing.
    slices : mapping of str to ndarray of bool, each of shape (n,)
        Groups of the customers.
    of_its_cutoff : bool
        Whether the model of another bundle predicts from the data before its own cutoff, as a recommender does, and not
        from those before `start`.
    """

    metric: str
    start: datetime
    own: Floats
    losses: Callable[[ModelBundle], Floats]
    slices: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    of_its_cutoff: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Attributes
    ----------
    passed, failed : tuple of str
        Reasons.
    differences : mapping of str to Metric
        Losses of the new model minus those of the champion: named ``metric:champion VERSION``.
    """

    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    differences: Mapping[str, Metric] = field(default_factory=dict)

    @classmethod
    def not_compared(cls, why: str) -> Verdict:
        """Nothing can be said, so that the baselines decide."""
        return cls((f"no comparison with the champion, because {why}: the baselines decide",))


def compare(comparison: LossComparison | str, new: ModelBundle, champion: str, folder: Path, seed: int = 0) -> Verdict:
    """Compare the evaluated model with the champion, over all rows and in each slice.

    A slice holds a model back if the new model is worse there beyond noise, with the level divided by the number of
    slices (Bonferroni).

    Parameters
    ----------
    comparison : LossComparison or str
        Of the new model; a text says why its job has none.
    new : ModelBundle
        The new model.
    champion : str
        Version of the champion.
    folder : Path
        Its bundle.
    seed : int
        Of the bootstrap.
    """
    if isinstance(comparison, str):
        return Verdict.not_compared(comparison)
    try:
        manifest = load_json(folder / "manifest.json")
        # before it is loaded, because a recommender has hundreds of megabytes
        if str(manifest.get("as_of")) > comparison.start.isoformat() and not manifest.get("evaluated"):
            return Verdict.not_compared(
                f"it has learnt from days after {comparison.start:%Y-%m-%d}, and its bundle has no evaluated twin"
            )
        bundle = ModelBundle.load(folder)
        found = _comparable(comparison, new, bundle, folder)
        if isinstance(found, str):
            return Verdict.not_compared(found)
        other, which = found
        theirs = comparison.losses(other)
    except ArtifactError as error:  # of another format, damaged, or with a feature that has vanished
        return Verdict.not_compared(f"version {champion} cannot predict these rows ({error})")
    return judge(comparison, theirs, f"champion {champion}", which, seed)


def _comparable(
    comparison: LossComparison, new: ModelBundle, champion: ModelBundle, folder: Path
) -> tuple[ModelBundle, str] | str:
    """The bundle to compare with, and which of its models that is; or why there is none."""
    if champion.kind != new.kind:
        return f"it is of another kind ({champion.kind})"
    for name in HORIZONS:
        if champion.facts.get(name) != new.facts.get(name):
            return f"it was trained with {name} {champion.facts.get(name)}, not {new.facts.get(name)}"
    if comparison.start >= champion.as_of:
        own = f", from what it knew at {champion.as_of:%Y-%m-%d}" if comparison.of_its_cutoff else ""
        return champion, f"in production{own}"
    twin = load_evaluated(folder)
    assert twin is not None, "compare() has looked at the manifest"
    known_before = datetime.fromisoformat(champion.facts[TEST_START])
    if comparison.start < known_before:
        return (
            f"its evaluated twin has learnt from days after {comparison.start:%Y-%m-%d}, up to {known_before:%Y-%m-%d}"
        )
    return replace(champion, model=twin), "as it was evaluated"


def columns_for(bundle: ModelBundle, wanted: Sequence[str], computed: Sequence[str]) -> list[int]:
    """Where the features that a model reads are among those that are computed.

    Raises
    ------
    ArtifactError
        One of them is no longer computed.
    """
    if vanished := [name for name in wanted if name not in computed]:
        raise ArtifactError(
            f"{len(vanished)} of the features that it reads are no longer computed",
            where=f"{bundle.kind} of {bundle.as_of:%Y-%m-%d}",
            got=", ".join(vanished[:5]),
            hint="the baselines decide; or declare the feature again",
        )
    return [computed.index(name) for name in wanted]


def judge(comparison: LossComparison, theirs: Floats, champion: str, which: str, seed: int = 0) -> Verdict:
    """The verdict on two losses of each row, NaN where the champion says nothing.

    Examples
    --------
    >>> loss = np.linspace(0.0, 1.0, 100)
    >>> comparison = LossComparison("brier", datetime(2025, 1, 1), loss, lambda bundle: loss)
    >>> judge(comparison, loss - 0.1, "champion 1", "in production").failed
    ('brier minus that of champion 1 (in production) is 0.1000 [0.1000, 0.1000]: the model is behind it',)
    """
    columns = {"": np.ones(len(comparison.own), dtype=bool), **comparison.slices}
    difference = comparison.own - theirs
    usable = np.isfinite(difference)
    kept = {name: rows for name, rows in columns.items() if (rows & usable).sum() >= FEWEST_ROWS}
    if "" not in kept:
        return Verdict.not_compared(
            f"it predicts {usable.sum():,} of the {len(usable):,} customers of the test period, and {FEWEST_ROWS} are "
            "needed"
        )
    values = np.column_stack([np.where(rows, difference, np.nan) for rows in kept.values()])
    resampled = bootstrap_means(values, seed)
    passed, failed, found = [], [], {}
    for place, (name, rows) in enumerate(kept.items()):
        tail = ALPHA / 2 / max(1, len(kept) - 1 if name else 1)
        n, mean = int((rows & usable).sum()), float(np.nanmean(values[:, place]))
        metric = percentile_interval(mean, resampled[:, place], n)
        lowest = float(np.nanquantile(resampled[:, place], tail))
        where = f" of {name} ({n:,} customers)" if name else ""
        text = f"{comparison.metric}{where} minus that of {champion} ({which}) is {metric}"
        if not name:
            found[f"{comparison.metric}:{champion}"] = metric
        if math.isfinite(lowest) and lowest > 0:
            failed.append(f"{text}: the model is behind it")
        elif not name:
            passed.append(f"{text}: the model is not behind it beyond noise")
    if len(kept) > 1 and not failed:
        passed.append(f"no slice is behind {champion} beyond noise: {', '.join(name for name in kept if name)}")
    return Verdict(tuple(passed), tuple(failed), found)
