"""Scores of all customers by Spark: the registered model as a UDF of MLflow, over the published profiles.

The executors read the profiles, run the model and write the scores. The driver prepares the same plan as scoring on one
machine and sends what it decided (scene, eligible items, moment) as parameters of the model.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.compute.engines.spark_files import file_uri, write_frame
from features.compute.engines.spark_session import LOCAL_MASTER, explain_spark_errors, first_line, start_session
from features.compute.spec import FeatureSpec
from features.profiles.snapshot import current_snapshot_name
from models.classify.risk_bands import bands_of_model
from qianmian.errors import ArtifactError, DataError, UsageError
from qianmian.schema import RISK_BANDS
from qianmian.times import SECONDS_PER_DAY
from qianmian.workspace import Workspace
from serving import model_registry
from serving.champions import Champion, Champions
from serving.predictions import lifecycle
from serving.recommending.batch import ListBlock
from serving.recommending.explain import days_text
from serving.recommending.planned import changed_since_fit
from serving.recommending.rows import DIGITS
from serving.responses import NEVER_BOUGHT
from serving.scoring import churn
from serving.scoring.blocks import BlockScores, WrittenScores
from serving.scoring.predictions import schema_of
from serving.scoring.tables import BLOCK, IDENTITY_COLUMNS, PROVENANCE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

CUSTOMERS_PER_PARTITION = 8 * BLOCK
IDENTITY = [name for name, _ in IDENTITY_COLUMNS]
LISTS = {"item_id": "string", "score": "double", "source": "string", "days_to_next_purchase": "double"}
NOT_ON_SPARK = ("reasons", "previous_stage")  # columns that only one machine writes
TRAIN_AGAIN = "run `qianmian train {}` again, or omit --engine spark"
OTHER_PROMOTIONS = (
    "the planned promotions of the lake have changed since the model was trained, and Spark reads those of the fit: "
    "lists may differ from those without --engine spark. Fix: run `qianmian train recommend`"
)
EPOCH = datetime(1970, 1, 1)
SPARK_TYPES = {"int32": "int", "date32[day]": "date", "timestamp[us]": "timestamp_ntz"}


@dataclass(frozen=True)
class SparkScores:
    """Scores that Spark computes with a registered model.

    Attributes
    ----------
    champion : Champion
        The model.
    as_of : datetime
        Moment of the scores.
    columns : tuple of str
        Columns of the file.
    order : tuple of str
        Columns that its rows are sorted by.
    params : mapping of str to object
        Parameters of the registered model.
    result_type : str
        What the model returns for a customer, as a Spark type.
    inputs : mapping of str to object
        Columns of the profiles or tags that the model and the conditions read → value where they are null.
    frame : callable
        Makes the rows from the customers (identity columns and `inputs`) and the column of what the model returns.
    one_row_each : bool
        Whether each customer has one row; otherwise the rows of a customer are numbered in the column `rank`.
    warnings : tuple of str
        What may differ from the scores of one machine.
    """

    champion: Champion
    as_of: datetime
    columns: tuple[str, ...]
    order: tuple[str, ...]
    params: Mapping[str, Any]
    result_type: str
    inputs: Mapping[str, Any]
    frame: Callable[[DataFrame, Column], DataFrame]
    one_row_each: bool = True
    warnings: tuple[str, ...] = ()


def recommend_on_spark(scores: BlockScores) -> SparkScores:
    """Prepare the lists that `score_recommend` has prepared for blocks.

    Raises
    ------
    UsageError
        If an option needs more than the registered model: re-ranking, candidates of each customer, only items
        purchased before, or a later moment.
    """
    block = scores.block
    assert isinstance(block, ListBlock)
    plan = block.plan
    champion, options = plan.champion, plan.rerank_options
    refused = {
        "--max-per and --mmr": bool(options.caps) or options.mmr is not None,
        "--promotions": bool(options.promotions),
        "--exploration": options.exploration is not None,
        "--purchased only": plan.purchased == "only",
        "--candidates with a column user_id": plan.candidates is not None,
        f"--as-of {block.moment:%Y-%m-%d}": block.moment != champion.bundle.as_of,
    }
    if named := [name for name, given in refused.items() if given]:
        raise UsageError(
            "Spark runs the registered model, which does not have this option",
            where="--engine spark",
            got=", ".join(named),
            hint="omit the option, train at the date, or omit --engine spark",
        )
    items = "" if plan.allowed is None else json.dumps(champion.bundle.item_ids[plan.allowed].tolist())
    params = {
        "num_results": block.num_results,
        "scene": plan.scene.name,
        "exclude_purchased": plan.purchased == "never",
        "items": items,
        "one_row_per_customer": True,
    }
    since_epoch = int((champion.bundle.as_of - EPOCH).total_seconds())

    def frame(customers: DataFrame, model: Column) -> DataFrame:
        from pyspark.sql import functions as f

        lists = customers.select(*IDENTITY, model.alias("lists"))
        zipped = f.arrays_zip(*(f.col(f"lists.{name}") for name in LISTS))
        rows = lists.select(*IDENTITY, f.posexplode(zipped).alias("position", "item"))
        days = f.col("item.days_to_next_purchase")
        moment = f.timestamp_seconds(f.lit(since_epoch) + f.floor(days * SECONDS_PER_DAY))
        return rows.select(
            *IDENTITY,
            (f.col("position") + 1).alias("rank"),
            f.col("item.item_id").alias("item_id"),
            f.round("item.score", DIGITS).alias("score"),
            f.col("item.source").alias("source"),
            f.when(~f.isnan(days), moment).alias("expected_on"),
        )

    return SparkScores(
        champion,
        block.moment,
        tuple(scores.schema.names),
        ("one_id", "rank"),
        params,
        ", ".join(f"{name} array<{kind}>" for name, kind in LISTS.items()),
        {},
        frame,
        one_row_each=False,
        warnings=(OTHER_PROMOTIONS,) if changed_since_fit(champion.bundle, champion.promotions) else (),
    )


def churn_on_spark(champions: Champions) -> SparkScores:
    """Prepare churn scores as of the published profiles; the reasons of the scores are left out."""
    champion, as_of = champions.require(churn.JOB), champions.customers.as_of
    facts, spec, profiles = champion.bundle.facts, _spec(champion), champions.customers.spec
    active_days, shared = facts.get("active_days"), dict(facts.get("shared_accounts", {}))
    bands = bands_of_model(facts, champions.settings.churn.risk_bands)
    read = [name for name in ("days_since_last_order", "orders_total") if name in profiles.names]

    def frame(customers: DataFrame, model: Column) -> DataFrame:
        from pyspark.sql import functions as f

        why_not = f.lit(None).cast("string")
        if active_days is not None:  # the conditions in reverse order: the last one that holds gives the reason
            inactive = f.lit(f"no purchase in the last {days_text(active_days)}")
            days = f.col("days_since_last_order")
            why_not = f.when((days > active_days) & ~f.isnan(days.cast("double")), inactive).otherwise(why_not)
        if "orders_total" in read:
            why_not = f.when(f.col("orders_total") <= 0, f.lit(NEVER_BOUGHT)).otherwise(why_not)
        if shared:
            known = f.create_map(*(f.lit(text) for pair in shared.items() for text in pair))
            why_not = f.coalesce(f.element_at(known, f.col("one_id")), why_not)
        probability = f.when(f.col("no_score_reason").isNull(), f.col("probability"))
        band = f.when(probability < bands.medium_from, RISK_BANDS[0]).when(probability < bands.high_from, RISK_BANDS[1])
        return customers.select(*IDENTITY, why_not.alias("no_score_reason"), model.alias("probability")).select(
            *IDENTITY,
            f.round(probability, DIGITS).alias("churn_probability"),
            f.when(probability.isNotNull(), band.otherwise(RISK_BANDS[2])).alias("risk_band"),
            "no_score_reason",
        )

    columns = tuple(name for name in churn.CHURN.names if name not in NOT_ON_SPARK)
    inputs = {**_defaults(profiles, read), **_defaults(spec, spec.names)}
    return SparkScores(champion, as_of, columns, ("one_id",), {"as_of": as_of.isoformat()}, "double", inputs, frame)


def predictions_on_spark(champions: Champions) -> SparkScores:
    """Prepare the prediction `lifecycle` as of the published profiles; Spark makes no other."""
    champion, profiles = champions.require(lifecycle.JOB), champions.customers.spec
    spec, names = _spec(champion), champion.bundle.model.classes_.tolist()
    lifecycle.check_stages(champions)
    read = [name for name in ("orders_total", "gap_days_mean", "order_value_mean") if name in profiles.names]

    def frame(customers: DataFrame, model: Column) -> DataFrame:
        from pyspark.sql import functions as f

        stage, orders = f.col(lifecycle.STAGE_TAG), f.col("orders_total")
        bought = stage != lifecycle.PROSPECT
        stages = f.struct(*(f.round(f.col(f"next.{name}"), DIGITS).alias(name) for name in names))
        value = _average("order_value_mean") if "order_value_mean" in read else f.lit(None).cast("double")
        return customers.withColumn("next", model).select(
            *IDENTITY,
            stage.alias("lifecycle_stage"),
            f.when(bought, stages).alias("next_stage"),
            f.when(orders > 1, _average("gap_days_mean")).alias("average_days_between_orders"),
            f.when(orders > 0, value).alias("average_order_value"),
            f.when(~bought, f.lit(NEVER_BOUGHT)).alias("no_score_reason"),
        )

    made = schema_of(champions, [lifecycle.PREDICTION]).names
    columns = tuple(name for name in made if name not in NOT_ON_SPARK)
    inputs = {**_defaults(profiles, read), **_defaults(spec, spec.names), lifecycle.STAGE_TAG: ""}
    return SparkScores(
        champion,
        champions.customers.as_of,
        columns,
        ("one_id",),
        {},
        ", ".join(f"`{name}` double" for name in names),
        inputs,
        frame,
    )


def write_on_spark(workspace: Workspace, scores: SparkScores, out: Path, master: str | None = None) -> WrittenScores:
    """Compute scores on Spark and write them.

    Parameters
    ----------
    workspace : Workspace
        Workspace with the published profiles and the model; its folder is at the same path on every executor.
    scores : SparkScores
    out : Path
        File or folder, see `features.compute.engines.spark_files.write_frame`.
    master : str, optional
        Master URL of Spark; default: this machine.

    Raises
    ------
    UsageError
        If PySpark or Java is not installed, or the master does not respond.
    ArtifactError
        If the registered model cannot be read, or was registered by a version that had no parameters for Spark.
    WorkspaceError
        If Spark fails; nothing is written.
    """
    from mlflow.pyfunc import spark_udf

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it advises another environment for every UDF
    champion = scores.champion
    profiles = workspace.online / str(current_snapshot_name(workspace))
    with (
        tempfile.TemporaryDirectory(prefix="qianmian-spark-") as scratch,
        model_registry.bundle_folder(workspace, champion.name, champion.version) as bundle,
    ):
        session, started = start_session(master or LOCAL_MASTER, scratch, {})
        from pyspark.sql import functions

        model = bundle.parents[1]
        try:
            session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", BLOCK)
            with explain_spark_errors(out, "score the customers"), _explain_model_errors(champion):
                types = _input_types(champion, model, scores.params)
                udf = spark_udf(
                    session,
                    str(model),
                    result_type=scores.result_type,
                    env_manager="local",
                    params=dict(scores.params) or None,
                )
                customers = _customers(session, profiles, scores.inputs, types)
                return _write(scores.frame(customers, udf(functions.struct(*types))), scores, out)
        finally:
            if started:
                session.stop()


def _customers(
    session: SparkSession, folder: Path, inputs: Mapping[str, Any], types: Mapping[str, DataType]
) -> DataFrame:
    """The identity columns of the profiles and the inputs, in these types and nulls replaced; a row per customer."""
    from pyspark.sql import functions as f

    customers = session.read.parquet(file_uri(folder / "profiles.parquet", pattern=True))
    partitions = max(session.sparkContext.defaultParallelism, math.ceil(customers.count() / CUSTOMERS_PER_PARTITION))
    tags = session.read.parquet(file_uri(folder / "tags.parquet", pattern=True))
    if of_tags := [name for name in inputs if name not in customers.columns and name in tags.columns]:
        customers = customers.join(tags.select("one_id", *of_tags), "one_id")
    columns = []
    for name, default in inputs.items():
        column = f.coalesce(f.col(name), f.lit(default)) if name in customers.columns else f.lit(default)
        columns.append((column.cast(types[name]) if name in types else column).alias(name))
    return customers.select(*IDENTITY, *columns).repartition(partitions)


def _write(frame: DataFrame, scores: SparkScores, out: Path) -> WrittenScores:
    """Write the columns of the scores in their types, and count the rows."""
    from pyspark.sql import functions as f

    (as_of, kind), (version, _) = PROVENANCE
    moment = f.lit(scores.as_of.isoformat()).cast(SPARK_TYPES[str(kind)])
    rows = frame.withColumns({as_of: moment, version: f.lit(scores.champion.version)})
    if "rank" in rows.columns:
        rows = rows.withColumn("rank", f.col("rank").cast("int"))
    if "expected_on" in rows.columns:
        rows = rows.withColumn("expected_on", f.col("expected_on").cast("date"))
    rows = rows.select(*scores.columns)
    if out.suffix == ".csv":
        nested = [field.name for field in rows.schema if field.dataType.typeName() == "struct"]
        rows = rows.withColumns({name: f.to_json(name, {"ignoreNullFields": "false"}) for name in nested})
    customers = f.count(f.lit(1)) if scores.one_row_each else f.count(f.when(f.col("rank") == 1, 1))
    found = write_frame(rows, out, scores.order, {"rows": f.count(f.lit(1)), "customers": customers})
    if not found["rows"]:
        raise DataError("no customer gets a score", where=str(out), hint="run `qianmian features`, or allow more items")
    return WrittenScores(found["rows"], found["customers"], scores.columns, scores.as_of)


def _average(name: str) -> Column:
    """A feature as on one machine: a 32-bit number, rounded."""
    from pyspark.sql import functions as f

    return f.round(f.col(name).cast("float").cast("double"), 4)


def _spec(champion: Champion) -> FeatureSpec:
    spec = champion.bundle.spec
    if spec is None:
        raise ArtifactError(
            "the model has no feature spec", where=champion.name, hint=f"run `qianmian train {champion.job}`"
        )
    return spec


def _defaults(spec: FeatureSpec, names: Sequence[str]) -> dict[str, Any]:
    return {feature.name: feature.default for feature in spec.features if feature.name in names}


@contextmanager
def _explain_model_errors(champion: Champion) -> Iterator[None]:
    """Turn errors of MLflow about a registered model into an `ArtifactError`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ArtifactError(
            "MLflow cannot read the registered model",
            where=f"{champion.name} version {champion.version}",
            got=first_line(error),
            hint=TRAIN_AGAIN.format(champion.job),
        ) from error


