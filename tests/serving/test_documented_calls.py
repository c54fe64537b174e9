"""The calls that docs/http.md shows, run with curl, and the loop of the demo, against one server of the synthetic shop."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from cli import demo_loop
from cli.console import Output
from features.data.lake import Lake
from features.event_log import open_log
from features.event_log.location import ENVIRONMENT_VARIABLE
from features.event_log.rows import decode
from qianmian.schema import TAG_CATEGORIES
from qianmian.workspace import Workspace
from serving.champions import Champions
from serving.endpoints import ENDPOINTS
from serving.server import running
from tests.shared import own_copy

CALLS = re.compile(r"^```console\n((?:\$ curl [^\n]*\n(?:  [^\n]*\n)*)+)```\n(?:```json\n(.*?)^```\n)?", re.S | re.M)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
AS_OF = "2024-08-01"  # of the synthetic shop
REST = "…"  # stands for more keys or elements
KEYED_BY_DATA = {"next_stage", "models", "unavailable", *TAG_CATEGORIES}
OF_ANY_TYPE = "].value"  # of a tag
SEED = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store") / "events.db"


@pytest.fixture(scope="module")
def with_uplift(workspace, champions, registering, tmp_path_factory) -> Iterator[Workspace]:
    """The shop with an uplift model beside the others."""
    made = own_copy(workspace, tmp_path_factory.mktemp("a shop with uplift") / "work space")
    registering.register(made, "uplift", registering.uplift_bundle(champions.customers))
    yield made
    mlflow.set_tracking_uri(workspace.tracking_uri)
    mlflow.set_registry_uri(workspace.tracking_uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def url(with_uplift, server_environment, store) -> Iterator[str]:
    env = {**server_environment(with_uplift), ENVIRONMENT_VARIABLE: str(store)}
    with running(with_uplift, env=env) as found:
        yield found


def documented_calls() -> Iterator[tuple[list[str], Any]]:
    """The words of each curl command of the page, and the answer below it, None if there is none."""
    for commands, answer in CALLS.findall(PAGE):
        several = [shlex.split(command) for command in re.split(r"^\$ ", commands, flags=re.M) if command]
        for words in several[:-1]:
            yield words, None
        yield several[-1], json.loads(answer) if answer else None


def of_the_shop(value: Any, names: dict[str, str], seed: list[str]) -> Any:
    """A request of the page with ids and days of the synthetic shop; a list that the page cuts off is a seed."""
    if isinstance(value, dict):
        return {key: of_the_shop(inner, names, seed) for key, inner in value.items()}
    if isinstance(value, list):
        return seed if REST in value else [of_the_shop(inner, names, seed) for inner in value]
    if isinstance(value, str):
        return names.get(value, value.replace("2018-01-02", AS_OF))
    return value


def misfit(shown: Any, got: Any, place: str = "") -> str | None:
    """Where an answer has another shape than the one that is shown: other keys, or values of another type."""
    if isinstance(shown, dict) and isinstance(got, dict):
        if place.rpartition(".")[2] in KEYED_BY_DATA:
            shown, got = [inner for inner in shown.values() if inner != REST], list(got.values())
            return misfit(shown, got, place)
        if missing := shown.keys() - got.keys() - {REST}:
            return f"{place}: no {', '.join(sorted(missing))}"
        if REST not in shown and (more := got.keys() - shown.keys()):
            return f"{place}: also {', '.join(sorted(more))}"
        found = (misfit(shown[key], got[key], f"{place}.{key}") for key in shown if key != REST)
        return next(filter(None, found), None)
    if isinstance(shown, list) and isinstance(got, list):
        examples = [example for example in shown if example != REST]
        if not examples or not got:
            return None
        for number, one in enumerate(got):
            found = [misfit(example, one, f"{place}[{number}]") for example in examples]
            if all(found):
                return found[0]
        return None
    if shown is None or got is None or kind(shown) == kind(got) or place.endswith(OF_ANY_TYPE):
        return None
    return f"{place}: {kind(shown)} is shown, {kind(got)} is returned"


def kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_curl_of_the_page_gets_an_answer_of_the_shape_that_is_shown(url, buyers, champions):
    items = list(champions.models["recommend"].catalogue.item_ids)
    users = dict(zip(["1", "2000"], buyers, strict=False))
    called = set()
    for words, shown in documented_calls():
        body = words.index("-d") + 1 if "-d" in words else None
        if body is not None:
            request = json.loads(words[body])
            known = re.findall(r'"(\d{6,})"', words[body])
            names = {**users, **dict(zip(dict.fromkeys(known), items[3:], strict=False))}
            words[body] = json.dumps(of_the_shop(request, names, buyers[:SEED]), ensure_ascii=False)
        words = [word.replace("localhost:3000", url) for word in words]
        done = subprocess.run(
            [*words, "-w", "\n%{http_code}"], capture_output=True, text=True, encoding="utf-8", timeout=60, check=True
        )
        answer, _, status = done.stdout.rpartition("\n")
        assert status == "200", f"{words}\n{answer}"
        if shown is not None:
            assert misfit(shown, json.loads(answer)) is None, f"{words}\n{answer}"
        called.add(re.sub(r"^.*?:\d+", "", next(word for word in words if word.startswith("http"))))
    assert called >= {f"/v1{route}" for route in ENDPOINTS} | {"/livez", "/readyz", "/metrics"}


def test_a_misfit_is_found():
    shown, got = {"a": 1, "b": [{"c": "x"}, REST], "d": None}, {"a": 2.5, "b": [{"c": "y"}, {"c": None}], "d": "z"}
    assert misfit(shown, got) is None
    assert misfit(shown, {"a": 1, "b": []}) == ": no d"
    assert misfit(shown, {**got, "e": 1}) == ": also e"
    assert misfit({**shown, REST: REST}, {**got, "e": 1}) is None
    assert misfit(shown, {**got, "a": "1"}) == ".a: number is shown, str is returned"
    assert misfit(shown, {**got, "b": [{"c": "x"}, {}]}) == ".b[1]: no c"


def source_of(champions: Champions, user_id: str) -> str:
    (row,) = [row for row in champions.customers.customers.to_pylist() if row["source_user_id"] == user_id]
    return row["source"]


def test_the_loop_of_the_demo_ends_with_answers_that_know_the_basket(
    url, workspace, champions, buyers, monkeypatch, capsys, store
):
    monkeypatch.setattr(demo_loop, "SCENES", ("home", "discover"))  # the models of the shop have no others
    user = {"user_id": buyers[5], "user_source": source_of(champions, buyers[5])}
    loop = demo_loop.close_loop(url, user, champions.customers.as_of, Lake(workspace))
    assert [event["amount"] > 0 for event in loop.events] == [True] * demo_loop.BASKET_SIZE
    assert min(loop.accepted_ms, loop.list_ms, loop.profile_ms, loop.next_profile_ms) > 0
    bought = [event["item_id"] for event in loop.events]
    before, after = loop.lists["home"]
    assert [item["item_id"] for item in before["items"]][: len(bought)] == bought
    assert after["recent_events"] == len(bought)
    days = [answer["tags"]["lifecycle"]["days_since_last_order"]["value"] for answer in loop.profiles]
    assert days[1] == pytest.approx(0, abs=1e-4), "as of just after the basket"
    assert days[0] > 0
    demo_loop.show_loop(Output(), loop)
    printed = capsys.readouterr().out
    assert printed.startswith(demo_loop.HEADING)
    assert "days_since_last_order" in printed
    log = open_log(store)
    assert buyers[5] in {decode(logged.event).values["source_user_id"] for logged in log.tail(0, 100).events}
    log.close()
