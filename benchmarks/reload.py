"""Requests to a running server while its recommender and its profiles move; `serving.py` runs it.

A second version of the recommender in production is registered whose item ids have a suffix, and profiles of another
digest are published, in turns with the former ones. Every answer has to be of one version: the items and the version
that it states belong together.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import common  # noqa: F401 - puts the packages in front of this folder
import numpy as np
from common import value
from http_load import PATH, Target

from features.profiles import snapshot
from models.bundle import ModelBundle
from qianmian.schema import registered_name
from qianmian.workspace import Workspace
from serving import model_registry
from training.promotion import promote

JOB, PROFILE_PATH = "recommend", "/v1/profile"
CONNECTIONS = 4
PAUSE = 0.002  # seconds between two requests of a connection, because the server shares the cores with its load
LEAST_REQUESTS = 2_000  # for each swap
MOST_SECONDS = 60.0  # until the server has followed
SUFFIX, OTHER_DIGEST = "~second", "second"


@dataclass
class Answers:
    """What the server answered.

    Attributes
    ----------
    failed, mixed : int
        Answers with another status than 200, and answers whose parts are not of one version.
    waits : list of float
        Seconds of each request.
    seconds : list of float
        From each move to the first answer that followed it.
    """

    failed: int = 0
    mixed: int = 0
    waits: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def is_second(path: str, answer: dict, second_version: str) -> bool | None:
    """Whether an answer is made from the second version; None if its parts are not of one version."""
    version = answer["model"]["version"]
    if path == PROFILE_PATH:
        said, is_there = version.startswith(f"{OTHER_DIGEST}-"), {answer["as_of"].endswith("T00:00:01Z")}
    else:
        said, is_there = version == second_version, {item["item_id"].endswith(SUFFIX) for item in answer["items"]}
    return said if is_there == {said} else None


async def ask_until_followed(
    url: str, bodies: list[bytes], path: str, wanted: bool, version: str, into: Answers
) -> None:
    """Send requests to both routes until `path` answers from what was published last, and `LEAST_REQUESTS` are sent."""
    started, before, followed = time.perf_counter(), len(into.waits), False

    async def client(number: int) -> None:
        nonlocal followed
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        i = number
        while not followed or len(into.waits) - before < LEAST_REQUESTS:
            if time.perf_counter() - started > MOST_SECONDS:
                sys.exit(f"{path}: the server did not follow within {MOST_SECONDS:g} s")
            route, body, sent = (PATH, PROFILE_PATH)[i % 2], bodies[i % len(bodies)], time.perf_counter()
            i += CONNECTIONS + 1
            head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            response = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in response.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            answer = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            into.waits.append(time.perf_counter() - sent)
            if b" 200 " not in response.split(b"\r\n", 1)[0]:
                into.failed += 1
                continue
            found = is_second(route, answer, version)
            into.mixed += found is None
            if route == path and found == wanted and not followed:
                followed = True
                into.seconds.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))


def register_second(workspace: Workspace, version: str) -> str:
    """Register the version's bundle again with other item ids, not as champion, and return the new version."""
    from mlflow.tracking import MlflowClient

    with model_registry.bundle_folder(workspace, JOB, version) as folder:
        bundle = ModelBundle.load(folder)
    ids = np.char.add(bundle.item_ids, SUFFIX)
    second = workspace.artifact_root / "models" / "second" / "artifacts"
    replace(bundle, item_ids=ids).save(second / "artifacts" / "bundle")
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    return str(client.create_model_version(registered_name(JOB), source=second.as_uri()).version)


def moves(workspace: Workspace, first: str, second: str) -> list[tuple[str, bool, Callable[[], object]]]:
    """Five moves: the route that shows them, whether to the second version, and the move."""
    profiles = snapshot.load_current(workspace)
    later = profiles.as_of.replace(second=1)  # `is_second` looks for it

    def champion(version: str) -> Callable[[], object]:
        return lambda: promote(workspace, JOB, int(version), datetime.now(UTC))

    return [
        (PATH, True, champion(second)),
        (
            PROFILE_PATH,
            True,
            lambda: snapshot.publish(workspace, replace(profiles, data_digest=OTHER_DIGEST, as_of=later)),
        ),
        (PATH, False, champion(first)),
        (PROFILE_PATH, False, lambda: snapshot.publish(workspace, profiles)),
        (PATH, True, champion(second)),
    ]


def settled_megabytes(target: Target) -> float:
    """Least memory of the largest worker within five seconds: that of the former version is released after the swap."""
    readings = []
    for _ in range(10):
        time.sleep(0.5)
        readings.append(max(target.worker_bytes()) / 2**20)
    return min(readings)


def measure_reloads(workspace: Workspace, target: Target, users: list[str]) -> dict[str, dict[str, float]]:
    """Metrics of five moves of a workspace that the target serves; the workspace is another one afterwards."""
    first = model_registry.version_of(workspace, JOB)
    assert first is not None
    second, answers, megabytes = register_second(workspace, first), Answers(), []
    bodies = [json.dumps({"user_id": user}).encode() for user in users]
    for path, wanted, move in moves(workspace, first, second):
        move()
        asyncio.run(ask_until_followed(target.url, bodies, path, wanted, second, answers))
        megabytes.append(settled_megabytes(target))
    waits = np.asarray(answers.waits) * 1e3
    return {
        "reload_requests": value(len(waits)),
        "reload_failed": value(answers.failed, n=len(waits)),
        "reload_mixed": value(answers.mixed, n=len(waits)),
        "reload_longest_ms": value(float(waits.max()), n=len(waits)),
        "reload_p50_ms": value(float(np.median(waits)), n=len(waits)),
        "reload_p99_ms": value(float(np.quantile(waits, 0.99)), n=len(waits)),
        "reload_seconds": value(
            float(np.median(answers.seconds)), min(answers.seconds), max(answers.seconds), len(answers.seconds)
        ),
        "reload_grown_mb": value(megabytes[-1] - megabytes[0]),
    }
