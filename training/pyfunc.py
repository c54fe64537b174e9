"""The MLflow flavour of a bundle: the model is loaded by this code and never unpickled.

MLflow logs this file with the model ("models from code") and runs it to load the model, so importing this module has a
side effect. `predict` takes a table and returns a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from features.compute.spec import UserFeatures
from features.snapshot_table import as_texts
from models.bundle import ModelBundle
from models.model_inputs import as_spec_columns
from models.recommend.base import Recommender
from models.recommend.scene import DEFAULT_SCENE
from qianmian.errors import DataError


def _customers(bundle: ModelBundle, frame: pd.DataFrame, *, whole_call: bool = True) -> NDArray[np.int64]:
    """Row of each customer in the model, −1 if unknown.

    Parameters
    ----------
    whole_call : bool
        Whether the frame is a whole call. Spark sends a call in parts, of which one may have new customers only.

    Raises
    ------
    DataError
        The model knows none of them: most likely these are the ids of a source, or of another workspace.
    """
    one_ids = frame["one_id"].to_numpy(dtype=np.str_)
    rows = bundle.user_map.rows(one_ids)
    if whole_call and len(rows) and (rows < 0).all():
        raise DataError(
            "the model knows none of these customers",
            where="column one_id",
            got=", ".join(one_ids[:3].tolist()) + (", …" if len(one_ids) > 3 else ""),
            allowed=f"the one_id of at least one of the {len(bundle.user_ids):,} customers of its training",
            hint="take one_id from the profiles (`qianmian features --out FILE`); it is not the id of the source",
        )
    return rows


def _recommend(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    users = _customers(bundle, frame, whole_call=not params.get("one_row_per_customer", False))
    scenes = list(bundle.model.scenes)
    scene = str(params.get("scene") or (DEFAULT_SCENE if DEFAULT_SCENE in scenes else scenes[0]))
    model = bundle.model.scene(scene)
    ranked = model.recommend(
        users,
        int(params.get("num_results", 10)),
        allowed=_allowed(bundle, str(params.get("items") or "")),
        exclude_purchased=bool(params.get("exclude_purchased", False)),
    )
    rows, positions = np.nonzero(ranked.ids >= 0)
    items = ranked.ids[rows, positions]
    columns = {
        "item_id": bundle.item_ids[items],
        "score": ranked.scores[rows, positions],
        "source": np.asarray(ranked.sources)[ranked.source[rows, positions]],
    }
    if not params.get("one_row_per_customer", False):
        return pd.DataFrame({"one_id": frame["one_id"].to_numpy()[rows], "rank": positions + 1, **columns})
    columns["days_to_next_purchase"] = _days_to_next_purchase(model, users[rows], items)
    ends = np.cumsum(np.bincount(rows, minlength=len(frame)))[:-1]
    lists = {name: pd.Series(np.split(values, ends)[: len(frame)], dtype=object) for name, values in columns.items()}
    return pd.DataFrame({"one_id": frame["one_id"].to_numpy(), **lists})


def _allowed(bundle: ModelBundle, items: str) -> NDArray[np.bool_] | None:
    """Items of a JSON list of ids as a mask, None if there is no list."""
    if not items:
        return None
    columns = bundle.item_map.rows(json.loads(items))
    allowed = np.zeros(len(bundle.item_ids), dtype=bool)
    allowed[columns[columns >= 0]] = True
    return allowed


def _days_to_next_purchase(
    model: Recommender, users: NDArray[np.int64], items: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Days from the cutoff to the expected next purchase of each customer and item, NaN if unknown."""
    days, known = np.full(len(users), np.nan), users >= 0
    supporting = next((submodel for submodel in model.with_submodels() if submodel.supports_expected_days), None)
    if supporting is not None and known.any():
        days[known] = supporting.expected_days(users[known], items[known])
    return days


def _feature_values(bundle: ModelBundle, frame: pd.DataFrame) -> UserFeatures:
    if bundle.spec is None:
        raise DataError("the model has no feature spec")
    table = as_spec_columns(_as_table(frame), bundle.spec)
    rows = pa.array([str(row) for row in range(len(frame))])  # nothing reads whose rows these are
    return UserFeatures.from_table(table.append_column("one_id", rows), bundle.spec.features, bundle.as_of, bundle.spec)


def _as_table(frame: pd.DataFrame) -> pa.Table:
    """The frame for Arrow, whose columns have one type: values of several types become texts."""
    columns = {}
    for name, values in frame.items():
        try:
            columns[str(name)] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[str(name)] = pa.array([None if pd.isna(value) else str(value) for value in values], pa.string())
    return pa.table(columns)


