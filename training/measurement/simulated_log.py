"""A simulated log of decisions whose target policy has a known value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from training.measurement.off_policy import PolicyLog
from training.measurement.reward_model import Floats, RewardModel

CONTEXTS = 5
LOGGING_TEMPERATURE = -1.5  # the logging policy prefers what brings less; IPS is then as far off as in the reference


@dataclass(frozen=True)
class SimulatedLog:
    """A log, and the mean reward that its target policy has at the contexts of the log."""

    log: PolicyLog
    true_value: float


def simulated_log(seed: int, rounds: int = 10_000, actions: int = 30) -> SimulatedLog:
    """Simulate a log as in the experiment of the Open Bandit Pipeline (Saito et al. 2021, examples/synthetic).

    The context is normal, (rounds, 5). The reward is a yes or no; the logarithm of its odds is linear in the context,
    with coefficients that are partly those of the action. The logging policy is a softmax of the expected rewards. The
    target policy was learnt from another log of the same size and chooses an action with a probability in proportion to
    the reward that it expects.

    Examples
    --------
    >>> simulated = simulated_log(seed=1, rounds=100, actions=3)
    >>> len(simulated.log), simulated.log.target.shape
    (100, (100, 3))
    """
    rng = np.random.default_rng(seed)
    # of one and the context, of one and the action, and of their products, as the reference experiment draws them
    of_context, of_action = rng.uniform(-1.0, 1.0, size=1 + CONTEXTS), rng.uniform(-1.0, 1.0, size=1 + actions)
    of_both = rng.uniform(-1.0, 1.0, size=(1 + CONTEXTS, 1 + actions))
    slopes = (of_context + of_both[:, 0])[:, None] + of_both[:, 1:]
    slopes[0] += of_action[1:]
    slopes[0] -= slopes[0].mean()  # half of all actions would bring something
    logs = []
    for _ in range(2):  # what the target policy learns from, and what it is evaluated on
        context = rng.normal(size=(rounds, CONTEXTS)).astype(np.float32)
        expected = expit(slopes[0] + context @ slopes[1:])
        probabilities = softmax(LOGGING_TEMPERATURE * expected, axis=1)
        sampled = (probabilities.cumsum(axis=1) < rng.random((rounds, 1))).sum(axis=1)
        chosen = (np.arange(rounds), np.minimum(sampled, actions - 1))
        rewards = (rng.random(rounds) < expected[chosen]).astype(np.float64)
        logs.append((PolicyLog(chosen[1], rewards, probabilities[chosen], probabilities, context), expected))
    (other, _), (log, expected) = logs
    target = _learnt_policy(other, log.X, actions)
    log = PolicyLog(log.actions, log.rewards, log.propensities, target, log.X)
    return SimulatedLog(log, float((target * expected).sum(axis=1).mean()))


def _learnt_policy(log: PolicyLog, X: NDArray[np.float32], actions: int) -> Floats:
    """Probabilities of the actions at other decisions, in proportion to the rewards expected by a model of a log."""
    expected = RewardModel(actions).fit(log.X, (), log.actions, log.rewards).predict(X) + 1e-6
    return np.asarray(expected / expected.sum(axis=1, keepdims=True))
