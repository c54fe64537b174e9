"""How lookalikes are evaluated: hidden positives, seeds of fixed sizes, intervals over segments; and a shop of twins."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from cli.main import run
from training.lookalike.columns import plain_columns
from training.lookalike.evaluation import MODEL, RANDOM, baselines, evaluate, ranking_metrics
from training.lookalike.segments import category_names

N = 600


@pytest.fixture(scope="module")
def space():
    """Two segments, one on each of two columns; the rest is noise."""
    X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    X[:100, 0] += 3
    X[100:220, 1] += 3
    return X


@pytest.fixture(scope="module")
def segments():
    return {"first": np.arange(100), "second": np.arange(100, 220)}


def test_metrics_of_a_ranking_are_known_values():
    truth = np.zeros(200, dtype=bool)
    truth[:20] = True
    found = ranking_metrics(-np.arange(200.0), truth)
    assert found["auc"] == found["average_precision"] == 1.0
    assert (found["lift@1%"], found["recall@1%"], found["lift@10%"]) == (10.0, 0.1, 10.0)
    worst = ranking_metrics(np.arange(200.0), truth)
    assert (worst["auc"], worst["lift@10%"]) == (0.0, 0.0)


def test_members_that_are_no_seeds_are_what_is_looked_for(space, segments):
    """Who knows the members ranks all of them first, also with 25 seeds of a half with 50 or 60."""
    members = {int(row): rows for rows in segments.values() for row in rows}
    oracle = {
        MODEL: lambda seeds: np.isin(np.arange(N), members[int(seeds[0])]).astype(float),
        **baselines(space, None, np.random.default_rng(0)),
    }
    report, curves, precision = evaluate(oracle, segments, N, 0)
    assert {"average_precision", "average_precision@25 seeds", "average_precision@50 seeds"} <= set(report.metrics)
    assert report.metrics["average_precision"].value == 1.0
    assert report.metrics["average_precision@25 seeds"].value == 1.0
    assert report.metrics["average_precision"].n == 2, "an interval is over segments, not over repeats"
    assert report.metrics["average_precision@50 seeds"].n == 1, "half of the other segment is no more than 50"
    assert report.baselines[RANDOM]["auc"].value == pytest.approx(0.5, abs=0.1)
    assert report.differences[f"average_precision:{RANDOM}"].low > 0
    assert len(precision[MODEL]) == 2
    assert curves[MODEL][-1] == (0.5, 1.0)


def test_a_model_with_random_seeds_is_no_better_than_chance(space, segments):
    scorers = baselines(space, None, np.random.default_rng(0))
    centroid = scorers["seed centroid"]
    shuffled, _, _ = evaluate({**scorers, MODEL: centroid}, segments, N, 0, shuffle=True)
    given, _, _ = evaluate({**scorers, MODEL: centroid}, segments, N, 0)
    assert shuffled.metrics["auc"].value < 0.65 < given.metrics["auc"].value


def test_columns_and_categories():
    profile = np.array([[0.0, 5.0], [1e6, 5.0], [-3.0, 5.0]], np.float32)
    columns = plain_columns(profile)
    assert columns[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert abs(columns).max() <= 5
    assert category_names(["A/B/C", "A", "", None]) == ["A/B", "A", "", ""]


@pytest.mark.slow
def test_customers_who_are_all_alike_are_refused(tmp_path, capsys):
    """600 twins: each buys the same on the same days."""
    lines = ["order,customer,item,ts,amount"]
    for week in range(20):
        day = datetime(2024, 1, 1) + timedelta(days=7 * week)
        lines += [f"o{week}-{one},c{one},tea,{day:%Y-%m-%d},5.0" for one in range(600)]
    (tmp_path / "orders.csv").write_text("\n".join(lines))
    (tmp_path / "sources.yaml").write_text(
        "source: shop\ntimezone: UTC\ntables:\n  transactions:\n    path: orders.csv\n"
        "    columns: {order_id: order, source_user_id: customer, item_id: item, ts: ts, amount: amount}\n"
    )
    workspace = ("--workspace", str(tmp_path / "work"))
    assert run(["ingest", "files", "--config", str(tmp_path / "sources.yaml"), *workspace]) == 0
    capsys.readouterr()
    assert run(["train", "lookalike", "--json", *workspace]) == 3
    assert "the customers cannot be told apart" in json.dumps(capsys.readouterr())
