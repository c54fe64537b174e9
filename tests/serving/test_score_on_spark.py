"""Scores of a real Spark session are those of one machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.training_data import training_set
from models.recommend import RECOMMENDERS
from models.recommend.scene_models import SceneModels
from qianmian.errors import ArtifactError, DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving import model_registry
from serving.champions import Champions, load_from_workspace
from serving.recommending.batch import score_recommend
from serving.recommending.candidates import CustomerCandidates
from serving.recommending.request_options import parse_list_options
from serving.scoring.churn import score_churn
from serving.scoring.predictions import score_predictions
from serving.scoring.spark import churn_on_spark, predictions_on_spark, recommend_on_spark, write_on_spark
from tests.spark_session import spark_on_two_cores

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java 17 on the PATH", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def running():
    """One Spark for all tests here, on two cores."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYSPARK_PYTHON", sys.executable)
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import this working copy
            session = stack.enter_context(spark_on_two_cores("1g", "OFF"))
        yield session


@pytest.fixture(scope="module")
def shop(workspace, champions, registering, tmp_path_factory) -> Workspace:
    """A copy of the workspace in which the models are registered with the code that runs on Spark."""
    copy = Workspace(tmp_path_factory.mktemp("a shop on spark") / "work space")
    shutil.copytree(workspace.root, copy.root)
    load_from_workspace(copy, Settings())  # the store of a copy names its own folder from the first reading on
    profiles = champions.customers.table.slice(0, 30).to_pandas()
    stages = champions.customers.tags["lifecycle_stage"][:30]
    examples = {
        "recommend": profiles[["one_id"]],
        "churn": profiles[["one_id", *champions.models["churn"].bundle.spec.names]],
        "lifecycle": profiles.assign(lifecycle_stage=stages),
    }
    for job, example in examples.items():
        registering.register(copy, job, with_replenish(champions.models[job].bundle, copy), example)
    return copy


def with_replenish(bundle, workspace):
    """The recommender with a scene that shows the expected day of the next purchase."""
    if bundle.kind != "scenes":
        return bundle
    train = training_set(Builder(Lake(workspace), FEATURES), bundle.as_of, min_item_customers=2)
    scenes, replenish = bundle.model, RECOMMENDERS["replenish"]().fit(train)
    return replace(
        bundle,
        model=SceneModels(
            {**scenes.models, "replenish": replenish}, {**scenes.scenes, "replenish": ["replenish", "repeat"]}
        ),
    )


@pytest.fixture(scope="module")
def models(shop) -> Champions:
    return load_from_workspace(shop, Settings())


def equal_tables(one: pa.Table, other: pa.Table, numbers: tuple[str, ...], without: tuple[str, ...] = ()) -> None:
    """Equal texts, ranks and moments, and numbers to their last decimal place."""
    assert other.column_names == [name for name in one.column_names if name not in without]
    assert [field.type for field in other.schema] == [field.type for field in one.schema if field.name not in without]
    for name in other.column_names:
        if name in numbers:
            pd.testing.assert_series_equal(one[name].to_pandas(), other[name].to_pandas(), atol=2e-6, rtol=0)
        else:
            assert one[name].to_pylist() == other[name].to_pylist(), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scene": "replenish", "num_results": 4},
        {"scene": "discover", "unavailable": 3},
        {"candidates": 7, "options": {"purchased": "never"}},
    ],
    ids=["home", "replenish", "discover", "candidates"],
)
def test_lists_equal_those_of_one_machine(shop, models, tmp_path, options):
    items = models.models["recommend"].catalogue.item_ids
    given = dict(options)
    if "unavailable" in given:
        given["unavailable"] = items[: given["unavailable"]]
    if "candidates" in given:
        given |= {"candidates": items[5 : 5 + given["candidates"]], "options": parse_list_options(given["options"])}
    scores = score_recommend(models, **given)
    out = tmp_path / "lists.parquet"
    written = write_on_spark(shop, recommend_on_spark(scores), out)
    one, other = scores.table(), pq.read_table(out)
    equal_tables(one, other, ("score",))
    assert (written.rows, written.customers) == (one.num_rows, len(one["one_id"].unique()))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_churn_equals_that_of_one_machine_without_the_reasons(shop, models, tmp_path):
    shared = models.customers.one_ids[3]
    bundle = models.models["churn"].bundle
    facts = {**bundle.facts, "shared_accounts": {shared: "an account of many people"}}
    models = replace(
        models, models={**models.models, "churn": replace(models.models["churn"], bundle=replace(bundle, facts=facts))}
    )
    one = score_churn(models, explain=False).table()
    assert {"never bought", "an account of many people", None} < set(one["no_score_reason"].to_pylist())
    out = tmp_path / "churn.parquet"
    written = write_on_spark(shop, churn_on_spark(models), out)
    equal_tables(one, pq.read_table(out), ("churn_probability",), without=("reasons",))
    assert written.customers == one.num_rows


