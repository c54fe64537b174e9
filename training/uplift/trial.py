"""`Trial`: customers of whom some were contacted, and what came of it; and what a trial must have to be learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qianmian.errors import DataError

MIN_ARM, MIN_OUTCOMES = 30, 10  # customers of an arm; of them with each answer, where the outcome is a yes or no
MIN_OVERLAP = 0.05  # a propensity below this, or above 1 − this, is of a customer who could hardly be in the other arm
MIN_OVERLAP_SHARE = 0.2  # of the customers, who have to be within


@dataclass(frozen=True)
class Trial:
    """A randomised test, or observational data with propensities.

    Attributes
    ----------
    X : ndarray of float32, (n, f)
        What was known of each customer before the treatment: numbers (NaN if missing), codes of categories (−1).
    treated : ndarray of bool, (n,)
        Whether the customer was contacted.
    outcome : ndarray of float64, (n,)
        0 or 1, or an amount.
    propensity : ndarray of float64, (n,), or None
        Probability of the contact given X. None for a randomised test of unknown constant share: it is the share of
        contacted customers of each stratum.
    names : list of str
        Columns of X.
    strata : ndarray of int, (n,), or None
        Groups within which the contact was drawn at random.
    categorical : tuple of bool
        Which columns of X are codes of categories; empty if none is.
    customers : ndarray of int, (n,), or None
        Number of the customer of each row, from 0, where a customer has several: all of them are in one part of every
        split, and count as one customer in standard errors. None if each row is a customer.
    """

    X: NDArray[np.float32]
    treated: NDArray[np.bool_]
    outcome: NDArray[np.float64]
    propensity: NDArray[np.float64] | None
    names: list[str]
    strata: NDArray[np.int64] | None = None
    categorical: tuple[bool, ...] = ()
    customers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.treated)

    @cached_property
    def is_binary(self) -> bool:
        """Whether the outcome is a yes or no."""
        return bool(np.isin(self.outcome, (0.0, 1.0)).all())

    @property
    def is_plain(self) -> bool:
        """Whether everybody had the same probability to be contacted, as far as the trial says."""
        return self.propensity is None and self.strata is None

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        """Probability of the contact of each customer, (n,): the propensity, or the share of the stratum."""
        if self.propensity is not None:
            return self.propensity
        if self.strata is None:
            return np.full(len(self), self.treated.mean())
        _, stratum = np.unique(self.strata, return_inverse=True)
        return np.asarray((np.bincount(stratum, weights=self.treated) / np.bincount(stratum))[stratum])

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Number of the group of each customer, by which splits and folds are stratified: arm and outcome, (n,)."""
        has_outcome = self.outcome != 0 if self.is_binary or (self.outcome == 0).any() else np.zeros(len(self), bool)
        return np.asarray(self.treated * 2 + has_outcome, dtype=np.int64)

    @property
    def customer_count(self) -> int:
        """Number of customers, each of whom has one row or several."""
        return len(self) if self.customers is None else len(np.unique(self.customers))

    def by_customer(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the rows as one value a customer, with the same mean: for standard errors, (customers,).

        Examples
        --------
        >>> X, some = np.zeros((3, 1), np.float32), np.ones(3, bool)
        >>> two = Trial(X, some, np.ones(3), None, ["x"], customers=np.array([0, 0, 1]))
        >>> two.by_customer(np.array([3.0, 0.0, 3.0])).tolist()
        [2.0, 2.0]
        """
        if self.customers is None:
            return values
        sums = np.bincount(np.unique(self.customers, return_inverse=True)[1], weights=values)
        return np.asarray(sums * (len(sums) / len(values)))

    def take(self, rows: NDArray[np.int64]) -> Trial:
        """The trial of some of the customers."""
        return Trial(
            self.X[rows],
            self.treated[rows],
            self.outcome[rows],
            None if self.propensity is None else self.propensity[rows],
            self.names,
            None if self.strata is None else self.strata[rows],
            self.categorical,
            None if self.customers is None else self.customers[rows],
        )

    @property
    def is_category(self) -> tuple[bool, ...]:
        """Which columns of X are codes of categories, one value a column."""
        return self.categorical or (False,) * self.X.shape[1]


def check(trial: Trial) -> None:
    """Check that a trial can be learnt from.

    Raises
    ------
    DataError
        Nobody or everybody was contacted, an arm is too small, the outcome or the features are the same for everybody,
        or no customers could have been in either arm. The error says what would be enough.
    """
    treated = int(trial.treated.sum())
    arms = {"contacted": treated, "not contacted": len(trial) - treated}
    where = "the trial"
    for arm, count in arms.items():
        if count == 0:
            raise DataError(
                f"no customer was {arm}, so there is nobody to compare with",
                where=where,
                got=f"{len(trial):,} customers, {treated:,} of them contacted",
                allowed=f"at least {MIN_ARM} customers contacted and {MIN_ARM} not contacted",
                hint="hold out some customers of the next contact, chosen at random",
            )
    for arm, count in arms.items():
        if count < MIN_ARM:
            raise DataError(
                f"too few customers were {arm} to tell an effect from chance",
                where=where,
                got=f"{count}",
                allowed=f"at least {MIN_ARM} of each arm; a difference of a fifth needs some thousands",
                hint="add customers to this arm",
            )
    if not np.isfinite(trial.outcome).all():
        raise DataError("an outcome is missing or not finite", where=where, hint="leave these customers out")
    if (trial.outcome == trial.outcome[0]).all():
        raise DataError(
            "the outcome is the same for all customers",
            where=where,
            got=f"{trial.outcome[0]:g}",
            hint="name an outcome that some customers have and others do not, or wait for more days",
        )
    if trial.is_binary:
        for arm, rows in (("contacted", trial.treated), ("not contacted", ~trial.treated)):
            yes, count = int(trial.outcome[rows].sum()), int(rows.sum())
            if min(yes, count - yes) < MIN_OUTCOMES:
                raise DataError(
                    f"too few of the customers who were {arm} have one of the two outcomes",
                    where=where,
                    got=f"{yes} of {count} have it",
                    allowed=f"at least {MIN_OUTCOMES} with and {MIN_OUTCOMES} without it in each arm",
                    hint="add customers, wait for more days, or name a more frequent outcome",
                )
    if not trial.X.shape[1] or (_same(trial.X)).all():
        raise DataError(
            "all customers have the same features, so nobody can be told from anybody else",
            where=where,
            got=f"{trial.X.shape[1]} columns, none of which differs between customers",
            allowed="at least one column with different values, known before the contact",
            hint="the average effect is all that such data can tell",
        )
    within = np.abs(trial.probability - 0.5) <= 0.5 - MIN_OVERLAP
    if within.mean() < MIN_OVERLAP_SHARE or not 0 < trial.treated[within].sum() < within.sum():
        raise DataError(
            "contacted and other customers do not overlap: hardly anybody could have been in either arm",
            where=where,
            got=f"{within.mean():.1%} of the customers have a propensity between {MIN_OVERLAP} and {1 - MIN_OVERLAP}",
            allowed=f"at least {MIN_OVERLAP_SHARE:.0%} of the customers, of both arms",
            hint="compare with customers who might have been contacted as well, or hold some out at random",
        )


def _same(X: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each column has the same value, or none, in all rows, (f,)."""
    return np.asarray(((X[0] == X) | (np.isnan(X) & np.isnan(X[0]))).all(axis=0))
