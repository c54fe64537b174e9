"""Trees of XGBoost: taken out of boosters as arrays, and joined to one booster.

A process that ranks the few rows of a request does not import this module: XGBoost, with the scikit-learn and pandas
that it imports, takes a CPU second and 60 MB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from models.recommend.ranking.flat_trees import FlatTrees


def flattened(boosters: Sequence[xgb.Booster]) -> FlatTrees | None:
    """Return the trees of boosters as arrays, None if they are too deep."""
    parts, starts = _saved(boosters)
    trees = [part["learner"]["gradient_booster"]["model"]["trees"] for part in parts]
    return FlatTrees.of(trees, starts, boosters[0].num_features())


def joined(boosters: Sequence[xgb.Booster]) -> xgb.Booster:
    """Join boosters of the same features and number of rounds to one whose margins, (m, boosters), are theirs.

    XGBoost grows one tree per class and round; here each booster takes the place of a class. Every margin is added up
    from the same start and in the same order as by the booster alone, so it is equal to the last bit.
    """
    if len(boosters) == 1:
        return boosters[0]
    parts, starts = _saved(boosters)
    whole = parts[0]
    learner = whole["learner"]
    rounds = zip(*(part["learner"]["gradient_booster"]["model"]["trees"] for part in parts), strict=True)
    trees = [tree for of_round in rounds for tree in of_round]
    for number, tree in enumerate(trees):
        tree["id"] = number
    model, n = learner["gradient_booster"]["model"], len(boosters)
    model["trees"], model["tree_info"] = trees, [number % n for number in range(len(trees))]
    model["iteration_indptr"] = list(range(0, len(trees) + 1, n))
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    base_score = ",".join(f"{start:.9g}" for start in starts)  # the digits that tell float32 numbers apart
    learner["learner_model_param"] |= {"num_class": str(n), "base_score": f"[{base_score}]"}
    learner["objective"] = {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": str(n)}}
    return _read(whole, boosters[0])


def _saved(boosters: Sequence[xgb.Booster]) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the JSON of boosters, and their margins before the first tree."""
    parts = [json.loads(booster.save_raw("json")) for booster in boosters]
    return parts, [_start(booster, part) for booster, part in zip(boosters, parts, strict=True)]


def _start(booster: xgb.Booster, saved: dict[str, Any]) -> float:
    """Return the margin of a booster before its first tree: that of its first tree alone, with leaves of 0."""
    gbtree = saved["learner"]["gradient_booster"]
    first = gbtree["model"]["trees"][0]
    pairs = zip(first["left_children"], first["split_conditions"], strict=True)
    first = {**first, "split_conditions": [0.0 if child < 0 else threshold for child, threshold in pairs]}
    model = {**gbtree["model"], "trees": [first], "tree_info": [0], "iteration_indptr": [0, 1]}
    model["gbtree_model_param"] = {**model["gbtree_model_param"], "num_trees": "1"}
    learner = {**saved["learner"], "gradient_booster": {**gbtree, "model": model}}
    row = np.zeros((1, booster.num_features()), dtype=np.float32)
    blank = _read({**saved, "learner": learner}, booster)
    return float(blank.inplace_predict(row, predict_type="margin", validate_features=False)[0])


def _read(saved: dict[str, Any], like: xgb.Booster) -> xgb.Booster:
    """Read a booster from its JSON; it uses as many threads as `like`."""
    booster = xgb.Booster(model_file=bytearray(json.dumps(saved).encode()))
    threads = json.loads(like.save_config())["learner"]["generic_param"]["nthread"]
    booster.set_param({"nthread": int(threads)})
    return booster
