"""Kills of `train`, `promote` and `rollback` at random moments: the registry is whole after each, and is mended.

A part of `benchmarks/measurement.py`.

Each run is a process of its own that is killed with SIGKILL, at a moment that is uniform over the time of a whole run.
Every second one is killed after the moment at which it begins to change the registry, because most of the time is
spent before. The model is a logistic regression on two columns of 200 made-up customers with a published tag, and goes
the way of every trained model (`training.run.gate_and_register`); what comes before that writes nothing.

After each kill there must be one champion, the former or the new one, whose bundle has its checksums, and published
tags of one version. After the next command the aliases, the last event of the history and the published tags must
agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
from common import Must

from features.compute.spec import FeatureSpec
from features.definitions import FEATURES
from features.profiles.tags import published
from models.bundle import ModelBundle, verify
from models.classify.churn_model import ChurnModel, Member
from models.classify.logistic import LogisticClassifier
from models.classify.rhythm import Design
from qianmian.errors import ArtifactError
from qianmian.model_settings import GateSettings
from qianmian.schema import CHAMPION, EVENT_TAG, INTENT_TAG, PREVIOUS, registered_name
from qianmian.workspace import Workspace
from serving.model_registry import bundle_folder
from training import promotion
from training.bootstrap import mean_metric
from training.comparison import LossComparison
from training.decision import TrainingCall
from training.gate import GateRule
from training.jobs.base import EvaluatedModel
from training.report import EvalReport
from training.run import gate_and_register

MUSTS = {"broken_registry": Must("metric", most=0)}
KILLS, JOB, TAG = 50, "churn", "churn_risk"
FACTS = {"job": JOB, "data_digest": "a digest", "seed": 0, "horizon_days": 28}
NAMES = ("days_since_last_order", "orders_28d")
START, NOW = datetime(2025, 1, 1), datetime(2025, 3, 1, tzinfo=UTC)
IMPORTED = (
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "training.promotion",
    "training.pyfunc",
    "training.tracking",
)
CUSTOMERS, BEGUN = 200, b"\n"
Action = Callable[[Callable[[], None]], object]  # takes what it calls when the part begins that is to be killed


def measure(data: Path, folder: Path, kills: int = KILLS, seed: int = 0) -> tuple[dict[str, Any], dict[str, float]]:
    """Kill each command so many times.

    Parameters
    ----------
    data : Path
        Not used.
    folder : Path
        Empty, for the workspace.

    Returns
    -------
    tuple of dict, dict
        The metrics of the JSON, and the values of the musts.
    """
    shop, found = Shop(Workspace(folder / "workspace").create(), seed), {}
    for action in ("train", "promote", "rollback"):
        found[action] = [problem for number in range(kills) for problem in shop.kill(action, number)]
        for problem in found[action]:
            print(f"{action}: {problem}")
    broken = float(sum(map(len, found.values())))
    metrics = {f"broken_{action}": common.value(len(problems), n=kills) for action, problems in found.items()}
    metrics |= {f"mended_{action}": common.value(shop.mended[action], n=kills) for action in found}
    metrics |= {f"seconds_{action}": common.value(seconds) for action, seconds in shop.seconds.items()}
    return {"qianmian": {**metrics, "broken_registry": common.value(broken, n=3 * kills)}}, {"broken_registry": broken}


class Shop:
    """A workspace with two versions, whose processes are killed.

    Attributes
    ----------
    workspace : Workspace
    seconds : dict of str to float
        Of a whole run of each action, from the moment at which it may be killed.
    mended : dict of str to int
        Kills after which the next command had something to finish.
    """

    def __init__(self, workspace: Workspace, seed: int = 0) -> None:
        for module in IMPORTED:  # before the first fork: each process would import it again
            import_module(module)

        self.workspace, self._rng, self._clock = workspace, np.random.default_rng(seed), NOW
        self._before: Mapping[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.mended = dict.fromkeys(("train", "promote", "rollback"), 0)
        for _ in range(2):
            in_a_process(self._actions()["train"])

    def kill(self, action: str, number: int) -> list[str]:
        """Kill a run of an action, and say what is wrong then, and after the next command."""
        name = f"{action} late" if number % 2 else action
        if name not in self.seconds:
            self._before = self.look()
            self.seconds[name] = in_a_process(self._actions()[name])[1]
        self._before = before = self.look()
        in_a_process(self._actions()[name], kill_after=float(self._rng.uniform(0.0, self.seconds[name])))
        return self.check(action, before)

    def check(self, action: str, before: Mapping[str, Any]) -> list[str]:
        """What is wrong after a kill: at once, and after the next command."""
        killed = self.look()
        self.mended[action] += killed["intent"]
        in_a_process(partial(_mend, self.workspace))
        after = self.look()
        wrong = {
            "no whole champion": not killed["whole"],
            "a champion that neither was nor becomes one": killed["champion"]
            not in (before["champion"], after["champion"]),
            "tags of several versions": len(killed["tags"]) != 1
            or not killed["tags"] <= {before["champion"], after["champion"]},
            "an unfinished change after the next command": after["intent"],
            "no whole champion after the next command": not after["whole"],
            "a history without the champion": after["event"] != after["champion"],
            "tags of another version than the champion": after["tags"] != {after["champion"]},
            "the champion is its own predecessor": after["previous"] in (None, after["champion"]),
        }
        return [text for text, is_so in wrong.items() if is_so]

    def look(self) -> dict[str, Any]:
        """The state of the registry, read from the files in a process of its own."""
        found = in_a_process(partial(_state, self.workspace))[0]
        assert isinstance(found, dict), found
        return {**found, "tags": set(found["tags"])}

    def _actions(self) -> dict[str, Action]:
        self._clock += timedelta(seconds=1)
        now, workspace = self._clock, self.workspace
        previous = int(self._before.get("previous") or 1)

        def train(begin: Callable[[], None]) -> object:
            begin()
            return _train(workspace, now)

        def promote(begin: Callable[[], None]) -> object:
            begin()
            return promotion.promote(workspace, JOB, previous, now)

        def roll_back(begin: Callable[[], None]) -> object:
            begin()
            return promotion.rollback(workspace, JOB, now)

        def late(action: Action, first: str) -> Action:
            """The action, which begins when it calls a function of `promotion`; the process has a copy of its own."""

            def run(begin: Callable[[], None]) -> object:
                former = getattr(promotion, first)

                def begun(*arguments: Any, **more: Any) -> Any:
                    begin()
                    return former(*arguments, **more)

                setattr(promotion, first, begun)
                return action(lambda: None)

            return run

        return {
            "train": train,
            "train late": late(train, "register"),
            "promote": promote,
            "promote late": late(promote, "_set_champion"),
            "rollback": roll_back,
            "rollback late": late(roll_back, "_set_champion"),
        }


def in_a_process(action: Action, kill_after: float | None = None) -> tuple[Any, float]:
    """The result of an action in a forked process, and its seconds from the moment at which it says that it begins.

    Parameters
    ----------
    action : callable
        Takes the function that it calls when it begins; its result is JSON.
    kill_after : float, optional
        Seconds after that moment; the result is then None, unless the process has ended before.

    Raises
    ------
    RuntimeError
        The process failed by itself.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reads)
            answer = action(lambda: os.write(writes, BEGUN) and None)
            os.write(writes, json.dumps(answer, default=str).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)  # nothing of the parent is cleaned up here
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        begun, started = pipe.read(1), time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        text, seconds = pipe.read(), time.perf_counter() - started
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if begun != BEGUN or status not in ((0,) if kill_after is None else (0, -signal.SIGKILL)):
        raise RuntimeError(f"a process ended with {status}")
    return (json.loads(text) if status == 0 else None), seconds


