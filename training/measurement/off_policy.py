"""Off-policy evaluation: what a policy would have brought, from the log of another policy and its propensities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qianmian.errors import DataError
from training.measurement.notes import Language, Note
from training.measurement.reward_model import Floats, cross_fitted_rewards
from training.uplift.effect import Effect

MIN_EFFECTIVE = 100.0  # effective sample size below which a value is refused
MAX_WEIGHT_SHARE = 0.05  # of one decision in the sum of all weights
MAX_UNSUPPORTED = 0.05  # probability of the target policy on actions that the log does not have
MIN_CUSTOMERS = 30
WEIGHT_TOLERANCE, WEIGHT_ERRORS = 0.05, 4.0  # distance of the mean weight from 1: absolute, and in standard errors
ROUNDING = 1e-12  # relative size of what is 0 but for rounding
IPS, SNIPS, DM, DR = "ips", "snips", "dm", "dr"


@dataclass(frozen=True)
class PolicyLog:
    """Decisions of a logging policy, what they brought, and what a target policy would have done instead.

    Attributes
    ----------
    actions : ndarray of int, (n,)
        The action of each decision, from 0.
    rewards : ndarray of float64, (n,)
        What it brought: 0 or 1, or an amount.
    propensities : ndarray of float64, (n,)
        Probability with which the logging policy chose that action, in (0, 1].
    target : ndarray of float64, (n, k) or (n,)
        Probabilities of the target policy: of each of the k actions, or only of the action that was chosen.
    X : ndarray of float32, (n, f)
        What was known at each decision: numbers (NaN if missing) or codes of categories. Read by the reward model only.
    categorical : tuple of bool
        Which columns of X are codes; empty if none is.
    customers : ndarray of int, (n,), or None
        The customer of each decision, where customers have several. None if each decision is of another customer.
    """

    actions: NDArray[np.int64]
    rewards: Floats
    propensities: Floats
    target: Floats
    X: NDArray[np.float32]
    categorical: tuple[bool, ...] = ()
    customers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def has_distribution(self) -> bool:
        """Whether the target policy is known for all actions, as a reward model needs."""
        return self.target.ndim == 2

    @property
    def target_of_action(self) -> Floats:
        """Probability of the target policy for the action that was chosen, (n,)."""
        return self.target[np.arange(len(self)), self.actions] if self.has_distribution else self.target

    @property
    def weights(self) -> Floats:
        """Importance weights: target ÷ logging probability of the action that was chosen, (n,)."""
        return np.asarray(self.target_of_action / self.propensities)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Number of the customer of each decision, from 0, (n,)."""
        if self.customers is None:
            return np.arange(len(self))
        return np.unique(self.customers, return_inverse=True)[1].astype(np.int64)

    def check(self) -> None:
        """Check that propensities, probabilities and rewards are such.

        Raises
        ------
        DataError
            With the number of decisions concerned, and the place of the first.
        """
        _require(
            np.asarray((self.propensities > 0) & (self.propensities <= 1)),
            "a propensity is the probability of the action that was chosen",
            self.propensities,
            "above 0, at most 1",
        )
        _require(np.asarray(np.isfinite(self.rewards)), "a decision has no reward", self.rewards, "a number")
        target = self.target if self.has_distribution else self.target[:, None]
        allowed = "0 to 1" + (", 1 in sum over the actions" if self.has_distribution else "")
        inside = np.asarray((np.isfinite(target) & (target >= 0) & (target <= 1 + 1e-9)).all(axis=1))
        if self.has_distribution:
            inside &= np.abs(target.sum(axis=1) - 1.0) < 1e-3
        _require(inside, "the probabilities of the target policy are none", target.sum(axis=1), allowed)


