"""The log of a policy in a table: one row a decision, with its action, reward and propensity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.snapshot_table import read_snapshot_table, require_column
from models.classify.snapshot_model import encoded
from qianmian.errors import DataError, UsageError
from training.classify.columns import choose_columns
from training.measurement.off_policy import PolicyLog
from training.measurement.reward_model import Floats
from training.measurement.table import parse_numbers
from training.uplift.table_trial import consequences
from training.uplift.trial import Trial


@dataclass(frozen=True)
class PolicyColumns:
    """Which columns of the table are what. Exactly one of the four targets is given.

    Attributes
    ----------
    action, reward : str
    propensity : str or None
        Probability of the action that was chosen.
    target_action : str or None
        The action that the target policy chooses at this decision.
    target_prefix : str or None
        Columns with this prefix and the name of an action: the probability of that action under the target policy.
    target_probability : str or None
        Probability of the action that was chosen under the target policy.
    always : str or None
        The action that the target policy always chooses.
    context : tuple of str
        What was known at the decision, for the reward model.
    customer : str or None
        The customer of the decision, where customers have several.
    """

    action: str
    reward: str
    propensity: str | None
    target_action: str | None = None
    target_prefix: str | None = None
    target_probability: str | None = None
    always: str | None = None
    context: tuple[str, ...] = ()
    customer: str | None = None

    def check(self) -> None:
        """Check that there are propensities and one target.

        Raises
        ------
        DataError
            There are no propensities.
        UsageError
            There is no target, or more than one.
        """
        if self.propensity is None:
            raise DataError(
                "a log without propensities cannot be evaluated: nothing tells chosen actions from typical customers",
                where="--propensity",
                got="no column",
                hint="log the probability of the chosen action with each decision; if actions were drawn evenly, add a "
                "column of 1 / number of actions",
            )
        targets = {
            "--target-action": self.target_action,
            "--target-prefix": self.target_prefix,
            "--target-probability": self.target_probability,
            "--always": self.always,
        }
        given = [option for option, value in targets.items() if value is not None]
        if len(given) != 1:
            raise UsageError(
                "one target policy is needed: what would have been done instead",
                got=", ".join(given) or "none",
                allowed=", ".join(targets),
            )


@dataclass(frozen=True)
class PolicyTable:
    """The log of a table.

    Attributes
    ----------
    log : PolicyLog
    actions : list of str
        Names of the actions.
    notes : list of str
        What was left out, a line each.
    """

    log: PolicyLog
    actions: list[str]
    notes: list[str]


def read_policy_log(path: Path, columns: PolicyColumns) -> PolicyTable:
    """Read the log of a CSV or Parquet file.

    Raises
    ------
    DataError
        The table cannot be read, or cells are no numbers, actions or probabilities: with the first such row. No row is
        left out, because decisions without a reward are no random sample of all. Or a column of the context tells the
        reward.
    UsageError
        A column is missing, or the target is none.
    """
    columns.check()
    assert columns.propensity is not None
    table = read_snapshot_table(path)
    chosen = _names(table, columns.action, "--action", path)
    rewards = _numbers(table, columns.reward, "--reward", path)
    propensities = _numbers(table, columns.propensity, "--propensity", path)
    actions = sorted(set(chosen))
    target: Floats
    if columns.target_probability is not None:
        target = _numbers(table, columns.target_probability, "--target-probability", path)
    elif columns.target_prefix is not None:
        actions, target = _distribution(table, columns.target_prefix, actions, path)
    else:
        wanted = (
            _names(table, columns.target_action, "--target-action", path)
            if columns.target_action is not None
            else [str(columns.always)] * table.num_rows
        )
        if columns.always is not None and columns.always not in actions:
            raise UsageError(
                "the log has no decision for this action, so nothing is known of what it brings",
                where="--always",
                got=columns.always,
                allowed=", ".join(actions),
            )
        actions = sorted({*actions, *wanted})
        places = {name: place for place, name in enumerate(actions)}
        target = np.eye(len(actions))[[places[name] for name in wanted]]
    places = {name: place for place, name in enumerate(actions)}
    X, categorical, notes = _context(table, columns, path, rewards)
    customers = None
    if columns.customer is not None:
        names = _names(table, columns.customer, "--customer", path)
        customers = np.unique(names, return_inverse=True)[1].astype(np.int64)
    log = PolicyLog(
        np.asarray([places[name] for name in chosen], dtype=np.int64),
        rewards,
        propensities,
        target,
        X,
        categorical,
        customers,
    )
    return PolicyTable(log, actions, notes)


def _distribution(table: pa.Table, prefix: str, actions: list[str], path: Path) -> tuple[list[str], Floats]:
    """The actions of the columns with a prefix, and their probabilities, (n, k)."""
    found = sorted(name.removeprefix(prefix) for name in table.column_names if name.startswith(prefix))
    if missing := sorted(set(actions) - set(found)):
        raise UsageError(
            "an action of the log has no probability under the target policy",
            where=f"--target-prefix {path.name}",
            got=f"no column {prefix}{missing[0]}",
            hint=f"add a column named {prefix} and the action for each; it may be 0 everywhere",
        )
    return found, np.column_stack([_numbers(table, f"{prefix}{name}", "--target-prefix", path) for name in found])


def _context(
    table: pa.Table, columns: PolicyColumns, path: Path, rewards: Floats
) -> tuple[NDArray[np.float32], tuple[bool, ...], list[str]]:
    """What was known at each decision, (n, f), which columns are categories, and which ones tell nothing."""
    for name in columns.context:
        require_column(table, name, "--context", path)
    if not columns.context:
        return np.zeros((table.num_rows, 0), np.float32), (), []
    kept, notes = choose_columns(table.select(list(columns.context)), set())
    X, categorical = encoded(table, kept), tuple(column.kind == "category" for column in kept)
    names, nobody = [column.name for column in kept], np.zeros(len(rewards), dtype=bool)
    brought = (rewards != 0).astype(np.float64)
    if told := consequences(Trial(X, nobody, brought, None, names, categorical=categorical)) if names else []:
        raise DataError(
            "columns look as if they were filled after the decision: they tell for certain whether it brought anything",
            where="--context",
            got=", ".join(told),
            allowed="columns that were there when the decision was made",
            hint=f"leave them out: without {' '.join(f'--context {name}' for name in told)}",
        )
    return X, categorical, notes


def _names(table: pa.Table, name: str, option: str, path: Path) -> list[str]:
    texts = require_column(table, name, option, path)
    _require(pc.is_valid(texts), texts, option, "a name")
    return [str(text) for text in texts.to_pylist()]


def _numbers(table: pa.Table, name: str, option: str, path: Path) -> Floats:
    texts = require_column(table, name, option, path)
    read = parse_numbers(texts)
    _require(pc.is_valid(read), texts, f"{option} {name}", "a number, or yes and no")
    return np.asarray(read.to_numpy(zero_copy_only=False), dtype=np.float64)


def _require(valid: pa.ChunkedArray, texts: pa.ChunkedArray, option: str, allowed: str) -> None:
    holds = valid.to_numpy(zero_copy_only=False).astype(bool)
    if not holds.all():
        first = int(np.argmin(holds))
        raise DataError(
            "cells of the log cannot be read",
            where=f"{option}, row {first + 1:,} and {int((~holds).sum()) - 1:,} more",
            got=texts[first].as_py() or "an empty cell",
            allowed=allowed,
            hint="a decision whose reward is not there yet belongs to a later evaluation; write 0 where nothing came",
        )
