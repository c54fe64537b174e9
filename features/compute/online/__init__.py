"""Online execution of declared features: values at request time, from the state of the last build and newer rows.

`plan` lists the partial aggregates that a set of features needs, `state` stores them for every customer, and `values`
computes the features. None of these modules imports Ibis or DuckDB. Only `build`, which fills a state from the lake,
imports them, and no module of this package imports `build`.
"""

from __future__ import annotations

from features.compute.online.plan import OnlinePlan
from features.compute.online.state import CustomerState, OnlineState
from features.compute.online.values import values

__all__ = ["CustomerState", "OnlinePlan", "OnlineState", "values"]