def _input_types(champion: Champion, model: Path, params: Mapping[str, Any]) -> dict[str, DataType]:
    """Types of the columns that the registered model reads, from its signature.

    Raises
    ------
    ArtifactError
        If the registered code does not know the parameters, which MLflow would ignore.
    """
    from mlflow.models import Model

    found: Any = Model.load(str(model))
    known = {param.name for param in getattr(found.get_params_schema(), "params", ())}
    if missing := sorted(set(params) - known):
        raise ArtifactError(
            "this version of the model was registered without the parameters that Spark needs",
            where=f"{champion.name} version {champion.version}",
            got=f"no {', '.join(missing)}",
            hint=TRAIN_AGAIN.format(champion.job),
        )
    from mlflow.types import DataType as DeclaredType
    from pyspark.sql.types import DoubleType, StringType

    spec = champion.bundle.spec
    numbers = {feature.name for feature in spec.features if not feature.categorical} if spec is not None else set()
    types: dict[str, DataType] = {}
    for column in found.get_input_schema().inputs:
        if isinstance(column.type, DeclaredType):  # as in all versions of earlier trainings
            types[column.name] = column.type.to_spark()  # type: ignore[no-untyped-call]
        else:
            types[column.name] = DoubleType() if column.name in numbers else StringType()
    return types
