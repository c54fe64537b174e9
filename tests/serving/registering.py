"""Small models registered in an MLflow store in the layout of `training`, without its gate."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles.building import ensure_snapshot
from features.profiles.lifecycle import stages_of_build
from features.profiles.purchase_process.fitting import process_of
from features.profiles.snapshot import Snapshot
from features.training_data import training_set
from models.bundle import ModelBundle
from models.classify.churn import ChurnClassifier
from models.classify.churn_model import ChurnModel
from models.classify.column_encoding import ColumnEncoding
from models.classify.lifecycle import NextStageClassifier
from models.lookalike import LookalikeExpander
from models.recommend.affinity import AffinityRecommender
from models.recommend.fallback import FallbackChain
from models.recommend.scene_models import SceneModels
from models.uplift.regressions import LinearRegressionModel
from models.uplift.uplift_model import Term, UpliftModel
from qianmian.schema import CHAMPION, PREVIOUS, REGISTERED_PREFIX
from qianmian.settings import Settings
from qianmian.workspace import Workspace

STAGES = [
    ("repeat", {"half_life_days": 120.0}),
    ("ials", {"factors": 16, "iterations": 4}),
    ("hybrid", {"factors": 16, "epochs": 3}),
    ("popular", {}),
]


def fit_bundles(
    workspace: Workspace, as_of: datetime, *, min_item_customers: int = 2, horizon: int = 28
) -> dict[str, ModelBundle]:
    """A small bundle per job; labels are taken from the last horizon."""
    builder = Builder(Lake(workspace), FEATURES)
    facts = {"data_digest": builder.lake.digest, "seed": 0, "horizon_days": horizon}
    train = training_set(builder, as_of, min_item_customers=min_item_customers)
    stages = {model.name: model for model in FallbackChain(STAGES).fit(train).submodels}
    scenes = SceneModels(
        {**stages, "affinity": AffinityRecommender().fit(train)}, {"home": list(stages), "discover": list(stages)}
    )
    start = as_of - timedelta(days=horizon)
    builds = {moment: builder.build(moment) for moment in (start, as_of)}
    before, now = (built.matrix() for built in builds.values())
    rows = now.rows_of(before.one_ids)
    active = np.flatnonzero(
        (before.column("orders_total") > 0) & (before.column("days_since_last_order") <= 2 * horizon)
    )
    churned = (now.column("days_since_last_order")[rows[active]] > horizon).astype(int)
    churn = ChurnClassifier(n_estimators=30, folds=3, min_child_weight=1.0).fit(before.values[active], churned)
    today, then = (
        stages_of_build(process_of(builder.views(moment), built.table), built.table) for moment, built in builds.items()
    )
    then = then[rows]
    lifecycle = NextStageClassifier(n_estimators=10).fit(before.values, today, then)
    expander = LookalikeExpander(factors=8).fit(now.values, train.interactions.matrix()[train.user_rows(now.one_ids)])
    return {
        "recommend": ModelBundle(
            "scenes",
            scenes,
            as_of,
            user_ids=train.user_ids,
            item_ids=train.item_ids,
            item_attributes=train.item_attributes,
            facts={**facts, "job": "recommend", "interactions": train.source},
        ),
        "churn": ModelBundle(
            "churn",
            ChurnModel.of_trees(churn),
            as_of,
            before.spec,
            facts={**facts, "job": "churn", "active_days": 2 * horizon},
        ),
        "lifecycle": ModelBundle("lifecycle", lifecycle, as_of, before.spec, facts={**facts, "job": "lifecycle"}),
        "lookalike": ModelBundle(
            "lookalike", expander, as_of, now.spec, user_ids=now.one_ids, facts={**facts, "job": "lookalike"}
        ),
    }


def uplift_bundle(profiles: Snapshot) -> ModelBundle:
    """An uplift that falls with the orders of the last 28 days, for half of the customers below 0."""
    spec = profiles.spec.select(["orders_28d", "days_since_last_order"])
    X = profiles.features.values[:, [profiles.spec.names.index(name) for name in spec.names]]
    rng = np.random.default_rng(0)
    encoding = ColumnEncoding.of(X, (False, False))
    wanted = -X[:, 0].astype(np.float64) + 0.01 * rng.normal(size=len(X))
    regression = LinearRegressionModel.fit(encoding, X, wanted, is_binary=False, seed=0)
    raw = UpliftModel("linear", spec.names, (Term(1.0, regression),), slope=1.0).predict(X)
    model = UpliftModel("linear", spec.names, (Term(1.0, regression),), slope=1.0, middle=float(np.median(raw)))
    facts = {
        "campaign": ["c01"],
        "channel": "push",
        "outcome": "order",
        "horizon_days": 7,
        "effect": {"value": 0.1, "low": 0.05, "high": 0.15},
        "randomised": True,
        "placebo": {"passed": True},
        "policy": [{"budget_share": n / 10, "gain": n, "low": n - 1, "high": n + 1} for n in range(1, 11)],
        "decile_edges": np.quantile(model.predict(X), np.arange(1, 10) / 10).tolist(),
        "shared_accounts": {str(profiles.one_ids[1]): "shared account: a till"},
    }
    return ModelBundle("uplift", model, profiles.as_of, spec, facts=facts)


def register(workspace: Workspace, job: str, bundle: ModelBundle, example: pd.DataFrame | None = None) -> str:
    """Register a version as champion, the former one as `previous`, and store the event as `training` does.

    With an example the version has the code and the signature that `training` registers; without one it is a stub.
    """
    import mlflow
    from mlflow.tracking import MlflowClient

    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    uri = workspace.tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if mlflow.get_experiment_by_name("qianmian") is None:
        mlflow.create_experiment("qianmian", artifact_location=workspace.artifact_root.as_uri())
    mlflow.set_experiment("qianmian")
    name, client = REGISTERED_PREFIX + job, MlflowClient(uri, uri)
    code, signature = Path(__file__).with_name("pyfunc_model.py"), None
    if example is not None:
        from training import pyfunc, signatures

        code, signature = Path(pyfunc.__file__), signatures.signature_of(bundle, example)
    with mlflow.start_run(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        bundle.save(folder)
        mlflow.log_metric("auc", 0.9)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={"bundle": str(folder)},
            signature=signature,
            registered_model_name=name,
            pip_requirements=["numpy"],
        )
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # `set_tracking_uri` sets it, and other workspaces would use it
    version = str(info.registered_model_version)
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)
    at = datetime.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {"action": "register", "version": int(version), "previous": None if before is None else int(before)}
    client.set_registered_model_tag(name, f"qianmian.event.{at}", json.dumps(event))
    return version


def register_all(workspace: Workspace, as_of: datetime, **options: int) -> dict[str, ModelBundle]:
    """A workspace with published profiles, their online state, and one registered version of every model."""
    bundles = fit_bundles(workspace, as_of, **options)
    bundles["uplift"] = uplift_bundle(ensure_snapshot(workspace, as_of, Settings()))
    for job, bundle in bundles.items():
        register(workspace, job, bundle)
    return bundles
