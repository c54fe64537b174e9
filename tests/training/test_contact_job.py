"""`train contact`: planted preferences are found, what tells nothing is refused, and every refusal says what would do."""

from __future__ import annotations

import numpy as np
import pytest

from features.data.lake import Lake
from models.contact import CELLS
from qianmian.errors import DataError
from training.gate import apply_gate
from training.jobs.base import TrainingContext
from training.jobs.contact import run

HOURS = (8, 12, 20)
# every fourth day three messages to everybody, at three hours through one of two channels; 60 % of those at the own
# hour and through the own channel are opened, 10 % of the others
PEOPLE = """
SELECT source, source_user_id, row_number() OVER (ORDER BY source, source_user_id) AS number
FROM (SELECT DISTINCT source, source_user_id FROM touches)
"""
TOUCHES = f"""
WITH people AS ({PEOPLE}),
sends AS (SELECT *, TIMESTAMP '2024-01-02' + INTERVAL (day) DAY + INTERVAL (hour) HOUR AS sent,
                 hash(number, day, hour, 'channel') % 2 AS channel, (hash(number, day, hour) % 1000) / 1000 AS chance
          FROM people, range(0, 146, 4) AS days(day), (VALUES (8), (12), (20)) AS hours(hour)),
answers AS (SELECT *, {{answers}} AS opened FROM sends)
SELECT touches.* REPLACE (
    'c' || answers.channel AS campaign_id, answers.source || answers.source_user_id || day || '-' || hour AS touch_id,
    answers.source AS source, answers.source_user_id AS source_user_id, sent AS ts, true AS delivered,
    answers.opened AS opened, false AS clicked)
FROM answers, (SELECT * FROM touches LIMIT 1) AS touches
"""
OWN = "chance < CASE WHEN hour = [8, 12, 20][number % 3 + 1] AND channel = number % 2 THEN 0.6 ELSE 0.1 END"
ALIKE = "chance < 0.3"
CAMPAIGNS = (
    "SELECT * REPLACE ('c' || n AS campaign_id, ['email', 'sms'][n + 1] AS channel) "
    "FROM (SELECT * FROM campaigns LIMIT 1), range(2) AS numbers(n)"
)


def context(workspace, settings, **more) -> TrainingContext:
    return TrainingContext(workspace, Lake(workspace).default_as_of, settings, lambda line: None, **more)


@pytest.fixture(scope="module")
def planted(shop, copy_workspace):
    return copy_workspace(shop, {"touches": TOUCHES.format(answers=OWN), "campaigns": CAMPAIGNS})


@pytest.fixture(scope="module")
def evaluated(planted, settings):
    return run(context(planted, settings))


def test_planted_hours_and_channels_are_found(evaluated, planted):
    report = apply_gate(evaluated.report, evaluated.rules)
    assert report.passed, report.reasons
    model, one_ids = evaluated.bundle.model, evaluated.bundle.user_ids
    assert evaluated.bundle.facts["responses"] == {
        "times": "opened and clicked messages",
        "channels": "opened and clicked messages",
    }
    own = (
        Lake(planted)
        .connect()
        .sql(
            f"SELECT one_id, any_value(number) % 3 AS hour, any_value(number) % 2 AS channel FROM ({PEOPLE}) AS people "
            "JOIN customers USING (source, source_user_id) GROUP BY one_id HAVING count(*) = 1"
        )
    )
    found = model.predict(np.arange(len(one_ids)))
    times = dict(zip(one_ids.tolist(), found.times.argmax(axis=1).tolist(), strict=True))
    channels = dict(zip(one_ids.tolist(), found.channels.argmax(axis=1).tolist(), strict=True))
    rows = own.to_pyarrow().to_pylist()
    slots = ("morning", "midday", "evening")
    assert np.mean([CELLS[times[row["one_id"]]][1] == slots[row["hour"]] for row in rows]) > 0.9
    assert np.mean([channels[row["one_id"]] == row["channel"] for row in rows]) > 0.95


def test_a_channel_that_was_refused_is_not_published(evaluated, planted):
    refused = set(
        Lake(planted)
        .connect()
        .sql(
            "SELECT one_id FROM profiles JOIN customers USING (source, source_user_id) "
            "GROUP BY one_id HAVING bool_and(NOT consent_email)"
        )
        .to_pyarrow()["one_id"]
        .to_pylist()
    )
    tags = dict(zip(*evaluated.tags["best_channel"], strict=True))
    assert refused
    assert all(tags[one_id] != "email" for one_id in refused)


@pytest.mark.slow
def test_permuted_responses_are_refused(planted, settings):
    evaluated = run(context(planted, settings, shuffle_labels=True))
    assert not apply_gate(evaluated.report, evaluated.rules).passed


@pytest.mark.slow
def test_responses_that_are_alike_at_all_times_are_refused(shop, copy_workspace, settings):
    alike = copy_workspace(shop, {"touches": TOUCHES.format(answers=ALIKE), "campaigns": CAMPAIGNS})
    with pytest.raises(DataError, match="no usable signal"):
        run(context(alike, settings))


NO_EVENTS = {"events": "SELECT * FROM events WHERE false", "touches": "SELECT * FROM touches WHERE false"}


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        ({**NO_EVENTS, "transactions": "SELECT * FROM transactions WHERE false"}, "has a timestamp"),
        ({**NO_EVENTS, "transactions": "SELECT * REPLACE (true AS date_only) FROM transactions"}, "dates without"),
        (
            {
                **NO_EVENTS,
                "transactions": "SELECT * REPLACE (date_trunc('week', ts) + INTERVAL 9 HOUR AS ts) FROM transactions",
            },
            "at one time of the week",
        ),
        (
            {
                **NO_EVENTS,
                "transactions": "SELECT * FROM transactions WHERE source_user_id IN "
                "(SELECT DISTINCT source_user_id FROM transactions ORDER BY 1 LIMIT 10)",
            },
            "customers responded in the history period; 50 are needed",
        ),
    ],
    ids=["nothing", "dates only", "one time", "ten customers"],
)
def test_what_tells_nothing_is_refused_with_what_would_be_enough(shop, copy_workspace, settings, queries, told):
    with pytest.raises(DataError, match=told):
        run(context(copy_workspace(shop, queries), settings))


def test_a_horizon_longer_than_the_history_is_refused(planted, settings):
    with pytest.raises(DataError, match="at least 300 days for a horizon of 100"):
        run(context(planted, settings, horizon_days=100))
