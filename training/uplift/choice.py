"""Which uplift model ships, and whether it is of use: repeated held-out splits of a trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

from models.uplift.uplift_model import UpliftModel
from training.report import Metric
from training.uplift.effect import Effect, average_effect
from training.uplift.fitting import NOISE, FittedLearners, fit_learners
from training.uplift.metrics import auuc, contact_shares, gains_over_random, qini_coefficient, uplift_at
from training.uplift.nuisance import pseudo_outcomes
from training.uplift.resampled import resampled_metric
from training.uplift.trial import Trial, check

SPLITS, TEST_SHARE = 10, 0.3
BUDGETS = tuple(round(0.1 * step, 1) for step in range(1, 11))  # shares of the customers
CURVE_SHARES = tuple(round(0.05 * step, 2) for step in range(21))
TOP_SHARES = (0.1, 0.2, 0.3)
SHIPS, RESPONSE, AT_RANDOM = "ships", "response model", "at random"
GAIN = "gain"
Floats = NDArray[np.float64]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class PolicyValue:
    """What contacting a share of the customers brings, per customer of the whole, beside contacting nobody.

    Attributes
    ----------
    budget_share : float
    gain : Metric
        Expected further outcome if those with the highest uplift are contacted.
    at_random : Metric
        The same if as many are contacted at random.
    over_random : Metric
        The difference of both.
    """

    budget_share: float
    gain: Metric
    at_random: Metric
    over_random: Metric


@dataclass(frozen=True)
class Decile:
    """A tenth of the customers by predicted uplift, the highest first: what was predicted, and what was observed.

    Attributes
    ----------
    decile : int
        1 for the highest predictions.
    predicted : float
    observed : Metric
        Doubly robust uplift of held-out customers.
    """

    decile: int
    predicted: float
    observed: Metric


@dataclass(frozen=True)
class UpliftEvaluation:
    """Evaluation on repeated held-out splits; intervals are at 95 %.

    Those of policy values are over the customers, all others over the splits, with an allowance for their overlap.

    Attributes
    ----------
    learners : mapping of str to mapping of str to Metric
        Learner → ``qini``, ``auuc``, ``uplift@10%`` …, ``policy@0.1`` … (expected gain per customer) and ``gain`` (the
        policy value above that of contacting at random, as a mean over all budgets). ``ships`` is what is chosen in
        each split on its training customers; ``response model`` ranks by the expected outcome with a contact.
    chosen : str
        The learner that ships, chosen on all customers.
    chosen_in_splits : mapping of str to int
        Learner → number of splits in which it was chosen.
    best_baseline : str
        The better one of ``at random`` and ``response model``.
    gain_over_response : Metric
        Paired difference of ``gain`` between what ships and the response model.
    gain_over_baseline : Metric
        Paired difference of ``gain`` between what ships and the best baseline.
    effect : Effect
        Average effect of the contact.
    usable : bool
        Whether choosing customers by uplift is better than at random beyond noise.
    reason : str
        Why it is not usable; empty if it is.
    policy : tuple of PolicyValue
        At budgets of 10, 20 … 100 % of the customers.
    curve : tuple of PolicyValue
        The Qini curve per customer: the same at shares of 0, 5 … 100 %.
    deciles : tuple of Decile
    harmed_share : float
        Share of the customers with a negative predicted uplift.
    splits, n : int
        Number of splits, and of customers.
    """

    learners: Mapping[str, Mapping[str, Metric]]
    chosen: str
    chosen_in_splits: Mapping[str, int]
    best_baseline: str
    gain_over_response: Metric
    gain_over_baseline: Metric
    effect: Effect
    usable: bool
    reason: str
    policy: tuple[PolicyValue, ...]
    curve: tuple[PolicyValue, ...]
    deciles: tuple[Decile, ...]
    harmed_share: float
    splits: int
    n: int


@dataclass(frozen=True)
class ChosenUplift:
    """The model that ships, fitted on all customers, and its evaluation."""

    model: UpliftModel
    evaluation: UpliftEvaluation


def choose(trial: Trial, seed: int, progress: Progress = lambda line: None, splits: int = SPLITS) -> ChosenUplift:
    """Choose the learner of a trial and evaluate the choice on held-out customers.

    Each split holds out 30 % of the customers, stratified by arm and outcome. Fitting, calibration and the choice of
    the learner see the other 70 % alone, so that the evaluation is that of the whole procedure.

    Parameters
    ----------
    trial : Trial
    seed : int
    progress : callable
        Called with a line of text at each step.
    splits : int
        At least 2.

    Raises
    ------
    DataError
        The trial cannot be learnt from (`check`).
    """
    check(trial)
    by_split: list[dict[str, dict[str, float]]] = []
    curves: dict[str, list[Floats]] = {}
    deciles: list[Floats] = []
    chosen: list[str] = []
    for number, (train, test) in enumerate(split_rows(trial, seed, splits)):
        found = fit_learners(trial.take(train), seed + number)
        held_out = trial.take(test)
        scores = score_held_out(found, held_out)
        pseudo = pseudo_outcomes(held_out, *found.nuisance.mu_of(held_out.X))
        by_split.append({name: measure(held_out, score, pseudo) for name, score in scores.items()})
        for name, score in scores.items():
            shares = CURVE_SHARES if name == SHIPS else BUDGETS
            curves.setdefault(name, []).append(policy_moments(held_out, score, pseudo, shares))
        deciles.append(_deciles(scores[SHIPS], pseudo))
        chosen.append(found.chosen)
        progress(f"uplift: split {number + 1} of {splits}: {found.chosen}")
    final = fit_learners(trial, seed)
    model = final.models[final.chosen]
    effect = average_effect(trial, seed)
    learners = {
        name: {
            metric: resampled_metric(
                np.array([one[name][metric] for one in by_split]), TEST_SHARE, trial.customer_count
            )
            for metric in by_split[0][name]
        }
        | {
            f"policy@{value.budget_share:.1f}": value.gain
            for value in policy_values(curves[name], CURVE_SHARES if name == SHIPS else BUDGETS, trial)
            if value.budget_share in BUDGETS
        }
        for name in by_split[0]
    }
    own = np.array([one[SHIPS][GAIN] for one in by_split])
    response = np.array([one[RESPONSE][GAIN] for one in by_split])
    best_baseline = RESPONSE if response.mean() > 0 else AT_RANDOM
    usable = bool(learners[SHIPS][GAIN].low > 0) and model.slope > 0
    curve = policy_values(curves[SHIPS], CURVE_SHARES, trial)
    evaluation = UpliftEvaluation(
        learners=learners,
        chosen=final.chosen,
        chosen_in_splits=dict(Counter(chosen)),
        best_baseline=best_baseline,
        gain_over_response=resampled_metric(own - response, TEST_SHARE, trial.customer_count),
        gain_over_baseline=resampled_metric(
            own - response if best_baseline == RESPONSE else own, TEST_SHARE, trial.customer_count
        ),
        effect=effect,
        usable=usable,
        reason="" if usable else _reason(effect, learners[SHIPS][GAIN]),
        policy=tuple(one for one in curve if one.budget_share in BUDGETS),
        curve=curve,
        deciles=_mean_deciles(np.array(deciles), trial.customer_count),
        harmed_share=float((model.predict(trial.X) < 0).mean()),
        splits=splits,
        n=trial.customer_count,
    )
    return ChosenUplift(model, evaluation)


def split_rows(trial: Trial, seed: int, splits: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test rows of repeated splits, stratified by arm and outcome, or by customer if one has several."""
    if trial.customers is not None:
        by_customer = GroupShuffleSplit(splits, test_size=TEST_SHARE, random_state=seed)
        return list(by_customer.split(trial.X, groups=trial.customers))
    made = StratifiedShuffleSplit(splits, test_size=TEST_SHARE, random_state=seed)
    return [(np.sort(train), np.sort(test)) for train, test in made.split(trial.X, trial.groups)]


