"""Recommenders in production read the promotions of the lake as they are known at the moment of a list."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.data.sources.synthetic import Synthetic
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.profiles.snapshot import publish
from features.training_data import interaction_rows, training_set
from models.bundle import ModelBundle
from models.recommend.popular import PopularRecommender
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.scene_models import SceneModels
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import export, load_from_folder, load_from_workspace
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.planned import PromotionsError
from serving.scoring.spark import recommend_on_spark
from training.promotion import promote

AS_OF = datetime(2024, 8, 1)
LATER = AS_OF + timedelta(days=11)  # the plans of the fit that run at its time are over
HEAD = "item_id,kind,start,end,known_at"


def plan(workspace, rows):
    """Ingest promotions of (item, start, end, known_at)."""
    text = "\n".join([HEAD, *(f"{item},mailer,{start},{end},{known}" for item, start, end, known in rows)])
    (workspace.root / "plan.csv").write_text(text + "\n", encoding="utf-8")
    (workspace.root / "plan.yaml").write_text(
        "source: plan\ntimezone: UTC\ntables:\n  promotions:\n    path: plan.csv\n"
        f"    columns: {{{', '.join(f'{name}: {name}' for name in HEAD.split(','))}}}\n",
        encoding="utf-8",
    )
    ingest(workspace, FileSource(workspace.root / "plan.yaml"), Settings())


@pytest.fixture(scope="module")
def planned(tmp_path_factory, registering):
    """A shop whose plans name, ten days ahead, the items that sold most; its ranker learns from them."""
    workspace = Workspace(tmp_path_factory.mktemp("planned") / "work space")
    ingest(workspace, Synthetic(customers=200, days=213, seed=3), Settings())
    sold = (
        Lake(workspace)
        .connect()
        .con.execute(
            "SELECT item_id, day FROM (SELECT item_id, date_diff('day', TIMESTAMP '2024-01-01', ts) // 14 AS day, count(*) AS n "
            "FROM transactions WHERE ts >= TIMESTAMP '2024-01-01' AND item_id IS NOT NULL GROUP BY ALL) "
            "QUALIFY row_number() OVER (PARTITION BY day ORDER BY n DESC, item_id) <= 8"
        )
        .fetchall()
    )
    begin = datetime(2024, 1, 1)
    windows = [(item, begin + timedelta(days=14 * place)) for item, place in sold]
    plan(workspace, [(item, at, at + timedelta(days=13), at - timedelta(days=10)) for item, at in windows])
    builder = Builder(Lake(workspace), FEATURES)
    train = training_set(builder, AS_OF, min_item_customers=2, with_features=False)
    ranker = TwoStageRecommender(
        stages=(("repeat", {}, 30), ("popular", {"window_days": 28.0}, 40)), rounds=30, horizon_days=14.0, n_jobs=1
    ).fit(train)
    assert ranker.reads_promotions
    facts = {"job": "recommend", "interactions": train.source}
    arrays = {"user_ids": train.user_ids, "item_ids": train.item_ids, "item_attributes": train.item_attributes}

    def bundle(model):
        return ModelBundle("scenes", SceneModels({"one": model}, {"home": ["one"]}), AS_OF, **arrays, facts=facts)

    publish(workspace, build_snapshot(builder, AS_OF, Settings()))
    registering.register(workspace, "recommend", bundle(ranker))
    return workspace, train, bundle


def lists(champions, workspace, moment):
    builder = None if moment == AS_OF else Builder(Lake(workspace), FEATURES)
    rows = batch.score_recommend(champions, num_results=6, as_of=moment, builder=builder).table().to_pylist()
    found = {}
    for row in rows:
        found.setdefault((row["user_id"], row["user_source"]), []).append((row["item_id"], round(row["score"], 3)))
    return found


def single(champions, user, moment):
    endpoint, (user_id, source) = ENDPOINTS["/recommendations"], user
    asked = {"user_id": user_id, "user_source": source, "num_results": 6, "context": {"now": moment.isoformat()}}
    answer = endpoint.respond(champions, endpoint.request.model_validate(asked), moment)
    return [(item["item_id"], round(item["score"], 3)) for item in answer["items"]]


def test_batch_and_requests_read_the_plans_that_are_known(planned):
    workspace, train, _ = planned
    before = load_from_workspace(workspace, Settings(), ["recommend"])
    at_fit, later = (lists(before, workspace, moment) for moment in (AS_OF, LATER))
    assert at_fit != later  # time has passed
    digest = batch.score_recommend(before).digest
    # the plans that became known after the fit: of the items that nobody would be shown
    shown = {item for found in (at_fit, later) for listed in found.values() for item, _ in listed}
    rare = [item for item in train.item_ids.tolist()[:40] if item not in shown] or train.item_ids.tolist()[:8]
    rows = [(item, AS_OF + timedelta(days=2), AS_OF + timedelta(days=15), AS_OF + timedelta(days=1)) for item in rare]
    plan(workspace, rows)
    after = load_from_workspace(workspace, Settings(), ["recommend"])
    assert lists(after, workspace, AS_OF) == at_fit  # not known then
    changed = lists(after, workspace, LATER)
    assert changed != later
    assert batch.score_recommend(after).digest != digest  # a resumed file does not mix two plans
    builder = Builder(Lake(workspace), FEATURES)
    active = set(interaction_rows(builder, LATER, AS_OF)["one_id"].to_pylist())
    table = after.customers.table.select(["user_id", "user_source", "one_id"]).to_pylist()
    quiet = [(row["user_id"], row["user_source"]) for row in table if row["one_id"] not in active]
    assert len(quiet) > 20
    for user in quiet[::5]:
        assert single(after, user, AS_OF) == at_fit.get(user, [])
        assert single(after, user, LATER) == changed.get(user, [])


def test_spark_says_that_it_reads_the_plans_of_the_fit_if_those_of_the_lake_are_others(planned):
    workspace = planned[0]
    champions = load_from_workspace(workspace, Settings(), ["recommend"])
    champion = champions.models["recommend"]
    assert champion.promotions == Lake(workspace).states()["promotions"].digest

    def warnings(digest, read=champion.promotions):
        bundle = replace(champion.bundle, facts={**champion.bundle.facts, "promotions_digest": digest})
        models = {"recommend": replace(champion, bundle=bundle, promotions=read)}
        return recommend_on_spark(batch.score_recommend(replace(champions, models=models))).warnings

    assert warnings(champion.promotions) == ()
    assert warnings("of the fit", read="") == ()  # without a lake both have those of the fit
    (warning,) = warnings("of the fit")
    assert "promotions of the lake have changed" in warning


def test_without_the_lake_the_plans_of_the_fit_stay(planned, tmp_path):
    workspace = planned[0]
    export(workspace, Settings(), tmp_path / "export")
    shipped = load_from_folder(tmp_path / "export")
    assert shipped.models["recommend"].promotions == ""
    champions = load_from_workspace(workspace, Settings(), ["recommend"])
    assert champions.models["recommend"].promotions
    users = np.arange(30)
    ours, theirs = (one.models["recommend"].catalogue.model("home").recommend(users, 6) for one in (champions, shipped))
    np.testing.assert_array_equal(ours.ids, theirs.ids)


def home_lists(champions):
    return champions.models["recommend"].catalogue.model("home").recommend(np.arange(30), 6).ids


def damaged(workspace, table, tmp_path):
    """A copy of a workspace in which the files of a table of the lake are no Parquet files."""
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "damaged"))
    files = list(copy.root.glob(f"lake/{table}/**/*.parquet"))
    assert files
    for file in files:
        file.write_bytes(b"no parquet" * 10)
    return copy


def test_damage_of_another_table_changes_nothing(planned, tmp_path):
    sound = load_from_workspace(planned[0], Settings(), ["recommend"])
    champions = load_from_workspace(damaged(planned[0], "transactions", tmp_path), Settings(), ["recommend"])
    assert champions.problems == ()
    assert champions.models["recommend"].promotions == sound.models["recommend"].promotions != ""
    np.testing.assert_array_equal(home_lists(champions), home_lists(sound))


@pytest.mark.parametrize("part", ["promotions", "manifest", "pages"])
def test_promotions_that_cannot_be_read_leave_the_champion_and_its_plans(planned, registering, tmp_path, part):
    workspace, train, bundle = planned
    both = Workspace(shutil.copytree(workspace.root, tmp_path / "both"))
    champion = load_from_workspace(both, Settings(), ["recommend"]).models["recommend"].version
    registering.register(both, "recommend", bundle(PopularRecommender().fit(train)))  # an alternative
    promote(both, "recommend", int(champion), AS_OF)
    copy = damaged(both, "promotions", tmp_path) if part == "promotions" else both
    if part == "manifest":
        (copy.lake / "manifest.json").write_text("{", encoding="utf-8")
    if part == "pages":  # the file opens, but its rows cannot be read
        for file in copy.root.glob("lake/promotions/**/*.parquet"):
            content = bytearray(file.read_bytes())
            content[4 : len(content) // 4] = b"x" * (len(content) // 4 - 4)
            file.write_bytes(content)
    champions = load_from_workspace(copy, Settings(), ["recommend"])
    assert champions.models["recommend"].version == champion
    assert champions.models["recommend"].promotions == ""
    (problem,) = champions.problems
    assert isinstance(problem, PromotionsError)
    told = json.loads(CliRunner().invoke(app, ["doctor", "--workspace", str(copy.root), "--json"]).stdout)["findings"]
    (finding,) = [one for one in told if one["check"] == "promotions"]
    assert finding["status"] == "warn"
    assert "uses those known when it was trained" in finding["found"]
    assert "champion" not in {one["check"] for one in told}
    export(workspace, Settings(), tmp_path / "export")
    np.testing.assert_array_equal(home_lists(champions), home_lists(load_from_folder(tmp_path / "export")))


def test_a_model_without_promotions_does_not_open_the_lake(planned, registering, monkeypatch):
    workspace, train, bundle = planned
    registering.register(workspace, "recommend", bundle(PopularRecommender().fit(train)))
    monkeypatch.setattr(
        "serving.recommending.lake_promotions.Lake", lambda workspace: pytest.fail("the lake was opened")
    )
    assert load_from_workspace(workspace, Settings(), ["recommend"]).models["recommend"].promotions == ""
