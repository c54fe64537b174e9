"""The signature of a registered model, made from what the model declares, and an input example that shows no customer.

MLflow refuses an int64 column where the signature says double (it converts at most 32 bits), and a column of codes, or
an empty one, where it says string. pandas reads both from any CSV file. The columns are therefore of MLflow's type
`any`, the model converts them (`models.model_inputs`) and refuses a text where it needs a number, and the metadata of
the model name the kind of each column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.bundle import ModelBundle

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

BY_CUSTOMER = ("scenes", "lookalike", "contact")  # kinds of models that are given ids, and no features
STAGE = "lifecycle_stage"
DIGITS = 3  # of the numbers of the input example
SHARED_BY = 2  # rows that have a category, or a number other than 0, for the input example to show one


def input_columns(bundle: ModelBundle) -> dict[str, str]:
    """Return the columns that a model reads and their kinds: number, category, date or id."""
    if bundle.kind in BY_CUSTOMER:
        return {"one_id": "id"}
    if bundle.spec is None:  # a model of a table
        return {column.name: column.kind for column in bundle.model.columns}
    columns = {feature.name: "category" if feature.categorical else "number" for feature in bundle.spec.features}
    return {**columns, STAGE: "category"} if bundle.kind == "lifecycle" else columns


def signature_of(bundle: ModelBundle, rows: pd.DataFrame) -> ModelSignature:
    """Return the signature of a model: features are optional; ids, the stage and the columns of a table are required.

    Parameters
    ----------
    bundle : ModelBundle
    rows : DataFrame
        A few input rows, whose predictions show the columns of the output.
    """
    from mlflow.models import ModelSignature, infer_signature

    from training import pyfunc

    parameters = pyfunc.PARAMETERS.get(bundle.kind)
    output = pyfunc.predict_table(bundle, rows, parameters)
    inferred = infer_signature(None, output, parameters)
    return ModelSignature(_inputs(bundle), inferred.outputs, inferred.params)


def _inputs(bundle: ModelBundle) -> Any:
    """The columns of the input as MLflow's schema."""
    from mlflow.types.schema import AnyType, ColSpec, Schema

    any_type: Any = AnyType  # MLflow has no annotations for it
    features = set(bundle.spec.names if bundle.spec is not None and bundle.kind not in BY_CUSTOMER else ())
    return Schema(
        [
            ColSpec(any_type(), name, required=False)
            if name in features
            else ColSpec("string" if name in ("one_id", STAGE) else any_type(), name)
            for name in input_columns(bundle)
        ]
    )


def input_example(bundle: ModelBundle, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return an input row of nobody: the rounded mean of each number, and a category that two of the rows share.

    Nothing in it is of a single customer, so an erasure has nothing to look for. None for a model that is given ids.

    Parameters
    ----------
    bundle : ModelBundle
    rows : DataFrame
        A few input rows.
    """
    if bundle.kind in BY_CUSTOMER:
        return None
    columns = input_columns(bundle)
    return pd.DataFrame({name: [_typical(rows[name], kind)] for name, kind in columns.items()}).astype(
        {name: object for name, kind in columns.items() if kind != "number"}
    )


def _typical(values: pd.Series[Any], kind: str) -> Any:
    known = values.dropna()
    if kind == "number":
        numbers = pd.to_numeric(known, errors="coerce").dropna().to_numpy(dtype=np.float64)
        if len(numbers) < SHARED_BY:
            return np.nan
        if np.count_nonzero(numbers) < SHARED_BY:  # the mean would tell the number of one customer
            return 0.0
        whole = bool((numbers == np.round(numbers)).all())
        return float(np.round(numbers.mean()) if whole else f"{numbers.mean():.{DIGITS}g}")
    counts = known.astype(str).value_counts(sort=True)
    return str(counts.index[0]) if len(counts) and counts.iloc[0] >= SHARED_BY else None