@dataclass(frozen=True)
class OffPolicyValue:
    """The value of a target policy: its mean reward a decision.

    Attributes
    ----------
    estimates : mapping of str to Effect
        `ips` (Horvitz & Thompson 1952), `snips` (self-normalised; Swaminathan & Joachims 2015) and, where the target is
        known for all actions, `dm` (the reward model alone) and `dr` (doubly robust; Dudík, Langford & Li 2011). `dm`
        has no interval, because a wrong model biases it by an unknown amount.
    best : str
        The estimate to use: `dr`, or `snips` where there is none.
    logged : Effect
        Mean reward of the decisions as they were.
    gain : Effect
        The value minus the logged mean reward, paired by decision.
    decisions, customers, actions : int
        Actions are those in the log.
    effective_sample_size : float
        (Σw)² ÷ Σw²: so many decisions of the target policy itself would tell as much (Kish 1965).
    largest_weight, largest_weight_share, mean_weight : float
        The share is of the sum of all weights. The mean is 1 where propensities are right and nothing is unsupported.
    unsupported : float
        Mean probability of the target policy on actions that the log does not have; NaN if it cannot be told.
    refusals : tuple of Note
        Why the value must not be used; empty if it can be.
    """

    estimates: Mapping[str, Effect]
    best: str
    logged: Effect
    gain: Effect
    decisions: int
    customers: int
    actions: int
    effective_sample_size: float
    largest_weight: float
    largest_weight_share: float
    mean_weight: float
    unsupported: float
    refusals: tuple[Note, ...]

    @property
    def value(self) -> Effect:
        """The estimate to use."""
        return self.estimates[self.best]

    def as_dict(self, language: Language = "en") -> dict[str, Any]:
        """The value as plain values for JSON, the refusals in one language."""
        estimates = {name: estimate.as_dict() for name, estimate in self.estimates.items()}
        own = {
            "logged": self.logged.as_dict(),
            "gain": self.gain.as_dict(),
            "refusals": [refusal.text(language) for refusal in self.refusals],
        }
        return {**self.__dict__, "estimates": estimates, **own}


def policy_value(log: PolicyLog, seed: int) -> OffPolicyValue:
    """Estimate the value of the target policy.

    Intervals are of the mean over customers, by the influence of each decision. Values are refused below an effective
    sample size of `MIN_EFFECTIVE`, with one weight above `MAX_WEIGHT_SHARE` of all, with more than `MAX_UNSUPPORTED` of
    the target on actions that were never logged, and where the mean weight is not 1: the propensities are then not
    those with which the actions were drawn.

    Parameters
    ----------
    log : PolicyLog
    seed : int
        Of the folds of the reward model.

    Raises
    ------
    DataError
        The log has too few customers, only one action, or values that are no probabilities or rewards.
    """
    log.check()
    groups, present = log.groups, np.unique(log.actions)
    customers = int(groups.max()) + 1
    if customers < MIN_CUSTOMERS:
        raise DataError("the log has too few customers", got=customers, allowed=f"{MIN_CUSTOMERS} or more")
    if len(present) < 2:
        raise DataError(
            "the log has one action only, so it says nothing of any other",
            hint="a log of decisions that were drawn among two actions or more is needed",
        )
    weights = log.weights
    total = float(weights.sum())
    if not total:
        raise DataError(
            "the target policy would never have done what was logged",
            hint="no decision of the log tells its value; log some of its own decisions first",
        )
    mean_weight = total / len(log)
    influences: dict[str, Floats] = {
        IPS: weights * log.rewards,
        SNIPS: weights * (log.rewards - float(weights @ log.rewards) / total) / mean_weight,
    }
    estimates = {
        IPS: _over_customers(influences[IPS], groups),
        SNIPS: _over_customers(influences[SNIPS], groups, float(weights @ log.rewards) / total),
    }
    unsupported, best = float("nan"), SNIPS
    if log.has_distribution:
        best = DR
        rewards = cross_fitted_rewards(
            log.X, log.categorical, log.actions, log.rewards, groups, log.target.shape[1], seed
        )
        direct = (log.target * rewards).sum(axis=1)
        influences[DR] = direct + weights * (log.rewards - rewards[np.arange(len(log)), log.actions])
        estimates[DM] = Effect(float(direct.mean()), float("nan"), float("nan"), float("nan"), customers)
        estimates[DR] = _over_customers(influences[DR], groups)
        unsupported = float(1.0 - log.target[:, present].sum(axis=1).mean())
    gain = _over_customers(influences[best] - log.rewards, groups, estimates[best].value - float(log.rewards.mean()))
    effective, share = total**2 / float(weights @ weights), float(weights.max()) / total
    return OffPolicyValue(
        estimates,
        best,
        _over_customers(log.rewards, groups),
        gain,
        len(log),
        customers,
        len(present),
        effective,
        float(weights.max()),
        share,
        mean_weight,
        unsupported,
        _refusals(weights, effective, share, unsupported, groups),
    )