def _mend(workspace: Workspace, begin: Callable[[], None]) -> object:
    begin()
    return promotion.mend(workspace)


def _state(workspace: Workspace, begin: Callable[[], None]) -> dict[str, Any]:
    """The registry as its files have it, read without MLflow."""
    begin()
    name = registered_name(JOB)
    aliases = _rows(workspace, "SELECT alias, version FROM registered_model_aliases WHERE name = :name", name)
    tags = _rows(workspace, "SELECT key, value FROM registered_model_tags WHERE name = :name ORDER BY key", name)
    versions = dict(aliases)
    whole = True
    try:
        with bundle_folder(workspace, JOB, str(versions.get(CHAMPION))) as folder:
            verify(folder)
    except ArtifactError:
        whole = False
    events = [value for key, value in tags if key.startswith(EVENT_TAG)]
    tag = published.read(workspace, TAG)
    files = published.published_files(workspace, name)
    return {
        "champion": str(versions.get(CHAMPION)),
        "previous": str(versions[PREVIOUS]) if PREVIOUS in versions else None,
        "whole": whole,
        "intent": any(key == INTENT_TAG for key, _ in tags),
        "event": str(json.loads(events[-1])["version"]),
        "tags": [tag.model_version] if tag is not None and len(files) == 1 else [],
    }


