"""Metrics of an uplift score: Qini and uplift curves and their coefficients, uplift at a share, policy value.

All are functions of the outcome y, the score s and the treatment t of the same customers alone: what other models score
changes nothing. Customers with the same score are one step of a curve, so that their order does not matter, and a
constant score has the curve of contacting customers at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def qini_curve(outcome: Floats, score: Floats, treated: Bools, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Further outcomes by the number of customers with the highest scores (Radcliffe 2007).

    Q(k) = Y₁(k) − Y₀(k) N₁(k) / N₀(k), where Y and N are the sums of the outcomes and the numbers of customers of each
    arm among the k customers with the highest scores; the last term is 0 while N₀(k) = 0.

    Parameters
    ----------
    outcome, score : ndarray of float64, (n,)
    treated : ndarray of bool, (n,)
    weights : ndarray of float64, (n,), optional
        1 / probability of the own arm, where it varies; the sums are weighted by it.

    Returns
    -------
    ndarray of float64, (steps + 1,)
        Numbers of customers, from 0.
    ndarray of float64, (steps + 1,)
        Values of the curve, from 0.
    """
    k, n0, n1, y0, y1 = _sums(outcome, score, treated, weights)
    return k, y1 - y0 * _ratio(n1, n0)


def uplift_curve(
    outcome: Floats, score: Floats, treated: Bools, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Difference of the mean outcomes by the number of customers with the highest scores, times this number.

    U(k) = (Y₁(k) / N₁(k) − Y₀(k) / N₀(k)) k, where a mean of no customers is 0; parameters as for `qini_curve`.
    """
    k, n0, n1, y0, y1 = _sums(outcome, score, treated, weights)
    return k, (_ratio(y1, n1) - _ratio(y0, n0)) * k


def qini_coefficient(outcome: Floats, score: Floats, treated: Bools, weights: Floats | None = None) -> float:
    """Area between the Qini curve and that of a random order, divided by that of the perfect order.

    This is scikit-uplift's `qini_auc_score`: the perfect order is that of y t − y (1 − t). It is 0 for a random order
    and at most 1 for outcomes of 0 and 1; NaN if no order is better than another.

    Examples
    --------
    >>> y, score, treated = np.array([0.0, 1.0]), np.array([0.1, 0.3]), np.array([True, False])
    >>> qini_coefficient(y, score, treated), auuc(y, score, treated)
    (1.0, 0.0)
    """
    perfect = np.where(treated, outcome, -outcome)
    own, best = (_above_random(*qini_curve(outcome, order, treated, weights)) for order in (score, perfect))
    return own / best if best else float("nan")


def auuc(outcome: Floats, score: Floats, treated: Bools, weights: Floats | None = None) -> float:
    """Area between the uplift curve and that of a random order, divided by that of the perfect order.

    This is scikit-uplift's `uplift_auc_score`: the perfect order has first those whose outcome is their treatment (1
    with, 0 without a contact), and within these groups first the outcomes if the customers with an outcome and no
    contact are more than those with a contact and no outcome, else first those contacted. For amounts, an outcome is
    any that is not 0.
    """
    happened = outcome != 0
    ahead = happened if (happened & ~treated).sum() > (~happened & treated).sum() else treated
    perfect = 2.0 * (happened == treated) + ahead
    own, best = (_above_random(*uplift_curve(outcome, order, treated, weights)) for order in (score, perfect))
    return own / best if best else float("nan")


def qini_of_total(outcome: Floats, score: Floats, treated: Bools) -> float:
    """Mean height of the Qini curve above that of a random order, divided by its end.

    This is causalml's `qini_score`: (1 / (n + 1)) Σ_{k = 0..n} (Q(k) / |Q(n)| − k / n · sign Q(n)). There the curve has
    a step for each customer, even where scores are equal, so that its value depends on the order of the rows; here
    equal scores are one step, and the curve is linear in between. NaN if Q(n) is 0.

    Examples
    --------
    >>> qini_of_total(np.array([0.0, 0, 1, 1]), np.full(4, 0.5), np.array([True, False, True, False]))
    nan
    """
    k, values = qini_curve(outcome, score, treated)
    if values[-1] == 0:
        return float("nan")
    n = len(outcome)
    steps = np.arange(n + 1)
    heights = np.interp(steps, k, values) - steps / n * values[-1]
    return float(heights.sum() / abs(values[-1]) / (n + 1))


def uplift_at(outcome: Floats, score: Floats, treated: Bools, share: float, weights: Floats | None = None) -> float:
    """Difference of the mean outcomes of both arms among the share of customers with the highest scores.

    Customers at the limit who have the same score count in part, so that their order does not matter. NaN if an arm is
    empty among them.
    """
    chosen = contact_shares(score, share)
    own = np.ones(len(score)) if weights is None else weights
    means = []
    for arm in (treated, ~treated):
        weight = chosen[arm] * own[arm]
        means.append(float(weight @ outcome[arm] / weight.sum()) if weight.sum() > 0 else float("nan"))
    return means[0] - means[1]


def contact_shares(score: Floats, share: float) -> Floats:
    """How far each customer is contacted at a budget: 1 above the limit, 0 below, in part among equals at it, (n,).

    Examples
    --------
    >>> contact_shares(np.array([3.0, 2.0, 2.0, 1.0]), 0.5).tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    budget = share * len(score)
    above = len(score) - rankdata(score, "max")  # customers with a higher score
    equal = rankdata(score, "max") - rankdata(score, "min") + 1
    return np.asarray(np.clip((budget - above) / equal, 0.0, 1.0))