def _over_customers(values: Floats, groups: NDArray[np.int64], value: float | None = None) -> Effect:
    """The mean of one value a decision with its standard error over customers; `value` takes the place of the mean."""
    n, mean = int(groups.max()) + 1, float(values.mean())
    residuals = np.bincount(groups, weights=values - mean, minlength=n)
    standard_error = float(np.sqrt(n / (n - 1) * float(residuals @ residuals))) / len(values)
    if standard_error <= ROUNDING * float(np.abs(values).max()):  # as of a target that is the policy of the log
        standard_error = 0.0
    return Effect.of(mean if value is None else value, standard_error, n)


def _refusals(
    weights: Floats, effective: float, share: float, unsupported: float, groups: NDArray[np.int64]
) -> tuple[Note, ...]:
    found = []
    if effective < MIN_EFFECTIVE:
        needed = int(np.ceil(len(weights) * MIN_EFFECTIVE / effective))
        found.append(
            Note(
                f"the log tells as much as {effective:,.0f} decisions of the target policy, and {MIN_EFFECTIVE:,.0f} "
                f"are needed: about {needed:,} decisions like these would be enough",
                f"日志提供的信息只相当于目标策略的 {effective:,.0f} 次决策，至少需要 {MIN_EFFECTIVE:,.0f} 次："
                f"约需 {needed:,} 次类似的决策",
            )
        )
    if share > MAX_WEIGHT_SHARE:
        found.append(
            Note(
                f"one decision makes up {share:.0%} of all weights, and {MAX_WEIGHT_SHARE:.0%} is allowed: the target "
                "policy does what the logging policy hardly ever did; log with a floor under the probabilities",
                f"单次决策占全部权重的 {share:.0%}，最多允许 {MAX_WEIGHT_SHARE:.0%}：目标策略常做的事，"
                "原策略几乎从未做过；请为日志策略的概率设置下限",
            )
        )
    if unsupported > MAX_UNSUPPORTED:
        found.append(
            Note(
                f"{unsupported:.0%} of the decisions of the target policy are actions that the log does not have, and "
                f"{MAX_UNSUPPORTED:.0%} are allowed: nothing is known of what they bring",
                f"目标策略有 {unsupported:.0%} 的决策是日志中没有的动作，最多允许 {MAX_UNSUPPORTED:.0%}："
                "无从得知这些动作的回报",
            )
        )
    expected = 1.0 - (unsupported if np.isfinite(unsupported) else 0.0)
    of_weights = _over_customers(weights, groups)
    distance = abs(of_weights.value - expected)
    if distance > max(WEIGHT_TOLERANCE, WEIGHT_ERRORS * of_weights.standard_error):
        found.append(
            Note(
                f"the weights average {of_weights.value:.2f} and should average {expected:.2f}: the propensities are "
                "not those with which these actions were drawn",
                f"权重的平均值为 {of_weights.value:.2f}，应为 {expected:.2f}：日志中的概率不是实际选择动作时的概率",
            )
        )
    return tuple(found)


def _require(holds: NDArray[np.bool_], message: str, values: Floats, allowed: str) -> None:
    """Raise a DataError that names the first row, from 1, for which a condition does not hold."""
    if not holds.all():
        first = int(np.argmin(holds))
        raise DataError(
            message,
            where=f"row {first + 1:,} of the log, and {int((~holds).sum()) - 1:,} more",
            got=f"{values[first]:.6g}",
            allowed=allowed,
        )
