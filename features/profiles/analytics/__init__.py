"""Behaviour analytics in the engine: sessions (`sessions`), funnels (`funnel`) and click paths (`paths`)."""

from __future__ import annotations

from features.profiles.analytics.funnels import DEFAULT_STEPS, Funnel, choose_steps, funnel
from features.profiles.analytics.paths import PATH_STATES, PathAnalysis, paths
from features.profiles.analytics.rates import Rate, rate
from features.profiles.analytics.sessions import SessionSummary, sessions, summary
from features.profiles.analytics.steps import STEPS, steps
from features.profiles.analytics.tagged import tag_column

__all__ = [
    "DEFAULT_STEPS",
    "PATH_STATES",
    "STEPS",
    "Funnel",
    "PathAnalysis",
    "Rate",
    "SessionSummary",
    "choose_steps",
    "funnel",
    "paths",
    "rate",
    "sessions",
    "steps",
    "summary",
    "tag_column",
]