@pytest.mark.slow
def test_predictions_equal_those_of_one_machine_in_every_format(shop, models, tmp_path):
    one = score_predictions(models, names=["lifecycle"]).table().drop_columns("previous_stage")
    scores = predictions_on_spark(models)
    write_on_spark(shop, scores, tmp_path / "one.parquet")
    write_on_spark(shop, scores, tmp_path / "one.csv")
    write_on_spark(shop, scores, tmp_path / "parts")
    numbers = ("average_days_between_orders", "average_order_value")
    table = pq.read_table(tmp_path / "one.parquet")
    rounded = [
        value and {stage: pytest.approx(share, abs=2e-6) for stage, share in value.items()}
        for value in one["next_stage"].to_pylist()
    ]
    assert table["next_stage"].to_pylist() == rounded
    equal_tables(one.drop_columns("next_stage"), table.drop_columns("next_stage"), numbers)
    parts = pq.read_table(tmp_path / "parts").sort_by("one_id")
    assert parts.select(table.column_names).to_pylist() == table.to_pylist()
    csv = pa_csv.read_csv(tmp_path / "one.csv")
    assert [text and json.loads(text) for text in csv["next_stage"].to_pylist()] == [
        value or "" for value in table["next_stage"].to_pylist()
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"diversity": {"max_per": {"category": 2}}}, "--max-per"),
        ({"exploration": {"share": 0.1, "pool": 20, "seed": 1}}, "--exploration"),
        ({"purchased": "only"}, "--purchased only"),
    ],
)
def test_options_that_need_more_than_the_model_are_refused(models, options, named):
    with pytest.raises(UsageError, match="does not have this option") as raised:
        recommend_on_spark(score_recommend(models, options=parse_list_options(options)))
    assert raised.value.got.startswith(named)


def test_candidates_of_each_customer_are_refused(models):
    user, item = models.customers.table["user_id"][0].as_py(), models.models["recommend"].catalogue.item_ids[0]
    pairs = CustomerCandidates(pa.table({"user_id": [user], "item_id": [item]}))
    with pytest.raises(UsageError, match="column user_id"):
        recommend_on_spark(score_recommend(models, candidates=pairs))


def test_a_version_without_the_parameters_is_refused(workspace, champions, tmp_path):
    """The stubs of the other tests stand for versions that were registered before."""
    with pytest.raises(ArtifactError, match="without the parameters") as raised:
        write_on_spark(workspace, recommend_on_spark(score_recommend(champions)), tmp_path / "lists.parquet")
    assert "qianmian train recommend" in raised.value.hint


def test_a_registered_model_that_mlflow_cannot_read_is_an_error_that_says_to_train_again(
    shop, models, tmp_path, monkeypatch
):
    scores = recommend_on_spark(score_recommend(models))
    with model_registry.bundle_folder(shop, "qianmian-recommend", scores.champion.version) as bundle:
        copy = shutil.copytree(bundle.parents[1], tmp_path / "model")
        inside = copy / bundle.relative_to(bundle.parents[1])
    (copy / "MLmodel").unlink()
    monkeypatch.setattr(model_registry, "bundle_folder", lambda *_: nullcontext(inside))
    with pytest.raises(ArtifactError, match="MLflow cannot read the registered model") as raised:
        write_on_spark(shop, scores, tmp_path / "lists.parquet")
    assert "qianmian train recommend" in raised.value.hint
    assert raised.value.where == f"qianmian-recommend version {scores.champion.version}"


def test_without_pyspark_the_error_says_how_to_install_it(shop, models, tmp_path, monkeypatch):
    scores = recommend_on_spark(score_recommend(models))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyspark"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="PySpark is not installed") as raised:
        write_on_spark(shop, scores, tmp_path / "lists.parquet")
    assert "qianmian[spark]" in raised.value.hint


def test_an_error_of_the_model_is_said_without_a_stack_trace_and_nothing_is_written(shop, models, tmp_path):
    scores = recommend_on_spark(score_recommend(models))
    broken = replace(scores, params={**scores.params, "scene": "no such scene"})
    with pytest.raises(Exception, match="could not score the customers") as raised:
        write_on_spark(shop, broken, tmp_path / "lists.parquet")
    assert "no model for this scene" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_no_customer_with_a_list_is_an_error(shop, models, tmp_path):
    scores = recommend_on_spark(score_recommend(models))
    nothing = replace(scores, params={**scores.params, "items": json.dumps(["ghost"])})
    with pytest.raises(DataError, match="no customer gets"):
        write_on_spark(shop, nothing, tmp_path / "lists.parquet")


def test_another_moment_is_refused(models):
    scores = score_recommend(models)
    later = replace(scores, block=replace(scores.block, moment=scores.block.moment + timedelta(days=1)))
    with pytest.raises(UsageError, match="--as-of 2024-08-02"):
        recommend_on_spark(later)
