"""What a running server says about itself: metrics, request ids and the log, of which none says who a request is about."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import orjson
import pytest
import yaml

from qianmian.redaction import redact_logs
from qianmian.workspace import Workspace
from serving import metrics, request_ids
from serving.endpoints import ENDPOINTS
from serving.logs import JsonFormatter, TextFormatter, exception_text
from serving.metrics import METRICS, Publisher, count, ignore, one_more, take_counted
from serving.server import running

DEPLOY = Path(__file__).parents[2] / "deploy"
OF_TARGETS = {"job", "instance", "le"}  # labels that Prometheus adds, and that of buckets
MARK = "MARKED"  # in whatever a client sends
SAMPLE = re.compile(r"(\w+)(?:\{(.*?)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and labels → value, from the text of /metrics."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#") and (match := SAMPLE.fullmatch(line)):
            found[match[1], tuple(sorted(LABEL.findall(match[2] or "")))] = float(match[3])
    return found


def total(found, name: str, **labels: str) -> float:
    return sum(value for (one, said), value in found.items() if one == name and labels.items() <= dict(said).items())


def bodies(buyers, item_ids, mark: str = "") -> dict[str, list]:
    """Requests to each route; the answers to the last of each are errors."""
    event = {"event_id": f"{mark}e1", "user_id": f"{mark}u", "user_source": "s", "event_type": "view"}
    events = [{**event, "ts": "2026-05-01T12:00:00Z"}, {**event, "event_id": f"{mark}e2", "ts": f"{mark}?"}]
    unknown = f"{mark}nobody"
    return {
        "/recommendations": [
            {"user_id": buyers[0]},
            {"user_id": buyers[0]},
            {"user_id": unknown, "explain": True, "num_results": 300},
            {"user_id": unknown, "scene": f"{mark}nowhere"},
        ],
        "/rank": [{"user_id": unknown, "item_ids": [*item_ids[:3], f"{mark}i"]}, {"user_id": unknown, "item_ids": 7}],
        "/similar-items": [{"item_id": item_ids[0]}, {"item_id": f"{mark}ghost"}],
        "/churn": [{"user_ids": [buyers[0], unknown]}, {"user_ids": [unknown], f"{mark}field": 1}],
        "/predictions": [{"user_ids": [buyers[0], unknown]}, {"user_ids": unknown}],
        "/profile": [{"user_id": buyers[0]}, {"user_id": unknown}, {"user_id": unknown, "user_source": 3}],
        "/lookalike": [{"seed_user_ids": buyers[:30], "size": 5}, {"seed_user_ids": [unknown], "size": 5}],
        "/events": [{"events": events}, {"events": events[:1]}, {"events": []}],
    }


def send(url: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None):
    """Status and headers of the answer to a request."""
    try:
        request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        error.read()
        return error.code, error.headers


@pytest.fixture(scope="module")
def asked(serve, buyers, champions) -> dict:
    """The metrics after a request to each route, less those before, and all of them."""
    item_ids = champions.models["recommend"].catalogue.item_ids
    before = samples(serve("/metrics")[1].decode())
    for route, requests in bodies(buyers, item_ids).items():
        for body in requests:
            serve(f"/v1{route}", body)
    after = samples(serve("/metrics")[1].decode())
    return {"raised": {key: value - before.get(key, 0) for key, value in after.items()}, "all": after}


def test_every_metric_has_samples_with_the_labels_that_are_declared(asked):
    for name, declared in METRICS.items():
        shown = f"{name}_count" if declared.kind == "Histogram" else name
        labels = {frozenset(dict(said)) for one, said in asked["all"] if one == shown}
        assert labels == {frozenset(declared.labels)}, name


def test_answers_are_counted_by_what_they_are_made_of(asked, buyers, champions):
    raised, version = asked["raised"], champions.models["recommend"].version
    lists = {"route": "/recommendations", "scene": "home", "model": "qianmian-recommend", "version": version}
    assert total(raised, metrics.LISTS, **lists, fallback="none", stale="true") == 2
    assert total(raised, metrics.LISTS, **lists) == 3
    assert total(raised, metrics.LISTS, route="/rank") == total(raised, metrics.LISTS, route="/similar-items") == 1
    assert total(raised, metrics.ITEMS, route="/rank") == 3
    assert total(raised, metrics.ITEMS, route="/recommendations") > 20
    assert total(raised, metrics.KEPT, outcome="hit") >= 1
    for route in ("/churn", "/predictions"):
        outcomes = {"scored": 1, "unknown_customer": 1}
        assert {each: total(raised, metrics.SCORES, route=route, outcome=each) for each in outcomes} == outcomes
    assert total(raised, metrics.AUDIENCES, outcome="refused") == 1
    assert total(raised, metrics.AUDIENCES) == 2
    assert total(raised, metrics.EVENTS, outcome="rejected") == 1
    assert total(raised, metrics.EVENTS, outcome="accepted") + total(raised, metrics.EVENTS, outcome="duplicate") == 2
    assert total(raised, "qianmian_request_seconds_count", status="422") >= 6


def test_gauges_say_what_is_served_and_how_old_it_is(asked, champions):
    found = asked["all"]
    assert total(found, "qianmian_ready") == 1
    assert total(found, "qianmian_events_lost") == 0
    assert total(found, "qianmian_events_behind_seconds") < 30
    for job, champion in champions.models.items():
        assert total(found, "qianmian_model_info", model=champion.name, version=champion.version) == 1
        as_of = total(found, "qianmian_as_of_timestamp_seconds", part=job)
        assert as_of == (champion.bundle.as_of - champion.bundle.as_of.__class__(1970, 1, 1)).total_seconds()
    assert total(found, "qianmian_kept_lists") > 1
    refused = {(("outcome", "refused"), ("part", "profiles"))} & {
        labels for name, labels in found if name == metrics.RELOADS
    }
    assert refused  # it is there from the start, so that an alarm has something to compare with


def expressions() -> dict[str, str]:
    """The PromQL of the dashboard and of the alarms, by the name of its panel or alarm."""
    dashboard = orjson.loads((DEPLOY / "grafana" / "qianmian.json").read_bytes())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return found | {rule["alert"]: rule["expr"] for rule in group["rules"]}


@pytest.mark.parametrize("name", expressions())
def test_the_dashboard_and_the_alarms_use_metrics_and_labels_that_a_server_has(name, asked):
    expression = expressions()[name].replace('up{job="qianmian"}', "")
    used = re.findall(r"(qianmian_\w+)(?:\{(.*?)\})?", expression)
    assert used
    for metric, matchers in used:
        labels = [dict(said) for one, said in asked["all"] if one == metric]
        assert labels, metric
        for label, operator, value in re.findall(r'(\w+)(=~|!=|!~|=)"(.*?)"', matchers):
            if label not in OF_TARGETS:
                assert all(label in said for said in labels), (metric, label)
                assert operator != "=" or any(said[label] == value for said in labels), (metric, label, value)
    known = {label for metric, _ in used for one, said in asked["all"] if one == metric for label in dict(said)}
    for group in re.findall(r"(?:by|ignoring) \((.*?)\)", expression):
        assert set(group.split(", ")) <= known | OF_TARGETS, name


def test_every_alarm_has_its_runbook():
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) == 10
    for rule in group["rules"]:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_can_be_imported():
    dashboard = orjson.loads((DEPLOY / "grafana" / "qianmian.json").read_bytes())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_the_documentation_lists_the_metrics_as_they_are_declared():
    page = (DEPLOY.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    for name, declared in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        assert f"| `{name}` | {declared.kind.lower()} | {labels} | {declared.description}" in page, name


def test_counting_from_many_threads_loses_nothing():
    take_counted()
    one, two = one_more("a", "x"), (("a", ("x",), 2), ("b", (), 1))
    threads = [threading.Thread(target=lambda: [count(each) for _ in range(1_000) for each in (one, two)])]
    threads += [threading.Thread(target=lambda: [count(one) for _ in range(1_000)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    sums: Counter = Counter()
    while any(thread.is_alive() for thread in threads):
        sums += take_counted()
    assert sums + take_counted() == {("a", ("x",)): 6_000, ("b", ()): 1_000}


def test_a_version_that_was_replaced_is_shown_as_0(monkeypatch):
    written: dict = {}

    class Child:
        def __init__(self, key):
            self.key = key

        def set(self, value):
            written[self.key] = value

        inc = set

    monkeypatch.setattr(metrics, "child", lambda name, labels=(): Child((name, labels)))
    monkeypatch.setattr(metrics, "forget_ended_workers", lambda: None)
    served = {("qianmian_model_info", ("qianmian-churn", "1")): 1.0}
    publish = Publisher(lambda: served)
    publish()
    served = {("qianmian_model_info", ("qianmian-churn", "2")): 1.0}
    publish()
    assert [written["qianmian_model_info", ("qianmian-churn", version)] for version in "12"] == [0, 1]


def test_a_failure_of_the_metrics_stops_no_server_and_is_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(metrics, "forget_ended_workers", lambda: None)

    def broken():
        raise OSError("no space left")

    publish = Publisher(broken)
    publish()
    publish()
    assert caplog.text.count("metrics=failed") == 1


def test_gauges_of_ended_workers_are_looked_for_again_and_again(monkeypatch):
    done: list[str] = []
    monkeypatch.setattr(metrics, "forget_ended_workers", lambda: done.append("looked"))
    publish = Publisher(lambda: done.append("published") or {})
    for _ in range(metrics.FORGET_EVERY + 1):
        publish()
    assert done == ["looked", *["published"] * metrics.FORGET_EVERY, "looked", "published"]


def test_gauges_of_workers_that_have_ended_are_removed(tmp_path, monkeypatch):
    from prometheus_client import multiprocess  # noqa: F401 - which would read the variable at its import

    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        for kind in ("gauge_livemax", "gauge_livesum", "counter"):
            (tmp_path / f"{kind}_{process}.db").touch()
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path))
    metrics.forget_ended_workers()
    assert {path.name for path in tmp_path.iterdir() if str(ended.pid) in path.name} == {f"counter_{ended.pid}.db"}
    assert len(list(tmp_path.iterdir())) == 4


def test_the_text_of_an_exception_is_logged_only_where_it_cannot_be_that_of_a_request():
    def text_of(*errors: Exception) -> str:
        try:
            try:
                raise errors[0]
            except Exception as first:
                raise errors[1] from first
        except (OSError, ExceptionGroup) as error:
            return exception_text(error)

    said = text_of(KeyError("customer 7"), OSError("no space left"))
    assert "customer 7" not in said
    assert "KeyError\nwhich led to:" in said
    assert said.endswith("OSError: no space left")
    assert "test_observability.py" in said
    group = ExceptionGroup("customer 7", [ValueError("customer 7"), TimeoutError("late")])
    said = text_of(ImportError("no module"), group)
    assert "customer 7" not in said
    assert "ImportError: no module" in said
    assert "TimeoutError: late" in said


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_both_formats_hide_the_texts_of_exceptions_and_passwords(formatter):
    """Also where `redact_logs`, which a server calls first, has put the texts of all errors into the record."""
    make = logging.getLogRecordFactory()
    redact_logs()
    stream, logger = io.StringIO(), logging.Logger("asyncio")
    logger.addHandler(logging.StreamHandler(stream))
    logger.handlers[0].setFormatter(formatter("worker"))
    try:
        for error in (KeyError("customer 7"), OSError("no answer from redis://shop:hunter2@cache")):
            try:
                raise error
            except Exception:
                logger.exception("Task exception was never retrieved\nfuture: <Task exception=%r>", error)
    finally:
        logging.setLogRecordFactory(make)
    assert "customer 7" not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "KeyError" in stream.getvalue()
    assert "OSError: no answer from redis://shop:***@cache" in stream.getvalue()


def test_checks_of_a_reload_count_nothing(champions, buyers):
    take_counted()
    endpoint = ENDPOINTS["/churn"]
    request = endpoint.request(user_ids=buyers[:2])
    endpoint.json(champions, request, champions.customers.as_of, ignore)
    assert not take_counted()


# ---- request ids and the log -----------------------------------------------------------------------------------------


def test_new_ids_are_no_others_also_after_a_fork():
    def some() -> list[bytes]:
        return [request_ids.header_of(())[1] for _ in range(2 * request_ids.AT_ONCE)]

    found = some()
    read, write = os.pipe()
    if (process := os.fork()) == 0:
        try:
            os.write(write, b" ".join(some()))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as handle:
        forked = handle.read().split()
    os.waitpid(process, 0)
    assert len({*found, *forked, *some()}) == 6 * request_ids.AT_ONCE
    assert all(re.fullmatch(b"[0-9a-f]{16}", one) for one in found)


@pytest.fixture(scope="module")
def json_server(workspace, server_environment, tmp_path_factory):
    """URL and log of a server with two workers that logs all requests as JSON."""
    folder = tmp_path_factory.mktemp("json")
    shop = Workspace(folder / "shop")
    shutil.copytree(workspace.root, shop.root)
    (shop.root / "qianmian.yaml").write_text("serving: {log_format: json, log_requests: all}\n")
    log = folder / "server.log"
    with log.open("wb") as handle, running(shop, workers=2, env=server_environment(shop, 2), log=handle) as url:
        yield url, log


def test_no_answer_is_without_a_request_id_and_no_line_says_who_it_is_about(json_server, buyers, champions):
    url, log = json_server
    item_ids, ids = champions.models["recommend"].catalogue.item_ids, {}
    requests = bodies(buyers, item_ids, MARK)
    private = {"authorization": f"Bearer {MARK}", "cookie": MARK, "user-agent": MARK}
    padding = b" " * 20_000  # such a body is answered by BentoML
    for route, all_bodies in requests.items():
        texts = [orjson.dumps(body) for body in all_bodies]
        for number, text in enumerate([*texts, padding + texts[0], b'{"%s' % MARK.encode(), b"\xff"]):
            request_id = f"client{route.replace('/', '.')}-{number}"
            status, headers = send(f"{url}/v1{route}?{MARK}", text, {**private, "x-request-id": request_id})
            assert headers["x-request-id"] == request_id, (route, number)
            ids[request_id] = route, status
    for path in ("/livez", "/readyz", "/metrics", "/docs.json", "/", f"/{MARK}", f"/v1/{MARK}", "/v1/churn"):
        made = {
            send(f"{url}{path}", headers={**private, "x-request-id": f"not {MARK}"})[1]["x-request-id"] for _ in "ab"
        }
        assert len(made) == 2, path
        assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made), path
    assert send(f"{url}/v1/churn", b"x" * 2_000_000, {"x-request-id": "large"})[1]["x-request-id"] == "large"
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert b"x-request-id: " in connection.recv(1_000)

    # BentoML's first line of each process comes before the settings are known
    own = [line for line in log.read_bytes().splitlines() if b"Applying user config override" not in line]
    lines = [orjson.loads(line) for line in own]
    assert MARK not in log.read_text()
    assert not {buyer for buyer in buyers[:30] if f'"{buyer}"' in log.read_text()}
    assert all({"time", "level", "logger", "worker", "message"} <= line.keys() for line in lines)
    answered = {line["request_id"]: line for line in lines if "seconds" in line}
    for request_id, (route, status) in ids.items():
        line = answered[request_id]
        assert (line["route"], line["status"]) == (route, status)
        assert line["seconds"] > 0
    assert {line["worker"] for line in lines} >= {"entry_service:qianmian:1", "entry_service:qianmian:2", "supervisor"}
    # of two workers, each with all models
    found = samples(urllib.request.urlopen(f"{url}/metrics").read().decode())
    assert total(found, "qianmian_ready") == total(found, "qianmian_model_info", model="qianmian-churn") == 1
    assert MARK not in str(found)
