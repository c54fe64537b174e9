"""A running server follows its workspace: champions and profiles that move are served, broken ones are reported."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import shutil
import threading
import time
import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.profiles import snapshot
from qianmian.errors import ArtifactError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving import model_registry
from serving.champions import PROFILES, load_from_workspace
from serving.checks import check_answers
from serving.following import WorkspaceSource
from serving.loading import BackgroundLoader
from serving.server import running
from training.promotion import promote, rollback

JOB, SUFFIX = "recommend", "~second"


def with_suffix(bundle):
    """The same recommender with other item ids, so that an answer shows which one it is made from."""
    return replace(bundle, item_ids=np.char.add(bundle.item_ids, SUFFIX))


def without_items(bundle):
    """A recommender whose ids end too early: it loads, and its answers fail."""
    return replace(bundle, item_ids=bundle.item_ids[:1], item_attributes={})


def later(profiles):
    return replace(profiles, as_of=profiles.as_of + timedelta(days=1), data_digest="later")


@pytest.fixture(scope="module")
def two_versions(workspace, champions, registering, tmp_path_factory) -> Workspace:
    """A copy of the shop with a second version of the recommender; the first one is the champion."""
    shop = Workspace(tmp_path_factory.mktemp("two versions") / "shop")
    shutil.copytree(workspace.root, shop.root)
    load_from_workspace(shop, Settings())  # the copy gets the addresses of its own folder
    assert registering.register(shop, JOB, with_suffix(champions.models[JOB].bundle)) == "2"
    rollback(shop, JOB, datetime.now(UTC))
    return shop


@pytest.fixture
def shop(two_versions, tmp_path) -> Workspace:
    shutil.copytree(two_versions.root, tmp_path / "shop")
    return Workspace(tmp_path / "shop")


class Following:
    """A loader without its thread, and what it counted."""

    def __init__(self, shop, monkeypatch) -> None:
        self.counted: list[tuple[str, str]] = []
        monkeypatch.setattr("serving.loading.count_reload", lambda *labels: self.counted.append(labels))
        self.source = WorkspaceSource(shop)
        self.loader = BackgroundLoader(self.source.load, source=self.source)
        self.loader._load_all()

    def look(self):
        """What is served after the next look."""
        self.loader._follow(self.source)
        return self.loader.get()


@pytest.fixture
def following(shop, monkeypatch):
    yield Following(shop, monkeypatch)
    gc.unfreeze()


def test_nothing_is_loaded_if_nothing_has_moved(following, monkeypatch):
    before = following.loader.get()
    monkeypatch.setattr(following.source, "with_part", lambda *_: pytest.fail("loaded"))
    assert following.look() is before
    assert following.look() is before
    assert following.counted == []


def test_only_what_has_moved_is_loaded_and_what_it_replaces_is_released(shop, following):
    first = following.loader.get()
    promote(shop, JOB, 2, datetime.now(UTC))
    second = following.look()
    assert {job: champion.version for job, champion in second.models.items()} == {
        job: "2" if job == JOB else "1" for job in first.models
    }
    assert all(second.models[job] is first.models[job] for job in first.models if job != JOB)
    assert second.snapshot is first.snapshot
    assert len(second.kept_lists) > 100  # its own, and filled before it is served
    assert second.kept_lists is not first.kept_lists

    snapshot.publish(shop, later(second.customers))
    third = following.look()
    assert third.customers.data_digest == "later"
    assert third.models == second.models
    assert third.kept_lists is second.kept_lists
    assert following.counted == [(JOB, "loaded"), (PROFILES, "loaded")]

    released = [weakref.ref(first.models[JOB].bundle), weakref.ref(first.models[JOB].catalogue.items)]
    del first, second
    rollback(shop, JOB, datetime.now(UTC))
    assert following.look().models[JOB].version == "1"
    assert [reference() for reference in released] == [None, None]


def test_champions_are_freed_without_the_garbage_collector(shop):
    """Once frozen, what only the collector could free would stay; unfreezing it all stops a server for .1 s or more."""

    def load_and_answer() -> None:
        served = WorkspaceSource(shop).load()
        served.warm()
        for part in (*served.models, PROFILES):
            check_answers(served, part)

    load_and_answer()  # imports and caches of libraries
    gc.collect()
    gc.disable()
    try:
        load_and_answer()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = {type(found).__module__.partition(".")[0] for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left.isdisjoint({"serving", "models", "features", "numpy", "pandas", "pyarrow", "scipy", "sklearn"}), left


def test_a_broken_champion_is_reported_once_and_the_one_before_serves_on(shop, following, caplog):
    before = following.loader.get()
    with model_registry.bundle_folder(shop, JOB, "2") as folder:
        (folder / "ids.npz").unlink()
    promote(shop, JOB, 2, datetime.now(UTC))
    with caplog.at_level(logging.ERROR):
        assert following.look() is before
        assert following.look() is before
    assert [record.message[:42] for record in caplog.records] == [f"reload=refused part={JOB} moved_to=2 reason="[:42]]
    assert "ids.npz" in caplog.text
    assert following.counted == [(JOB, "refused")]
    rollback(shop, JOB, datetime.now(UTC))
    assert following.look() is before
    assert following.counted == [(JOB, "refused")]


def test_a_champion_that_loads_but_cannot_answer_is_not_served(shop, following, champions, registering, caplog):
    before = following.loader.get()
    registering.register(shop, JOB, without_items(champions.models[JOB].bundle))
    snapshot.publish(shop, later(before.customers))
    after = following.look()
    assert after.models == before.models
    assert after.customers.data_digest == "later"
    assert sorted(following.counted) == [(PROFILES, "loaded"), (JOB, "refused")]


def test_damaged_profiles_are_not_served(shop, following):
    before = following.loader.get()
    folder = snapshot.publish(shop, later(before.customers))
    (folder / "tags.parquet").write_bytes(b"no table")
    assert following.look() is before
    (shop.online / "current.json").write_text("{")
    assert following.look() is before
    assert following.counted == [(PROFILES, "refused")]


def test_profiles_of_another_time_zone_than_that_of_the_models_are_not_served(shop, following):
    before = following.loader.get()
    elsewhere = replace(before.customers, spec=replace(before.customers.spec, timezone="Asia/Shanghai"))
    snapshot.publish(shop, elsewhere)
    assert following.look() is before
    assert following.counted == [(PROFILES, "refused")]


def test_models_that_did_not_fit_the_profiles_come_back_with_profiles_that_they_fit(shop, champions, monkeypatch):
    profiles = champions.customers
    snapshot.publish(shop, replace(profiles, spec=replace(profiles.spec, timezone="Asia/Shanghai")))
    following = Following(shop, monkeypatch)
    assert following.loader.get().failures.keys() == {"churn", "lifecycle"}
    snapshot.publish(shop, later(profiles))
    following.look()
    after = following.look()
    assert after.models.keys() == champions.models.keys()
    assert after.failures == {}
    assert following.counted == [(PROFILES, "loaded"), ("churn", "loaded"), ("lifecycle", "loaded")]
    assert following.look() is after


def test_refused_profiles_are_released(shop, following):
    """The error of the models that do not fit must not keep them."""
    profiles = following.loader.get().customers
    snapshot.publish(shop, replace(profiles, spec=replace(profiles.spec, timezone="Asia/Shanghai")))
    loaded, load = [], snapshot.load_current
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "load_current", lambda *args: loaded.append(load(*args)) or loaded[0])
        gc.disable()
        logging.disable()  # pytest keeps the records, which have the error
        try:
            following.loader._reload(following.source, *next(iter(following.source.moved().items())))
            reference = weakref.ref(loaded.pop())
            assert reference() is None
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()
    assert following.counted == [(PROFILES, "refused")]


def test_the_kept_lists_stay_if_a_model_that_makes_none_moves(shop, following, champions, registering):
    kept = following.loader.get().kept_lists
    registering.register(shop, "churn", champions.models["churn"].bundle)
    before = following.loader.get().models["churn"].version
    after = following.look()
    assert after.models["churn"].version != before  # which one depends on the tests before in this process
    assert after.kept_lists is kept
    assert len(kept) > 100


def test_a_callback_that_fails_ends_neither_the_loading_nor_the_following(shop, caplog):
    def fail() -> None:
        raise OSError("disk full")

    source = WorkspaceSource(shop)
    loader = BackgroundLoader(source.load, fail, source)
    loader._load_all()
    gc.unfreeze()
    assert loader.why_not_ready() is None
    assert "disk full" in caplog.text
    promote(shop, JOB, 2, datetime.now(UTC))
    loader._follow(source)
    gc.unfreeze()
    assert loader.get().models[JOB].version == "2"


def test_a_server_without_models_serves_those_that_are_trained_later(shop, monkeypatch):
    store = shop.mlflow_db.rename(shop.root / "elsewhere.db")
    following = Following(shop, monkeypatch)
    assert following.loader.why_not_ready() is not None
    store.rename(shop.mlflow_db)
    assert following.look().models[JOB].version == "1"
    assert following.loader.why_not_ready() is None


def test_answers_that_are_not_fit_to_be_sent(champions):
    for part in (*champions.models, PROFILES):
        check_answers(champions, part)
    bundle = champions.models[JOB].bundle
    twice = replace(
        champions.models[JOB], bundle=replace(bundle, item_ids=np.repeat(bundle.item_ids[:1], len(bundle.item_ids)))
    )
    with pytest.raises(ArtifactError, match="an item twice"):
        check_answers(replace(champions, models={**champions.models, JOB: twice}), JOB)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_not_fit_to_be_sent(champions, value):
    class NoNumbers:
        def predict_proba(self, values, as_of):
            return np.full((len(values), 2), value)

    churn = champions.models["churn"]
    broken = replace(churn, bundle=replace(churn.bundle, model=NoNumbers()))
    for part in ("churn", PROFILES):
        with pytest.raises(ArtifactError, match="no finite number"):
            check_answers(replace(champions, models={**champions.models, "churn": broken}), part)


@pytest.mark.parametrize(("probability", "reason"), [(None, None), (0.5, "never bought")])
def test_a_row_has_either_a_score_or_a_reason(champions, monkeypatch, probability, reason):
    row = {"churn_probability": probability, "risk_band": None, "no_score_reason": reason}
    monkeypatch.setattr(
        "serving.endpoints.churn.score_rows",
        lambda _champions, _encoded, rows, _moments, explain: [{**row} for _ in rows],
    )
    with pytest.raises(ArtifactError, match="exactly one of"):
        check_answers(champions, "churn")


class Load:
    """Requests to two routes on two threads; an answer has to be of one version of its part."""

    def __init__(self, request, url: str, users: list[str]) -> None:
        self.request, self.url, self.users = request, url, users
        self.answers, self.wrong, self.versions = 0, [], {}
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self):
        threads = [threading.Thread(target=self._ask, args=[path]) for path in ("recommendations", "profile")]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def wait_until(self, path: str, version: str) -> None:
        """Wait until answers of a route state a version that begins like this."""
        deadline = time.monotonic() + 60
        while not self.versions.get(path, "").startswith(version):
            assert time.monotonic() < deadline, (path, version, self.versions)
            time.sleep(0.02)

    def _ask(self, path: str) -> None:
        number = 0
        while not self._ended.is_set():
            status, answer = self.request(f"{self.url}/v1/{path}", {"user_id": self.users[number % len(self.users)]})
            number += 1
            self.answers += 1
            if status != 200:
                self.wrong.append((path, status, answer))
                continue
            version = self.versions[path] = answer["model"]["version"]
            if path == "profile":
                fits = version.startswith("later-") == (answer["as_of"] == "2024-08-02T00:00:00Z")
            else:
                fits = {item["item_id"].endswith(SUFFIX) for item in answer["items"]} == {version == "2"}
            if not fits:
                self.wrong.append((path, status, answer))


def reloads(request, url) -> dict[str, float]:
    """Number of reloads by part and outcome, from /metrics."""
    text = request(url + "/metrics")[1].decode()
    found = re.findall(r'qianmian_reloads_total\{outcome="(\w+)",part="(\w+)"\} (\S+)', text)
    return {f"{part} {outcome}": float(number) for outcome, part, number in found}


@pytest.mark.slow
def test_no_request_fails_and_no_answer_mixes_versions_while_a_server_reloads(
    shop, champions, buyers, request_, registering
):
    now, profiles = datetime.now(UTC), champions.customers
    shop.config_file.write_text("serving: {reload_seconds: 0.2}\n")
    with running(shop) as url, Load(request_, url, buyers[:50]).running() as load:
        load.wait_until("recommendations", "1")
        assert reloads(request_, url) == {}
        promote(shop, JOB, 2, now)
        load.wait_until("recommendations", "2")
        snapshot.publish(shop, later(profiles))
        load.wait_until("profile", "later-")
        rollback(shop, JOB, now + timedelta(seconds=1))
        load.wait_until("recommendations", "1")
        snapshot.publish(shop, profiles)
        load.wait_until("profile", profiles.data_digest)
        promote(shop, JOB, 2, now + timedelta(seconds=2))
        load.wait_until("recommendations", "2")
        assert reloads(request_, url) == {f"{JOB} loaded": 3, f"{PROFILES} loaded": 2}

        registering.register(shop, JOB, without_items(champions.models[JOB].bundle))
        deadline = time.monotonic() + 60
        while (counted := reloads(request_, url)).get(f"{JOB} refused") is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)  # some more looks, at which nothing has moved
        assert reloads(request_, url) == counted == {f"{JOB} loaded": 3, f"{PROFILES} loaded": 2, f"{JOB} refused": 1}
        assert load.versions["recommendations"] == "2"
        assert request_(url + "/readyz")[0] == 200
    assert load.wrong == []
    assert load.answers > 200