def score_held_out(found: FittedLearners, test: Trial) -> dict[str, Floats]:
    """Scores of held-out customers by every learner, by what ships and by the baselines, (m,) each."""
    scores = {name: model.predict(test.X) for name, model in found.models.items()}
    baselines = {RESPONSE: found.nuisance.mu_of(test.X)[1], AT_RANDOM: np.zeros(len(test))}
    return {SHIPS: scores[found.chosen], **scores, **baselines}


def measure(test: Trial, score: Floats, pseudo: Floats) -> dict[str, float]:
    """Metrics of a score on held-out customers.

    Parameters
    ----------
    test : Trial
    score, pseudo : ndarray of float64, (m,)
        Scores, and doubly robust pseudo-outcomes of outcome models that have not seen these customers.
    """
    y, t = test.outcome, test.treated
    weights = None if test.is_plain else 1.0 / np.where(t, test.probability, 1.0 - test.probability)
    found = {"qini": qini_coefficient(y, score, t, weights), "auuc": auuc(y, score, t, weights)}
    found |= {f"uplift@{share:.0%}": uplift_at(y, score, t, share, weights) for share in TOP_SHARES}
    return {**found, GAIN: float(gains_over_random(pseudo, score).mean())}


def policy_moments(test: Trial, score: Floats, pseudo: Floats, shares: Sequence[float]) -> Floats:
    """Means, and standard deviations over the customers, of what held-out customers add to policy values.

    Returns
    -------
    ndarray of float64, (2, 3, shares)
        Mean and deviation of the policy by score, of that at random, and of their difference.
    """
    found = np.empty((2, 3, len(shares)))
    for place, share in enumerate(shares):
        by_score, at_random = pseudo * contact_shares(score, share), pseudo * share
        for kind, values in enumerate((by_score, at_random, by_score - at_random)):
            of_customers = test.by_customer(values)
            found[:, kind, place] = of_customers.mean(), of_customers.std(ddof=1)
    return found


