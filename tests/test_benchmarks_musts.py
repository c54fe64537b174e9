"""A benchmark fails on a ratio of its own run, CPU seconds, peak memory or a metric, never on wall seconds."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import json
import multiprocessing
import random
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import filters

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
HELPERS = {
    "common",
    "features_online",
    "http_load",
    "measurement_aa",
    "measurement_oracles",
    "predictions_churn",
    "predictions_lifecycle",
    "predictions_telco",
    "predictions_value",
    "recommenders",
    "recommenders_data",
    "recommenders_page",
    "recommenders_figures",
    "recommenders_peer",
    "reload",
    "scale_data",
}  # run or used by others
PACKAGES = {"qianmian", "features", "models", "training", "serving", "cli", "packs"}
FILES = sorted(BENCHMARKS.glob("*.py"))


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark without its folder in front of the packages: features.py there is not the package of that name."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])

    def module(name):
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded  # a dataclass looks its module up
        spec.loader.exec_module(loaded)
        return loaded

    yield module
    for name in [name for name, held in sys.modules.items() if getattr(held, "__file__", None) in map(str, FILES)]:
        del sys.modules[name]


@pytest.fixture
def common(load):
    load("pipeline")
    return sys.modules["common"]


def test_a_must_is_never_in_wall_seconds(common):
    assert set(common.UNITS) == {"ratio", "cpu_seconds", "peak_mb", "metric"}
    for unit in ("seconds", "wall_seconds", "ms"):
        with pytest.raises(ValueError, match="the unit of a must"):
            common.Must(unit, most=1.0)
    for bounds in ({}, {"least": 1.0, "most": 2.0}):
        with pytest.raises(ValueError, match="one bound"):
            common.Must("ratio", **bounds)


@pytest.mark.parametrize("name", [file.stem for file in FILES if file.stem not in HELPERS])
def test_every_benchmark_declares_its_musts(name, load):
    musts = load(name).MUSTS
    assert musts
    assert all(type(must).__name__ == "Must" for must in musts.values())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_benchmark_imports_is_there(file):
    """Most imports are inside functions, and the fast tests run no benchmark."""
    missing = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module.partition(".")[0] not in PACKAGES:
            continue
        module = importlib.import_module(node.module)
        missing += [
            f"{node.module}.{alias.name}"
            for alias in node.names
            if not hasattr(module, alias.name) and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
        ]
    assert missing == []


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem != "recommenders_page"], ids=lambda file: file.stem
)
def test_common_is_imported_before_the_packages(file):
    """It puts their folder before that of the benchmarks, whose features.py would hide a package."""
    modules = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    ours = [name for name in modules if name.partition(".")[0] in PACKAGES | {"common"}]
    assert ours[:1] in ([], ["common"])


@pytest.mark.parametrize(
    ("bound", "value", "passed"),
    [
        ({"least": 1.0}, 1.0, True),
        ({"least": 1.0}, 0.99, False),
        ({"most": 1.0}, 1.0, True),
        ({"most": 1.0}, 1.01, False),
        ({"least": 1.0}, float("nan"), False),
        ({"most": 1.0}, float("nan"), False),
    ],
)
def test_a_value_is_checked_against_its_must(common, bound, value, passed):
    (check,) = common.check({"beside the peer": common.Must("ratio", **bound)}, {"beside the peer": value})
    assert check.passed is passed


def test_every_must_is_printed_and_a_failed_one_fails_the_benchmark(common, tmp_path, capsys):
    musts = {"memory": common.Must("peak_mb", most=4_096), "CPU": common.Must("cpu_seconds", most=40.0)}
    results = {"a size": {"qianmian": {"seconds": common.value(1.0)}}}
    with pytest.raises(SystemExit) as passed:
        common.finish(results, common.check(musts, {"memory": 2_365.4}), tmp_path / "found.json")
    assert passed.value.code == 0
    assert json.loads((tmp_path / "found.json").read_text()) == results
    with pytest.raises(SystemExit) as failed:
        common.finish(results, common.check(musts, {"memory": 100.0, "CPU": 52.25}, "15 million lines"), None)
    assert failed.value.code == 1
    with pytest.raises(SystemExit) as failed_before:
        common.finish(results, (), None, ["gowalla: recall@20"])
    assert failed_before.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "must reached: memory: 2,365 MB, must be at most 4,096 MB",
        "must reached: 15 million lines, memory: 100 MB, must be at most 4,096 MB",
        "MUST FAILED: 15 million lines, CPU: 52.2 CPU s, must be at most 40.0 CPU s",
        "MUST FAILED: gowalla: recall@20",
    ]


def test_the_cost_of_a_command_is_that_of_its_own_process(common):
    """Not of this one, which holds more, nor of the child before it."""
    large = common.timed([sys.executable, "-c", "held = b'x' * 300_000_000; print('done')"])
    small = common.timed([sys.executable, "-c", "import time; time.sleep(0.3)"])
    busy = common.timed([sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"])
    assert large.peak_mb > 286
    assert small.peak_mb < 60
    assert small.wall_seconds >= 0.3
    assert small.cpu_seconds < busy.cpu_seconds
    assert busy.cpu_seconds >= 0.4
    with pytest.raises(SystemExit, match="failed with 3"):
        common.timed([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_cost_of_a_call(common):
    result, cost = common.measure_cost(lambda: sum(range(1_000_000)))
    assert result == 499_999_500_000
    assert cost.cpu_seconds > 0
    assert cost.peak_mb > 10
    assert set(cost.metrics()) == {"seconds", "cpu_seconds", "peak_mb"}
    assert common.Cost(**json.loads(cost.json())) == cost


@contextmanager
def answering(*statuses):
    """URL of a server that answers with these statuses, one after the other, and then closes its connections."""
    left = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status = next(left, None)
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", "0.001")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("statuses", "error", "counts"),
    [
        ((200, 429, 200, 500), SystemExit, [2, 1, 1]),
        ((200, 429, 422), SystemExit, [1, 1, 1]),
        ((200, 429, 200), asyncio.IncompleteReadError, [2, 1, 0]),
    ],
)
def test_a_client_of_a_load_ends_at_a_status_that_is_no_refusal_and_at_a_closed_connection(
    load, statuses, error, counts
):
    starvation, found = load("starvation"), [0, 0, 0]
    with answering(*statuses) as url, pytest.raises(error):
        asyncio.run(starvation.client(url, "explain", ["a"], 0, found))
    assert found == counts


def test_a_load_whose_clients_end_during_the_measurement_fails(load):
    load("pipeline")  # for the path; a process of its own imports the module by its name
    starvation = importlib.import_module("starvation")

    def wait_for_the_end(url):
        with starvation.loaded(url, "explain", ["a"]) as counts:
            assert counts[:] == [1, 0, 0]
            for process in multiprocessing.active_children():
                process.join(30)

    with answering(200) as url, pytest.raises(SystemExit, match="explain have ended"):
        wait_for_the_end(url)


def test_a_load_without_an_answer_fails_its_must(load):
    starvation = load("starvation")
    assert {name for name in starvation.MUSTS if name.startswith("answered_")} == {
        f"answered_{load}{kind}" for load in starvation.LOADS for kind in starvation.KINDS
    }
    assert all(must.least == 1 for name, must in starvation.MUSTS.items() if name.startswith("answered_"))


def soak_kinds(soak, categories=("A/B", "A/C")):
    catalogue = SimpleNamespace(
        item_ids=[f"i{column}" for column in range(80)],
        category_of=lambda column: categories[column % len(categories)].split("/") if categories else [],
        scenes=("home", "discover"),
    )
    model = SimpleNamespace(catalogue=catalogue, bundle=SimpleNamespace(as_of=datetime(2024, 8, 1)))
    champions = SimpleNamespace(models=dict.fromkeys(("recommend", "churn", "lifecycle", "lookalike"), model))
    return soak.kinds_of(champions, [f"u{row}" for row in range(100)])


@pytest.mark.parametrize("categories", [("A/B", "A/C"), ()])
def test_the_soak_never_sends_the_same_unknown_id_path_filter_or_moment_twice(load, categories):
    soak = load("soak")
    kinds = soak_kinds(soak, categories)
    assert {"filter", "caps", "exploration", "lookalike", "predictions", "churn", "discover"} < set(kinds)
    requests = [
        (name, kind.path.format(number=number), json.dumps(kind.body(soak.Draw(number, "u1", random.Random(number)))))
        for name, kind in kinds.items()
        for number in range(20)
    ]
    different = Counter(name for name, *_ in set(requests))
    new = ("unknown customer", "unknown exclusion", "new filter", "events", "unknown path", "unknown item", "lookalike")
    assert {name: different[name] for name in new} == dict.fromkeys(new, 20)
    assert different["similar"] > 10


def test_the_soak_counts_a_request_without_its_own_answer_as_an_error(load):
    soak = load("soak")
    kinds = {"one": soak.Kind(1, "/", 200, lambda draw: {})}
    with answering(*[200] * 30, *[422] * 5) as url:
        senders = soak.Senders(url, kinds, ["u1"])
        senders.send(40)
    assert senders.requested == 40
    assert senders.errors == 10
    assert senders.statuses == {("one", 200): 30, ("one", 422): 5, ("one", 0): 5}


def test_the_soak_fails_when_a_sender_does(load):
    soak = load("soak")
    kinds = {"one": soak.Kind(1, "/", 200, lambda draw: 1 / (draw.number - 5))}
    with answering(*[200] * 20) as url, pytest.raises(ZeroDivisionError):
        soak.Senders(url, kinds, ["u1"]).send(20)


def test_the_soak_fails_without_a_worker(load):
    soak = load("soak")
    with pytest.raises(SystemExit, match="no worker"):
        soak.worker_kilobytes(soak.Target("http://127.0.0.1:1", []))


def test_a_quick_soak_has_no_must_of_the_slope(load):
    soak = load("soak")
    assert set(soak.MUSTS) == {"errors", "slope_low_kb"}
    assert set(soak.QUICK_MUSTS) == {"errors"}


def test_request_costs_measures_another_large_filter_with_every_request(load):
    request_costs = load("request_costs")
    catalogue = SimpleNamespace(item_ids=[f"i{column}" for column in range(12_000)], category_of=lambda column: ["A"])
    champions = SimpleNamespace(models={"recommend": SimpleNamespace(catalogue=catalogue)})
    generator, request = random.Random(0), request_costs.ENDPOINTS[request_costs.LISTS].request
    for options in request_costs.large_filters(champions).values():
        texts = {json.dumps({"user_id": "u1", **options(generator)}) for _ in range(5)}
        assert len(texts) == 5
        for text in texts:
            parsed = request_costs.parse_request(request, text.encode())
            assert parsed.exclude or filters.parse(parsed.filters, "filters")


def test_request_costs_does_not_count_the_time_in_which_others_have_the_core(load):
    request_costs = load("request_costs")
    request = request_costs.ENDPOINTS[request_costs.LISTS].request
    endpoint = SimpleNamespace(
        request=request, is_slow=lambda champions, plain: time.sleep(0.02), json=lambda *_: time.sleep(0.02)
    )
    assert request_costs.estimate_cpu_us(None, endpoint, "u1", calls=2) < 10_000
    assert request_costs.cpu_ms(None, endpoint, {"user_id": "u1"}) < 10
