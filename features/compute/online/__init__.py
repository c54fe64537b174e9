"""Third execution of a declaration: the value at request time, from the state stored at the last build and the rows since.

`plan` says what a set of features is made of, `state` stores it for every customer, `values` computes. None of them imports
Ibis or DuckDB; `build`, which fills a state from the lake, does, and is imported by nobody here.
"""

from __future__ import annotations

from features.compute.online.plan import OnlinePlan
from features.compute.online.state import CustomerState, OnlineState
from features.compute.online.values import values

__all__ = ["CustomerState", "OnlinePlan", "OnlineState", "values"]
