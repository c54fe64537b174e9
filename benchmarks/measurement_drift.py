"""Drift of what a monitor watches: false alarms, planted drift, and Complete Journey replayed.

A part of `benchmarks/measurement.py`.

Simulations: twenty columns that share a factor, in seven windows of 28 days. Every day has an effect of its own
(standard deviation .1 of that of the rows), which is correlated from day to day (.5), and every weekday has one. Histograms
of days are drawn from their distributions, so that a million rows cost what a thousand do.
- `false_alarm_rate_ROWS`: times that any column is said to have drifted although nothing has changed, with the limits of
  the effect; `noise_alarm_rate_ROWS`: without these limits, by the permuted days alone.
- `detected`: times that one column of twenty, moved by .2 standard deviations, is found at 10,000 rows.
- `naive_alarm_rate_ROWS` of `ks_test`: the same days, judged by a two-sample test of rows with Bonferroni's correction,
  as a monitor that knows no days would.
"""

from __future__ import annotations

import time
from typing import Any

import common
import numpy as np
from common import Must
from scipy.stats import norm

from models.day_histograms import BINS, DayHistograms
from training.monitoring.drift import Limits, drift

ALPHA, COLUMNS, WINDOWS, DAYS = 0.05, 20, 7, 28
DAY_SPREAD, DAY_CORRELATION, WEEKDAY_SPREAD, SHARED = 0.1, 0.5, 0.1, 0.5
SIZES, PLANTED_ROWS, PLANTED = (1_000, 1_000_000), 10_000, 0.2
SIMULATIONS, QUICK_SIMULATIONS = 1_000, 100
PERMUTATIONS = 499