def policy_gains(pseudo: Floats, score: Floats, shares: Sequence[float]) -> Floats:
    """Expected further outcome per customer if a share of them is contacted by score, beside contacting nobody.

    V(b) = (1/n) Σ φᵢ cᵢ(b), where φ are doubly robust pseudo-outcomes and c the `contact_shares`; contacting everybody
    has V(1) = mean φ, and at random b · V(1).

    Parameters
    ----------
    pseudo, score : ndarray of float64, (n,)
    shares : sequence of float
        Budgets b as shares of the customers, 0 … 1.

    Returns
    -------
    ndarray of float64, (shares,)
    """
    return np.array([float(pseudo @ contact_shares(score, share)) / len(pseudo) for share in shares])


def gains_over_random(pseudo: Floats, score: Floats) -> Floats:
    """What each customer adds to the policy value above that of contacting at random, as a mean over all budgets, (n,).

    ∫₀¹ (V(b) − b V(1)) db is the covariance of the pseudo-outcomes and the ranks of the scores as shares (the Qini
    metric of Yadlowsky et al. 2024), a mean over the customers. A constant score has 0 for everybody.

    Examples
    --------
    >>> gains_over_random(np.array([4.0, 0.0]), np.array([2.0, 1.0])).tolist()
    [0.5, 0.5]
    """
    rank = (rankdata(score) - 0.5) / len(score)
    return np.asarray((pseudo - pseudo.mean()) * (rank - 0.5))


def _sums(
    outcome: Floats, score: Floats, treated: Bools, weights: Floats | None
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Customers, and the sums of weights and outcomes of both arms, after each distinct score and before the first."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    own = np.ones(len(score)) if weights is None else weights
    n0, n1, y0, y1 = (
        np.append(0.0, np.cumsum((values * arm)[order])[last])
        for values in (own, own * outcome)
        for arm in (~treated, treated)
    )
    return np.append(0.0, last + 1.0), n0, n1, y0, y1


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.divide(a, b, out=np.zeros_like(a), where=b != 0))


def _above_random(k: Floats, values: Floats) -> float:
    return float(np.trapezoid(values, k) - k[-1] * values[-1] / 2)