def _churn(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    as_of = datetime.fromisoformat(params["as_of"]) if params.get("as_of") else None
    probabilities = bundle.model.predict_proba(_feature_values(bundle, frame).values, as_of)
    return pd.DataFrame({"churn_probability": probabilities[:, 1]})


def _left(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    values = _feature_values(bundle, frame).values
    days = bundle.model.window_days(values)
    probabilities = bundle.model.predict_proba(values)[:, 1]
    in_scope = days <= bundle.facts["longest_days"]
    return pd.DataFrame({"left_probability": np.where(in_scope, probabilities, np.nan), "left_days": days})


def _lifecycle(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    today = frame["lifecycle_stage"].to_numpy(dtype=np.str_)
    probabilities = bundle.model.predict_proba(_feature_values(bundle, frame).values, today)
    return pd.DataFrame(probabilities, columns=bundle.model.classes_.tolist())


def _value(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    found = bundle.model.predict(_feature_values(bundle, frame).values)
    columns = {
        "predicted_number_of_orders": found.orders,
        "predicted_number_of_orders_low": found.orders_low,
        "predicted_number_of_orders_high": found.orders_high,
        "predicted_clv": found.money,
        "predicted_clv_low": found.money_low,
        "predicted_clv_high": found.money_high,
        "purchase_probability": found.purchase_probability,
    }
    return pd.DataFrame({name: values for name, values in columns.items() if values is not None})


def _propensity(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    probabilities = bundle.model.predict_proba(_feature_values(bundle, frame).values)
    return pd.DataFrame(probabilities, columns=list(bundle.model.targets))


def _uplift(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"uplift": bundle.model.predict(_feature_values(bundle, frame).values)})


def _uplift_table(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    model = bundle.model
    X = model.encode(as_texts(_as_table(frame)))
    return pd.DataFrame({"uplift": model.predict(X)})


def _classify(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    model = bundle.model
    X = model.encode(as_texts(_as_table(frame)))
    return pd.DataFrame({"probability": model.predict_proba(X)[:, 1]})


def _lookalike(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    seeds = _customers(bundle, frame)
    rows, scores = bundle.model.expand(seeds[seeds >= 0], int(params.get("size", 100)))
    return pd.DataFrame({"one_id": bundle.user_ids[rows], "score": scores})


def _demand(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    probabilities = bundle.model.predict_proba(_feature_values(bundle, frame).values)
    return pd.DataFrame(probabilities, columns=list(bundle.model.classes_))


def _contact(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    one_ids = frame["one_id"].to_numpy(dtype=np.str_)
    found = bundle.model.predict(_customers(bundle, frame))
    times = [time or {} for time in bundle.model.best_times(found)]
    channels = [ranked[0] if ranked else {} for ranked in bundle.model.ranked_channels(found)]
    columns = {f"best_{name}": [time.get(name) for time in times] for name in ("day", "slot")}
    columns |= {"time_basis": [time.get("basis") for time in times]}
    columns |= {"best_channel": [channel.get("channel") for channel in channels]}
    return pd.DataFrame({"one_id": one_ids, **columns})


def _clusters(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    values = _feature_values(bundle, frame).values
    found, model = bundle.model.predict(values), bundle.model
    has_evidence = model.has_evidence(values)
    texts = {"behaviour_cluster": model.ids, "cluster_name": model.names, "cluster_name_zh": model.names_zh}
    columns = {name: np.where(has_evidence, np.asarray(text)[found.cluster], "") for name, text in texts.items()}
    return pd.DataFrame({**columns, "typicality": np.where(has_evidence, found.typicality, np.nan)})


PREDICT_FUNCTIONS: dict[str, Callable[[ModelBundle, pd.DataFrame, Mapping[str, Any]], pd.DataFrame]] = {
    "scenes": _recommend,
    "churn": _churn,
    "left": _left,
    "lifecycle": _lifecycle,
    "lookalike": _lookalike,
    "value": _value,
    "contact": _contact,
    "demand": _demand,
    "propensity": _propensity,
    "uplift": _uplift,
    "uplift_table": _uplift_table,
    "classify": _classify,
    "clusters": _clusters,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "scenes": {
        "num_results": 10,
        "scene": "",
        "exclude_purchased": False,
        "items": "",  # JSON list of ids: only these items
        "one_row_per_customer": False,  # lists instead of a row per item, as a Spark UDF needs
    },
    "churn": {"as_of": ""},  # moment of the features, ISO 8601; default: the cutoff of the model
    "lookalike": {"size": 100},
}


def predict_table(bundle: ModelBundle, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Predictions of the registered model for an input table.

    Parameters
    ----------
    bundle : ModelBundle
    frame : DataFrame
        For recommend, content and contact: column `one_id`. For lookalike: column `one_id` with the seed customers. For
        classify and uplift_table: the columns of the table. For the others: the features by name, each optional, and
        further columns are ignored (`models.model_inputs`); for lifecycle also the current `lifecycle_stage`
        (`features.profiles.lifecycle`).
    params : mapping, optional
        Of `PARAMETERS`.

    Returns
    -------
    DataFrame
        Ranked items (`one_id`, `rank`, `item_id`, `score`, `source`), customers with scores, or probabilities or values
        in the order of the rows of `frame`. With `one_row_per_customer` a row per customer: `one_id`, and the lists
        `item_id`, `score`, `source` and `days_to_next_purchase` (NaN if unknown).

    Raises
    ------
    DataError
        The model knows none of the customers, or the table has none of the columns of the model.
    """
    return PREDICT_FUNCTIONS[bundle.kind](bundle, frame, params or {})


class BundleModel(PythonModel):
    """MLflow model that loads the bundle of ``artifacts/bundle`` and predicts tables with it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the checksums of the bundle and load it."""
        self.bundle = ModelBundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predictions for a table; see `predict_table`."""
        return predict_table(self.bundle, model_input, params)


set_model(BundleModel())
