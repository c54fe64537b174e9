"""`train clusters` of a shop with three kinds of customers: registry, tag, MLflow model, file, and ids that stay."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from cli.main import run
from features.profiles.snapshot import load_current
from features.profiles.tags.published import read
from qianmian.errors import NotFound
from qianmian.schema import CHAMPION, registered_name
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.conftest import write_lake
from training import train
from training.clusters.matching import before_this
from training.reproduce import reproduce
from training.run import JobResult
from training.tracking import tracking_at

BEGIN, DAYS, CUSTOMERS = datetime(2024, 1, 1), 182, 40
LAST = BEGIN + timedelta(days=DAYS)
CLOCK = partial(datetime, 2025, 1, 1)
SETTINGS = Settings.model_validate({"clusters": {"max_clusters": 3}})
# days between orders, lines, share of the orders moved to a Saturday, stores, discount of a coupon, of each kind
KINDS = ((4, 1, 0.0, 1, 0.0), (16, 7, 0.0, 4, 2.0), (14, 3, 1.0, 1, 0.0))


def shop(root) -> Workspace:
    rng, lines = np.random.default_rng(0), []
    for kind, (gap, most, weekend, stores, discount) in enumerate(KINDS):
        for customer in range(CUSTOMERS):
            day = rng.uniform(0, gap)
            while day < DAYS - 7:
                moved = int(day) // 7 * 7 + 5 if rng.random() < weekend else int(day)
                order = {"order_id": f"{kind}-{customer}-{day}", "source_user_id": f"{kind}-{customer}", "source": "s"}
                order |= {"ts": BEGIN + timedelta(days=moved, hours=12), "store_id": f"store {rng.integers(stores)}"}
                for line in range(1 + rng.integers(most)):
                    bought = {"item_id": f"i{rng.integers(40)}", "quantity": 1.0, "amount": 10.0, "status": "paid"}
                    lines.append({**order, "line_no": line, **bought, "coupon_discount": discount * rng.integers(2)})
                day += gap * rng.uniform(0.6, 1.4)
    return write_lake(root, {"transactions": lines}).workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    workspace = shop(tmp_path_factory.mktemp("a shop with groups") / "workspace")
    retrain(workspace)
    return workspace


def retrain(workspace, as_of=None) -> JobResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.clusters.report.RESAMPLES", 20)
        (result,) = train(workspace, ["clusters"], settings=SETTINGS, clock=CLOCK, as_of=as_of, promote=True)
    assert result.status == "registered"
    return result


def test_the_tag_the_registry_and_the_file_have_the_same_clusters(trained, tmp_path):
    tag, before = read(trained, "behaviour_cluster"), before_this(trained)
    assert tag.model_version == "1"
    assert (before.bundle.model.ids, before.last_id) == (("c1", "c2", "c3"), 3)
    assert [one["id"] for one in before.bundle.facts["clusters"]] == ["c1", "c2", "c3"]

    out = tmp_path / "clusters.parquet"
    assert run(["score", "clusters", "--out", str(out), "--workspace", str(trained.root)]) == 0
    rows = pq.read_table(out).to_pylist()
    assert {row["one_id"]: row["behaviour_cluster"] for row in rows} == tag.values
    clusters_of = [{row["behaviour_cluster"] for row in rows if row["user_id"][0] == str(kind)} for kind in range(3)]
    assert sorted(map(sorted, clusters_of)) == [["c1"], ["c2"], ["c3"]], "one cluster a kind"
    assert all(0.0 < row["typicality"] <= 1.0 for row in rows)

    snapshot = load_current(trained)
    assert dict(zip(snapshot.one_ids, snapshot.tags["behaviour_cluster"], strict=True)) == tag.values
    with tracking_at(trained.tracking_uri):
        model = mlflow.pyfunc.load_model(f"models:/{registered_name('clusters')}@{CHAMPION}")
        predicted = model.predict(snapshot.table.to_pandas())
    assert dict(zip(snapshot.one_ids, predicted["behaviour_cluster"], strict=True)) == tag.values


@pytest.mark.slow
def test_ids_stay_in_the_next_training(trained):
    before = read(trained, "behaviour_cluster").values
    second = retrain(trained, LAST - timedelta(days=14))
    assert "kept c1, c2, c3; new none; gone none; 0.0% of the customers changed" in " ".join(second.report.notes)
    now = read(trained, "behaviour_cluster")
    assert (second.version, now.model_version) == (2, "2")
    assert now.values == before
    with pytest.MonkeyPatch.context() as patch:  # the clusters of then are those of version 1, not those of version 2
        patch.setattr("training.clusters.report.RESAMPLES", 20)
        found = reproduce(trained, "clusters", 2)
    assert found.same, found
    client = MlflowClient(trained.tracking_uri, trained.tracking_uri)
    client.delete_model_version(registered_name("clusters"), "1")
    with pytest.raises(NotFound, match="has no version 1, whose clusters were in production"):
        reproduce(trained, "clusters", 2)
