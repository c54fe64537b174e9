"""`train value`: rows of past moments, what is chosen, reported and published, refusals, and the prediction in serving."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from models.bundle import ModelBundle
from models.value.columns import MONEY_FEATURES, ORDER_FEATURES, amounts_by_window, by_name
from models.value.value_model import BG_NBD, MONEY, ORDERS
from qianmian.errors import DataError
from qianmian.settings import Settings
from serving.champions import Champion, Champions
from serving.predictions import PREDICTIONS
from serving.predictions.base import predict_rows
from tests.features.conftest import write_lake
from training.churn.history import OrderHistory
from training.gate import apply_gate
from training.jobs import JOBS
from training.jobs.base import TrainingContext
from training.jobs.value import horizons
from training.value.fitting import deviances, line, nearest_window

END, HORIZON = datetime(2024, 5, 30), 28
BEGIN = datetime(2024, 1, 1)


def context_of(workspace, as_of=END, horizon=HORIZON):
    return TrainingContext(workspace, as_of, Settings(), lambda _: None, horizon)


@pytest.fixture(scope="module")
def evaluated(shop):
    return JOBS["value"].run(context_of(shop))


def test_features_are_those_of_the_profiles(shop):
    names = (*ORDER_FEATURES, *MONEY_FEATURES)
    builder = Builder(Lake(shop), [one for one in FEATURES if one.name in {*names, "orders_28d"}])
    history, as_of = OrderHistory.read(builder.views(END)), datetime(2024, 5, 3, 12)
    profile, found = builder.build(as_of).matrix(), history.features(as_of, names)
    rows = profile.rows_of(history.one_ids)
    for j, name in enumerate(names):
        if profile.column(name)[rows].max() == 9_999:
            continue
        np.testing.assert_allclose(found[:, j], profile.column(name)[rows], rtol=1e-3, atol=2e-2, err_msg=name)
    amounts = amounts_by_window(by_name(found, names))
    np.testing.assert_allclose(amounts[182], history.totals(as_of - timedelta(days=182), as_of)[1], rtol=1e-3, atol=0.1)


def test_the_report_has_baselines_intervals_and_coverage(evaluated):
    report = apply_gate(evaluated.report, evaluated.rules)
    assert report.passed, report.reasons
    assert {"the last horizon again", "the mean", BG_NBD} <= set(report.baselines)
    for name, metric in report.metrics.items():
        assert metric.low <= metric.value <= metric.high, name
    assert 0.7 < report.metrics["coverage_80"].value < 0.92
    assert 0.7 < report.metrics["coverage_80_money"].value < 0.92
    assert report.metrics["rmse_orders"].value < report.baselines["the mean"]["rmse_orders"].value
    assert report.metrics["brier_purchase"].value < report.baselines["the mean"]["brier_purchase"].value
    assert report.metrics["ece_purchase"].value < 0.1
    assert all({"predicted_purchase", "observed_purchase"} <= set(part) for part in report.slices.values())
    assert any(note.startswith(f"at least one order within {HORIZON} days") for note in report.notes)
    assert any("the 80 % interval contained" in note for note in report.notes)
    assert any(note.startswith("date of the next order") for note in report.notes)
    assert set(evaluated.figures) == {"orders.png", "money.png"}
    assert evaluated.bundle.facts["horizon_days"] == evaluated.bundle.facts["learned_days"] == HORIZON


def test_predictions_are_published_of_everybody_with_an_order(evaluated, shop):
    profile = context_of(shop).profile(END)
    buyers = profile.one_ids[profile.column("orders_total") > 0].tolist()
    for tag in ("predicted_orders", "predicted_clv"):
        one_ids, values = evaluated.tags[tag]
        assert list(one_ids) == buyers
        assert min(values) >= 0


def test_a_saved_model_predicts_the_same(evaluated, shop, tmp_path):
    bundle = evaluated.bundle
    bundle.save(tmp_path / "bundle")
    loaded = ModelBundle.load(tmp_path / "bundle")
    X = context_of(shop).profile(END, bundle.spec).values
    X = X[X[:, bundle.spec.names.index("orders_total")] > 0]
    found, again = bundle.model.predict(X), loaded.model.predict(X)
    for name, values in found._asdict().items():
        np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)
    assert (found.orders_low <= found.orders_high).all()
    assert ((found.purchase_probability >= 0) & (found.purchase_probability <= 1)).all()
    # an interval begins at 0 where no order has a probability of a tenth, of orders and of money
    surely = found.purchase_probability > 0.9
    assert 0 < surely.sum() < len(X)
    np.testing.assert_array_equal(found.orders_low > 0, surely)
    assert (found.money_low[~surely] == 0).all()
    longer = bundle.model.within(2 * HORIZON).predict(X)
    assert (longer.orders >= found.orders).all()
    assert longer.orders.sum() < 2 * found.orders.sum()  # some leave meanwhile


def test_rows_of_the_prediction(evaluated, shop):
    """The fields of known customers, and why others have none; the dates are those of the tags."""
    snapshot = build_snapshot(Builder(Lake(shop), FEATURES), END, Settings())
    bought = np.flatnonzero(snapshot.features.column("orders_total") > 0)
    never = np.flatnonzero(snapshot.features.column("orders_total") == 0)
    shared = {snapshot.one_ids[int(bought[0])]: "too many orders for one person"}
    bundle = replace(evaluated.bundle, facts={**evaluated.bundle.facts, "shared_accounts": shared})
    champions = Champions({"value": Champion("value", "1", bundle)}, snapshot, Settings())
    rows = np.array([-1, *bought[:40], *never[:1]])
    unknown, account, *found = predict_rows(champions, rows, None, [PREDICTIONS["value"]])
    assert unknown["no_score_reason"] == "unknown customer"
    assert account["no_score_reason"] == "too many orders for one person"
    assert account["predicted_clv"] is account["historic_clv"] is None
    if len(never):
        assert found.pop()["no_score_reason"] == "never bought"
    for row, place in zip(found, bought[1:40].tolist(), strict=True):
        assert row["no_score_reason"] is None
        assert row["expected_date_of_next_order"] == snapshot.tags["next_order_date"][place]
        assert row["total_clv"] == pytest.approx(row["historic_clv"] + row["predicted_clv"], abs=0.02)
        assert row["historic_number_of_orders"] == snapshot.features.column("orders_total")[place]
        assert row["predicted_clv_low"] <= row["predicted_clv_high"]


def test_the_level_and_scale_of_totals():
    y = np.array([0.0, 0.0, 4.0, 8.0])
    best = deviances(y, np.full(4, y.mean())).mean()
    assert all(deviances(y, np.full(4, y.mean() * factor)).mean() > best for factor in (0.8, 1.25))
    assert np.isfinite(deviances(y, np.zeros(4))).all()
    falling = line(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]))
    assert falling == (pytest.approx(2.1702, abs=1e-4), 0.0)
    assert line(np.ones(3), np.array([1.0, 2.0, 3.0])) == (pytest.approx(2.0), 0.0)  # constant rates
    assert [nearest_window(what, days) for what, days in ((ORDERS, 10), (MONEY, 10), (MONEY, 90))] == [14, 28, 91]


def test_horizons_beyond_the_history(shop):
    context = context_of(shop, horizon=None)
    assert horizons(context, 400)[:2] == (90, 90)
    horizon, learned, notes = horizons(context, 200)
    assert (horizon, learned) == (90, 50)
    assert "learnt for 50" in notes[0]
    horizon, learned, notes = horizons(context, 60)
    assert (horizon, learned) == (60, 15)
    assert "60 days instead of 90" in notes[0]
    with pytest.raises(DataError, match="horizon is longer than the history.*90 days ahead from 60.*at most 60 days"):
        horizons(replace(context, horizon_days=90), 60)
    with pytest.raises(DataError, match="history is too short.*at least 28 days"):
        horizons(context, 20)


def order(user, day, amount=10.0, number=0):
    return {
        "source": "shop",
        "order_id": f"{user}-{day}-{number}",
        "line_no": 1,
        "source_user_id": user,
        "item_id": "i",
        "ts": BEGIN + timedelta(days=day),
        "quantity": 1.0,
        "amount": amount,
        "status": "paid",
    }


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            [order(f"u{n}", day) for n in range(10) for day in range(0, 100, 5)],
            "too few customers to evaluate.*10 cust",
        ),
        ([order(f"u{n}", n % 100) for n in range(300)], "too few customers to evaluate.*0 of them"),
        ([order(f"u{n}", 3, number=k) for n in range(200) for k in (0, 1)], "history is too short to train value"),
    ],
    ids=["ten customers", "everybody bought once", "all on one day"],
)
def test_refusals(tmp_path, lines, reason):
    lake = write_lake(tmp_path / "workspace", {"transactions": lines})
    with pytest.raises(DataError, match=reason):
        JOBS["value"].run(context_of(lake.workspace, BEGIN + timedelta(days=101 if len(lines) != 400 else 4), None))


@pytest.mark.parametrize("job", ["value", "left", "churn"])
def test_a_cutoff_after_the_data_is_refused(tmp_path, job):
    """Where half of the test period has no data, all customers would look as if they had left."""
    lines = [order(f"u{n}", day + n % 9) for n in range(120) for day in range(0, 300, 9 + n % 20)]
    lake = write_lake(tmp_path / "workspace", {"transactions": lines})
    end = lake.default_as_of
    with pytest.raises(DataError, match=rf"the data ends before the period.*choose --as-of {end:%Y-%m-%d}"):
        JOBS[job].run(context_of(lake.workspace, end + timedelta(days=40), None))


def test_amounts_of_zero_leave_orders(tmp_path):
    rng = np.random.default_rng(0)
    gaps = rng.integers(4, 20, 150)
    lines = [order(f"u{n}", int(day), 0.0) for n in range(150) for day in range(int(gaps[n]) // 2, 100, int(gaps[n]))]
    lake = write_lake(tmp_path / "workspace", {"transactions": lines})
    found = JOBS["value"].run(context_of(lake.workspace, BEGIN + timedelta(days=100), None))
    assert "predicted_clv" not in found.tags
    assert any(note == "money: all amounts are 0; orders and dates are predicted" for note in found.report.notes)
    assert found.bundle.facts["no_money_reason"] == "all amounts are 0"
    assert found.bundle.model.predict(np.ones((1, len(ORDER_FEATURES)), dtype=np.float32)).money is None


@pytest.mark.parametrize(
    ("amount_of", "reason"),
    [
        (lambda user, day: 0.0 if day < 85 else 20.0, "all amounts of a part of the history are 0"),
        (lambda user, day: 1e12 if user == 3 and day > 80 else 20.0, "one customer paid 100.0% of all in a part"),
    ],
    ids=["amounts begin late", "one amount in a wrong unit"],
)
def test_amounts_that_say_nothing_leave_orders(tmp_path, amount_of, reason):
    """The money of such a period would be one mean for everybody, with an interval that contains nobody."""
    rng = np.random.default_rng(0)
    gaps = rng.integers(4, 20, 150)
    lines = [
        order(f"u{n}", int(day), amount_of(n, day))
        for n in range(150)
        for day in range(int(gaps[n]) // 2, 100, int(gaps[n]))
    ]
    lake = write_lake(tmp_path / "workspace", {"transactions": lines})
    found = JOBS["value"].run(context_of(lake.workspace, BEGIN + timedelta(days=100), None))
    assert set(found.tags) == {"predicted_orders"}
    assert found.bundle.facts["no_money_reason"].startswith(reason)
    assert "mae_money" not in found.report.metrics
