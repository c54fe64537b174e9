"""Bundles: what goes in comes out, and what is not as it was written is refused before any of it is used."""

from __future__ import annotations

import json
import pickle
from datetime import datetime

import numpy as np
import pytest

from features.compute.algebra import Condition, Feature
from features.compute.spec import FeatureSpec
from models.bundle import FORMAT_VERSION, ModelBundle, library_versions, verify
from models.classify.churn import ChurnClassifier
from models.classify.churn_model import ChurnModel
from models.classify.lifecycle import NextStageClassifier
from models.kinds import model_class
from models.lookalike import LookalikeExpander
from models.persist import checksum, load_arrays, save_arrays
from models.recommend.fallback import FallbackChain
from qianmian.errors import ArtifactError

AS_OF = datetime(2024, 6, 1, 12, 30)
SPEC = FeatureSpec(
    (
        Feature(
            "carts_28d",
            "events",
            "count",
            where=(Condition("event_type", "in", ("cart", "view")),),
            window_days=28,
            description="d",
        ),
        Feature("top_channel", "orders", "top", "channel", default="", description="d"),
    ),
    ((), ("应用", "web")),
)


@pytest.fixture(scope="module")
def bundles(shop):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    stages = np.array(["active", "lost"])
    chain = FallbackChain(
        [
            ("repeat", {}),
            ("ials", {"factors": 4, "iterations": 2}),
            ("hybrid", {"factors": 4, "epochs": 1}),
            ("popular", {}),
        ]
    )
    facts = {"job": "x", "seed": 0, "data_digest": "d", "horizon_days": 28}
    return {
        "chain": ModelBundle(
            "chain", chain.fit(shop), AS_OF, None, shop.user_ids, shop.item_ids, shop.item_attributes, {"a": [1]}, facts
        ),
        "churn": ModelBundle(
            "churn", ChurnModel.of_trees(ChurnClassifier(n_estimators=5, folds=2).fit(X, y)), AS_OF, SPEC, facts=facts
        ),
        "lifecycle": ModelBundle(
            "lifecycle", NextStageClassifier(n_estimators=5).fit(X, stages[y], stages[1 - y]), AS_OF, SPEC, facts=facts
        ),
        "lookalike": ModelBundle(
            "lookalike", LookalikeExpander(factors=2).fit(X), AS_OF, SPEC, user_ids=np.array(["张", "b"])
        ),
    }


@pytest.fixture
def saved(bundles, tmp_path):
    folder = tmp_path / "the bundle"
    bundles["chain"].save(folder)
    return folder


@pytest.mark.parametrize("kind", ["chain", "churn", "lifecycle", "lookalike"])
def test_round_trip(bundles, kind, tmp_path):
    bundle = bundles[kind]
    bundle.save(tmp_path / "b")
    loaded = ModelBundle.load(tmp_path / "b")
    assert (loaded.kind, loaded.as_of, loaded.spec, loaded.config, loaded.facts) == (
        kind,
        AS_OF,
        bundle.spec,
        bundle.config,
        bundle.facts,
    )
    assert type(loaded.model) is model_class(kind)
    np.testing.assert_array_equal(loaded.user_ids, bundle.user_ids)
    np.testing.assert_array_equal(loaded.item_ids, bundle.item_ids)
    assert loaded.item_attributes.keys() == bundle.item_attributes.keys()
    for name, values in bundle.item_attributes.items():
        np.testing.assert_array_equal(loaded.item_attributes[name], values)
    if kind == "chain":
        np.testing.assert_array_equal(
            loaded.model.recommend([0, -1], 9).scores, bundle.model.recommend([0, -1], 9).scores
        )
    loaded.save(tmp_path / "again")
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("b", "again"))
    assert first["files"].keys() == second["files"].keys()
    for name in first["files"]:
        if not name.endswith(".npz"):  # a zip carries the time it was made
            assert first["files"][name] == second["files"][name], name


def test_manifest_says_what_it_is(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["format"] == FORMAT_VERSION
    assert manifest["facts"]["data_digest"] == "d"
    assert manifest["libraries"].keys() >= {"numpy", "implicit", "rectools-lightfm"}
    on_disk = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == on_disk
    assert all(checksum(saved / name) == value for name, value in manifest["files"].items())
    assert verify(saved) == manifest


def refused(folder, match=""):
    with pytest.raises(ArtifactError, match=match) as caught:
        ModelBundle.load(folder)
    assert caught.value.hint
    assert caught.value.where


FILES = [
    "ids.npz",
    "model/params.json",
    "model/state.npz",
    "model/2_hybrid/state.npz",
    "model/3_popular/params.json",
    "items.npz",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["one byte", "truncated", "empty", "missing", "a folder"])
def test_a_harmed_file_is_refused(saved, name, harm):
    path = saved / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "one byte":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "empty":
        path.touch()
    elif harm == "a folder":
        path.mkdir()
    refused(saved, {"missing": "missing", "a folder": "missing"}.get(harm, "checksum"))


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"{}", b'{"format": 1}'])
def test_a_harmed_manifest_is_refused(saved, content):
    manifest = saved / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    refused(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 99),
        ("format", None),
        ("kind", "no such model"),
        ("as_of", "yesterday"),
        ("files", {}),
        ("files", None),
        ("spec_hash", "claims a spec"),
        ("facts", None),
    ],
)
def test_a_manifest_that_says_something_else(saved, key, value):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest[key] = value
    if value is None:
        del manifest[key]
    (saved / "manifest.json").write_text(json.dumps(manifest))
    refused(saved)


def test_a_missing_bundle(tmp_path):
    refused(tmp_path / "nothing here", "cannot be read")


def test_another_spec_than_the_one_it_was_trained_on(bundles, tmp_path):
    """Somebody edits the spec and mends the checksum: the hash of its meaning still tells."""
    bundles["churn"].save(tmp_path)
    spec = json.loads((tmp_path / "spec.json").read_text())
    spec["columns"][0]["window_days"] = 91
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["spec.json"] = checksum(tmp_path / "spec.json")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    refused(tmp_path, "spec differs from the one")


class Bomb:
    """Unpickling it is an error nobody can miss."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "state.npz"
    np.savez(path, bomb=np.array([Bomb()], dtype=object))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_arrays(path)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_arrays(tmp_path / "plain.npz")


def test_object_arrays_are_not_written(tmp_path):
    with pytest.raises(TypeError, match="Python objects"):
        save_arrays(tmp_path / "x.npz", {"a": np.array(["a", None], dtype=object)})
    assert not list(tmp_path.iterdir())


def test_library_versions_are_those_installed():
    import xgboost

    found = library_versions()
    assert found["numpy"] == np.__version__
    assert xgboost.__version__ in (found.get("xgboost"), found.get("xgboost-cpu"))
