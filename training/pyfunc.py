"""The MLflow face of a bundle: loaded from this code, never unpickled.

MLflow logs this file with the model ("models from code") and runs it to load the model again; `predict` takes and gives tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from features.compute.spec import UserFeatures
from models.bundle import ModelBundle
from models.recommend.scene import DEFAULT_SCENE
from qianmian.errors import DataError


def _recommend(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    users = bundle.user_map.rows(frame["one_id"].to_numpy(dtype=np.str_))
    scenes = list(bundle.model.scenes)
    scene = str(params.get("scene") or (DEFAULT_SCENE if DEFAULT_SCENE in scenes else scenes[0]))
    ranked = bundle.model.scene(scene).recommend(
        users, int(params.get("num_results", 10)), exclude_purchased=bool(params.get("exclude_purchased", False))
    )
    rows, positions = np.nonzero(ranked.ids >= 0)
    return pd.DataFrame(
        {
            "one_id": frame["one_id"].to_numpy()[rows],
            "rank": positions + 1,
            "item_id": bundle.item_ids[ranked.ids[rows, positions]],
            "score": ranked.scores[rows, positions],
            "source": np.asarray(ranked.sources)[ranked.source[rows, positions]],
        }
    )


def _feature_values(bundle: ModelBundle, frame: pd.DataFrame) -> UserFeatures:
    if bundle.spec is None:
        raise DataError("the model carries no feature spec")
    if "one_id" not in frame:
        frame = frame.assign(one_id=[str(i) for i in range(len(frame))])
    return UserFeatures.from_table(
        pa.Table.from_pandas(frame, preserve_index=False), bundle.spec.features, bundle.as_of, bundle.spec
    )


def _churn(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"churn_probability": bundle.model.predict_proba(_feature_values(bundle, frame).values)[:, 1]})


def _lifecycle(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    today = frame["lifecycle_stage"].to_numpy(dtype=np.str_)
    probabilities = bundle.model.predict_proba(_feature_values(bundle, frame).values, today)
    return pd.DataFrame(probabilities, columns=bundle.model.classes_.tolist())


def _lookalike(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    seeds = bundle.user_map.rows(frame["one_id"].to_numpy(dtype=np.str_))
    rows, scores = bundle.model.expand(seeds[seeds >= 0], int(params.get("size", 100)))
    return pd.DataFrame({"one_id": bundle.user_ids[rows], "score": scores})


PREDICT_FUNCTIONS: dict[str, Callable[[ModelBundle, pd.DataFrame, Mapping[str, Any]], pd.DataFrame]] = {
    "scenes": _recommend,
    "churn": _churn,
    "lifecycle": _lifecycle,
    "lookalike": _lookalike,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "scenes": {"num_results": 10, "scene": "", "exclude_purchased": False},
    "lookalike": {"size": 100},
}


def predict_table(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """What the registered model answers to a table.

    Parameters
    ----------
    frame : DataFrame
        `one_id` for recommend, content and lookalike (there: the seed); one column a feature, categories as text, for churn and lifecycle
        (there with today's `lifecycle_stage`, by `features.profiles.lifecycle`).
    """
    return PREDICT_FUNCTIONS[bundle.kind](bundle, frame, params or {})


class BundleModel(PythonModel):
    """Loads ``artifacts/bundle`` and answers tables."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify checksums and load."""
        self.bundle = ModelBundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """See `predict_table`."""
        return predict_table(self.bundle, model_input, params)


set_model(BundleModel())
