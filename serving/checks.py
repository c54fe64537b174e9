"""Requests that champions have to answer before they take the place of others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import ArtifactError, QianmianError
from serving.bundles import RESTORE_HINT
from serving.champions import PROFILES, Champions
from serving.endpoints import ENDPOINTS
from serving.requests import parse_request

USERS = 25  # known customers of each check at least, where there are so many: more than a lookalike needs
ITEMS = 10
USER_ROUTES = {"churn": "/churn", "lifecycle": "/predictions"}
SCORES = {"/churn": "churn_probability", "/predictions": "next_stage"}
Request = dict[str, Any]


def check_answers(champions: Champions, part: str) -> None:
    """Answer requests that need a part, a job or `PROFILES`, for an unknown customer and for some of the profiles.

    Without profiles nothing can be answered, so that nothing is checked.

    Raises
    ------
    QianmianError
        If an answer is an error of the server, does not fit the schema of its route, has a value that is no finite
        number (null in JSON), a row with neither a score nor the reason why there is none, or with both, names an item
        twice, or is an empty list of the default scene.
    """
    if champions.snapshot is None:
        return
    for route, request in _requests(champions, part):
        endpoint, body = ENDPOINTS[route], orjson.dumps(request)
        try:
            parsed, now = parse_request(endpoint.request, body), champions.customers.as_of
            text = endpoint.json(champions, parsed, now)
            if not _is_finite(endpoint.respond(champions, parsed, now)):
                raise _refused(route, "a value that is no finite number")
            endpoint.response.model_validate_json(text)
        except QianmianError as error:
            if error.http_status < 500:  # about the request: a scene that needs an item, too few known seeds
                continue
            raise
        except ValidationError as error:
            first = error.errors()[0]
            raise _refused(route, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        answer = orjson.loads(text)
        if route in SCORES:
            for row in answer["scores"]:
                if (row[SCORES[route]] is None) == (row["no_score_reason"] is None):
                    raise _refused(route, "a row with not exactly one of a score and a no_score_reason")
        items = [item["item_id"] for item in answer.get("items", ())]
        if len(set(items)) < len(items):
            raise _refused(route, "an item twice in a list")
        if route == "/recommendations" and request["scene"] == DEFAULT_SCENE and not items:
            raise _refused(route, "an empty list")


def _requests(champions: Champions, part: str) -> Iterator[tuple[str, Request]]:
    """Routes and bodies of requests that need the part."""
    table = champions.customers.table.select(["user_id", "user_source"])
    known = table.take(np.arange(0, table.num_rows, max(1, table.num_rows // USERS))).to_pylist()
    users: list[Request] = [{"user_id": "an unknown customer", "user_source": None}, *known]
    if part == PROFILES:
        yield from (("/profile", user) for user in users)
    for job, route in USER_ROUTES.items():
        if job in champions.models and part in (job, PROFILES):
            yield from ((route, {"user_ids": [user["user_id"]], "user_source": user["user_source"]}) for user in users)
    if part == "lookalike":
        seeds = [user["user_id"] for user in users]
        yield "/lookalike", {"seed_user_ids": seeds, "size": ITEMS, "with_evidence": False}
    for scene in SCENES.values():
        if scene.job in champions.models and part in (scene.job, PROFILES):
            yield from (("/recommendations", {**user, "scene": scene.name, "num_results": ITEMS}) for user in users)
    if part == "recommend":
        items = champions.require(part).bundle.item_ids[:ITEMS].tolist()
        yield from (("/rank", {**user, "item_ids": items}) for user in users)


def _is_finite(value: Any) -> bool:
    """Whether a response body has no NaN and no infinite number; both would be null in JSON."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, float | np.floating) or math.isfinite(value)


def _refused(route: str, got: str) -> ArtifactError:
    return ArtifactError("the answers are not fit to be sent", where=route, got=got, hint=RESTORE_HINT)
