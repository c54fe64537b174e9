"""Journeys: what customers do in time. Visits (`sessions`), ordered steps (`funnel`) and click paths (`paths`), computed in the engine."""

from __future__ import annotations

from features.journeys.funnels import DEFAULT_STEPS, Funnel, funnel
from features.journeys.paths import STATES, Paths, paths
from features.journeys.rates import Rate, rate
from features.journeys.sessions import SessionSummary, sessions, summary
from features.journeys.steps import STEPS, steps
from features.journeys.tagged import tag_column

__all__ = [
    "DEFAULT_STEPS", "STATES", "STEPS", "Funnel", "Paths", "Rate", "SessionSummary", "funnel", "paths", "rate", "sessions", "steps", "summary",
    "tag_column",
]  # fmt: skip
