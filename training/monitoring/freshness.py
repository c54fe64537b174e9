"""Freshness: the age of the model, the profiles and the data, and whether as many rows arrive as usual."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import ibis

from features.compute.builder import Builder
from features.profiles.snapshot import published_as_of
from qianmian.model_settings import MonitoringSettings
from training.monitoring.report import Check
from training.monitoring.texts import CheckText

WEEKS, FEWEST_WEEKS = 8, 4  # before the last 7 days, which say what is usual
USUAL = 1.5  # times the largest week, or a part of the smallest: no usual week
FEW_A_WEEK = 200  # rows, below which a day without any means nothing
ID_DAYS, MORE_WITHOUT_ID = 28, 0.05
TABLES = "transactions", "events"


def ages(builder: Builder, model_as_of: datetime, now: datetime, settings: MonitoringSettings) -> list[Check]:
    """The age of the model, the published profiles and the data at a moment."""
    published, end = published_as_of(builder.lake.workspace), builder.lake.typical_end
    checks = [_age("model_age", model_as_of, now, settings.max_model_days)]
    if published is None:
        checks.append(Check("profiles_age", "alarm", CheckText("no_profiles")))
    else:
        checks.append(_age("profiles_age", published, now, settings.max_data_days))
    if end is None:
        checks.append(Check("data_age", "unknown", CheckText("no_rows")))
    else:
        checks.append(_age("data_age", end, now, settings.max_data_days))
    return checks


def _age(name: str, moment: datetime, now: datetime, most: int) -> Check:
    if moment > now:  # a moment of the past is looked at
        return Check(name, "fine", CheckText("later", {"date": f"{moment:%Y-%m-%d}"}))
    days = (now - moment).days
    values = {"date": f"{moment:%Y-%m-%d}", "days": days, "most": most}
    return Check(name, "alarm" if days > most else "fine", CheckText("age", values))


def arrivals(builder: Builder, tables: Collection[str], as_of: datetime) -> list[Check]:
    """Rows of the last week beside those of the weeks before, and rows without a user id, of the dated tables named."""
    checks = []
    for name in TABLES:
        state = builder.states.get(name)
        if name not in tables or state is None or state.begin is None:
            continue
        rows, with_id = _per_day(builder, name, as_of)
        weeks = min(WEEKS, (as_of - state.begin).days // 7 - 1)
        checks.append(_volume(f"rows_{name}", rows, weeks))
        shares = []
        for start in (0, ID_DAYS):
            total = sum(rows[start : start + ID_DAYS])
            shares.append(1 - sum(with_id[start : start + ID_DAYS]) / total if total else None)
        now, then = shares
        if now is not None and then is not None:
            statement = CheckText("ids", {"now": f"{now:.1%}", "then": f"{then:.1%}"})
            checks.append(Check(f"ids_{name}", "alarm" if now - then > MORE_WITHOUT_ID else "fine", statement))
    return checks


def _volume(name: str, rows: list[int], weeks: int) -> Check:
    if weeks < FEWEST_WEEKS:
        return Check(name, "unknown", CheckText("few_weeks", {"weeks": max(weeks, 0), "least": FEWEST_WEEKS}))
    parts = [rows[7 * week : 7 * week + 7] for week in range(weeks + 1)]
    totals, empty = [sum(part) for part in parts], [part.count(0) for part in parts]
    low, high = min(totals[1:]), max(totals[1:])
    statement = CheckText("rows", {"now": totals[0], "weeks": weeks, "low": low, "high": high})
    if empty[0] > max(empty[1:]) and low >= FEW_A_WEEK:
        return Check(name, "alarm", CheckText("rows_empty", {"text": statement, "empty": empty[0]}))
    # without rows a week is no usual one, even if some of those before had none either
    usual = low / USUAL <= totals[0] <= high * USUAL and (totals[0] > 0 or high == 0)
    return Check(name, "fine" if usual else "alarm", statement)


def _per_day(builder: Builder, name: str, as_of: datetime) -> tuple[list[int], list[int]]:
    """Rows of each day before a moment, and those with a user id; the last day comes first."""
    days = max(7 * (WEEKS + 1), 2 * ID_DAYS)
    table = builder.backend.table(name)
    moment = ibis.timestamp(as_of.isoformat(sep=" "))
    recent = table.filter(
        table.ts < moment, table.ts >= ibis.timestamp((as_of - timedelta(days=days)).isoformat(sep=" "))
    )
    back = ((moment.epoch_seconds() - recent.ts.epoch_seconds() - 1) // 86400).cast("int64").name("back")
    found = (
        recent.group_by(back)
        .aggregate(n=recent.count(), with_id=recent.source_user_id.count())
        .to_pyarrow()
        .to_pylist()
    )
    rows, with_id = [0] * days, [0] * days
    for one in found:
        place = min(max(int(one["back"]), 0), days - 1)
        rows[place] += one["n"]
        with_id[place] += one["with_id"]
    return rows, with_id