def _rows(workspace: Workspace, query: str, name: str) -> list[tuple[Any, ...]]:
    """Rows of the store, as MLflow reads them: a transaction that was killed is undone by a reader who may write."""
    with contextlib.closing(sqlite3.connect(workspace.mlflow_db)) as connection:
        return connection.execute(query, {"name": name}).fetchall()


def _train(workspace: Workspace, now: datetime) -> object:
    return gate_and_register(
        workspace,
        JOB,
        evaluated_model(now),
        lambda: now,
        lambda line: None,
        str(FACTS["data_digest"]),
        settings=GateSettings(),
        call=TrainingCall(computed=NAMES),
    )


def evaluated_model(now: datetime, worse_by: float = 0.0) -> EvaluatedModel:
    """A churn model of made-up customers, who churn the more often the longer ago their last order was.

    Parameters
    ----------
    worse_by : float
        Noise of the probabilities of the evaluated model.
    """
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(0, 56, CUSTOMERS), rng.poisson(3, CUSTOMERS)]).astype(np.float32)
    y = (rng.uniform(0, 56, CUSTOMERS) < X[:, 0]).astype(np.int64)
    spec = FeatureSpec(tuple(one for name in NAMES for one in FEATURES if one.name == name), ((), ()))
    model = ChurnModel(Design(NAMES), (Member("logistic", NAMES, LogisticClassifier().fit(X, y)),))
    p = model.predict_proba(X)[:, 1]
    p = np.clip(p + worse_by * np.where(np.arange(CUSTOMERS) % 2, 1.0, -1.0), 0.01, 0.99)
    loss, of_base = (p - y) ** 2, (y.mean() - y) ** 2
    report = EvalReport(
        {"brier": mean_metric(loss)},
        {"base rate": {"brier": mean_metric(of_base)}},
        {"brier:base rate": mean_metric(loss - of_base)},
    )

    def losses(bundle: ModelBundle) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.asarray((bundle.model.predict_proba(X)[:, 1] - y) ** 2)

    one_ids = [f"one{number}" for number in range(CUSTOMERS)]
    as_of = START + timedelta(days=28)
    return EvaluatedModel(
        ModelBundle("churn", model, as_of, spec, facts=FACTS, evaluated=model),
        report,
        [GateRule("brier:base rate", higher_is_better=False)],
        {"at": now.isoformat()},
        {},
        pa.table({"one_id": one_ids[:5], **dict(zip(NAMES, X[:5].T.copy(), strict=True))}),
        {TAG: (one_ids, np.where(p > 0.5, "high", "low").tolist())},
        LossComparison("brier", START, loss, losses),
    )


if __name__ == "__main__":
    arguments = common.parser(__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=KILLS, help="of each command")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        metrics, values = measure(Path(), Path(made), given.kills)
    common.show(metrics)
    common.finish({"kills": metrics}, common.check(MUSTS, values), given.json)
