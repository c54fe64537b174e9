"""What customers did in a period: whether they ordered, what they paid, or whether they bought a target."""

from __future__ import annotations

from datetime import datetime

import ibis
import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.propensity import require_in_lake, rows_between
from qianmian.errors import DataError
from qianmian.model_settings import UPLIFT_OUTCOMES
from qianmian.propensity_targets import PropensityTarget


def require_outcome(builder: Builder, outcome: str) -> None:
    """Check that the lake can tell an outcome.

    Parameters
    ----------
    outcome : str
        ``order`` (whether any), ``orders`` (how many), ``amount``, or a target such as ``category=NAME``.

    Raises
    ------
    DataError
        Orders have no times or amounts, or no row is of the target.
    """
    if outcome not in UPLIFT_OUTCOMES:
        require_in_lake(builder, PropensityTarget.of(outcome))
        return
    state = builder.states.get("transactions")
    needed = ("ts", "amount") if outcome == "amount" else ("ts",)
    missing = [name for name in needed if state is None or name not in state.filled]
    if missing:
        raise DataError(
            f"the outcome {outcome} needs orders with {' and '.join(needed)}",
            where="transactions",
            got=f"no {', '.join(missing)}",
            hint="map the columns in sources.yaml, or choose another --outcome",
        )


def outcomes_between(
    builder: Builder, outcome: str, one_ids: NDArray[np.str_], start: datetime, end: datetime
) -> NDArray[np.float64]:
    """The outcome of each customer in ``[start, end)``: 1 or 0, a number of orders, or the amount paid, (n,)."""
    if outcome in UPLIFT_OUTCOMES:
        orders = builder.views(end)["orders"]
        orders = orders.filter(orders.ts >= ibis.timestamp(start.isoformat(sep=" ")))
        values = {
            "order": ibis.literal(1.0),
            "orders": orders.count().cast("float64"),
            "amount": orders.amount.sum().cast("float64").fill_null(0.0),
        }
        value = values[outcome]
        sums = orders.group_by("one_id").aggregate(value=value).to_pyarrow().to_pydict()
        found = dict(zip(sums["one_id"], sums["value"], strict=True))
    else:
        found = dict.fromkeys(rows_between(builder, PropensityTarget.of(outcome), start, end), 1.0)
    return np.array([found.get(one_id, 0.0) for one_id in one_ids.tolist()], dtype=np.float64)


def outcome_words(outcome: str) -> str:
    """The outcome of a customer in words.

    Examples
    --------
    >>> outcome_words("order"), outcome_words("brand=National")
    ('share of customers with an order', 'share of customers with brand=National')
    """
    named = {"order": "share of customers with an order", "orders": "orders a customer", "amount": "amount a customer"}
    return named.get(outcome, f"share of customers with {outcome}")
