"""Small synthetic shops, and one whose models are trained once for all tests."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from features.data.identity import resolve
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.shared import made_once, own_copy
from tests.training.personal_data import plant
from training import train
from training.tracking import tracking_at

CLOCK = partial(datetime, 2025, 1, 1, 12, 0)
SETTINGS = Settings.model_validate(
    {
        "recommend": {
            "half_life_days": [30, 120],
            "min_item_customers": 2,
            "models": {
                "ials": {"factors": 8, "iterations": 2},
                "hybrid": {"factors": 8, "epochs": 1},
                "two_stage": {"rounds": 30, "cuts": 1},
            },
        },
        "left": {"min_days": 28, "multiple": 2.0},
        "lookalike": {"factors": 8},
        "propensity": {"targets": ["category=grocery"]},
    }
)


@pytest.fixture(autouse=True, scope="session")
def isolated_environment() -> Iterator[None]:
    """Use the store of the workspace only, and fewer bootstrap samples, which take nine tenths of `train churn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.bootstrap.STATISTIC_RESAMPLES", 50)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        yield


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Workspace:
    """560 customers and 150 days, without models: with a horizon of 28 days there are four snapshot dates."""
    return shop_of(tmp_path_factory, "a shop", customers=560, days=150)


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory) -> Workspace:
    """60 customers and 90 days: enough for `recommend` only."""
    return shop_of(tmp_path_factory, "a small shop", customers=60, days=90)


def shop_of(factory: pytest.TempPathFactory, name: str, **size: int) -> Workspace:
    """A copy for this process, because a training locks its workspace."""

    def make(folder: Path) -> None:
        ingest(Workspace(folder / "work space"), SOURCES["synthetic"](**size, seed=3), Settings())

    folder, _ = made_once(factory, name, make)
    return own_copy(Workspace(folder / "work space"), factory.mktemp(name) / "work space")


@pytest.fixture(scope="session")
def copy_workspace(tmp_path_factory) -> Callable[..., Workspace]:
    """Create a workspace with a copy of the lake, in which some tables are replaced by queries over the old ones."""

    def copy(workspace: Workspace, queries: Mapping[str, str] | None = None) -> Workspace:
        other = Workspace(tmp_path_factory.mktemp("another shop") / "work space").create()
        shutil.copytree(workspace.lake, other.lake, dirs_exist_ok=True)
        if queries:
            lake = Lake(other)
            with duckdb.connect() as connection:
                lake.attach(connection)
                lake.commit(connection, queries)
            resolve(lake, Settings())
        return other

    return copy


@pytest.fixture(scope="session")
def settings() -> Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def trained(shop, tmp_path_factory) -> SimpleNamespace:
    """A workspace with the personal data of a customer in which all jobs ran once and `content`, the cheapest, twice.

    With it come the results, the lines about the progress, and all that was printed and logged.
    """

    def make(folder: Path) -> SimpleNamespace:
        workspace, lines = Workspace(Path(shutil.copytree(shop.root, folder / "work space"))), []
        plant(workspace, folder / "files")
        with everything_printed() as printed:
            results = train(workspace, ["all"], clock=CLOCK, settings=SETTINGS, progress=lines.append)
            again = train(workspace, ["content"], clock=lambda: CLOCK() + timedelta(hours=1), settings=SETTINGS)
        return SimpleNamespace(
            results={result.job: result for result in results},
            again=again[0],
            lines=lines,
            printed="\n".join([*lines, printed.getvalue()]),
        )

    folder, made = made_once(tmp_path_factory, "trained", make)
    made.workspace = own_copy(Workspace(folder / "work space"), tmp_path_factory.mktemp("another shop") / "work space")
    return made


@contextlib.contextmanager
def everything_printed() -> Iterator[io.StringIO]:
    """What is printed and logged, at all levels."""
    printed, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(printed), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield printed
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


@pytest.fixture
def client(trained):
    from mlflow.tracking import MlflowClient

    return MlflowClient(trained.workspace.tracking_uri, trained.workspace.tracking_uri)


@pytest.fixture(scope="session")
def bundle_folder() -> Callable[[Workspace, str], Path]:
    """Path of the champion's bundle."""

    def find(workspace: Workspace, name: str) -> Path:
        import mlflow

        uri = workspace.tracking_uri
        client = mlflow.tracking.MlflowClient(uri, uri)
        source = client.get_model_version_by_alias(name, "champion").source
        with tracking_at(uri):  # a model that was logged is looked for in the store of the process
            return Path(mlflow.artifacts.download_artifacts(source, tracking_uri=uri)) / "artifacts" / "bundle"

    return find