def policy_values(moments: Sequence[Floats], shares: Sequence[float], trial: Trial) -> tuple[PolicyValue, ...]:
    """Policy values from the `policy_moments` of the splits.

    Splits that are stratified by arm and outcome all have about the same average effect, so that the variance over the
    splits would not have that of the average effect. The standard error is that of a mean over all customers, each of
    whom is held out about equally often.
    """
    mean, deviation = np.mean(moments, axis=0)
    n = trial.customer_count
    widths = NOISE * deviation / np.sqrt(n)

    def metric(kind: int, place: int) -> Metric:
        middle, width = float(mean[kind, place]), float(widths[kind, place])
        return Metric(middle, middle - width, middle + width, n)

    return tuple(
        PolicyValue(share, metric(0, place), metric(1, place), metric(2, place)) for place, share in enumerate(shares)
    )


def _deciles(score: Floats, pseudo: Floats) -> Floats:
    """Mean score and mean pseudo-outcome of each tenth, the highest scores first, (10, 2)."""
    parts = np.array_split(np.argsort(-score, kind="stable"), 10)
    return np.array([[score[part].mean(), pseudo[part].mean()] for part in parts])


def _mean_deciles(deciles: Floats, n: int) -> tuple[Decile, ...]:
    return tuple(
        Decile(
            place + 1,
            float(deciles[:, place, 0].mean()),
            resampled_metric(deciles[:, place, 1], TEST_SHARE, n),
        )
        for place in range(deciles.shape[1])
    )


def _reason(effect: Effect, gain: Metric) -> str:
    """A sentence that says what was found instead."""
    no_gain = (
        f"no usable effect: choosing customers by uplift brings {gain.value:+.4g} per customer over choosing at "
        f"random, 95 % interval [{gain.low:+.4g}, {gain.high:+.4g}]"
    )
    interval = f"{effect.value:+.4g} [{effect.low:+.4g}, {effect.high:+.4g}]"
    if effect.low > 0:
        return f"{no_gain}; on average the contact raises the outcome by {interval}, so contact everybody or at random"
    if effect.high < 0:
        return f"{no_gain}; on average the contact lowers the outcome by {interval}, so contact nobody"
    return f"{no_gain}; on average the contact changes the outcome by {interval}, which may be nothing"
