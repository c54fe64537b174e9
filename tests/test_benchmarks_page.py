"""The benchmark page shows the measured figures and makes no other claims."""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


def loaded(name):
    """A benchmark's module, without its folder on the path, where features.py would hide the package `features`."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


# the modules import each other by these names
data = sys.modules["recommenders_data"] = loaded("recommenders_data")
page = sys.modules["recommenders_page"] = loaded("recommenders_page")
figures = loaded("recommenders_figures")


def metric(value, spread=0.005, n=1000):
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def exactly(value):
    return {"value": value, "low": value, "high": value, "n": 1}


@pytest.fixture
def results():
    models = {
        "item k-NN": {
            "recall@20": metric(0.1571),
            "ndcg@20": metric(0.1300),
            "seconds": exactly(4.2),
            "peak_mb": exactly(812.0),
        },
        "qianmian": {
            "recall@20": metric(0.1900, 0.002),
            "ndcg@20": metric(0.1516),
            "seconds": exactly(740.0),
            "peak_mb": exactly(5120.0),
        },
        "popular": {"recall@20": metric(0.0420), "ndcg@20": metric(0.0320)},
    }
    return {
        "models": models,
        "failed": [],
        "seconds": 900.0,
        "peak_mb": 6000.0,
        "machine": "2 cores, a processor",
        "version": "0.2.0",
        "command": "python benchmarks/recommenders.py --only gowalla --data DIR",
        "quick": False,
    }


def test_the_table_holds_every_figure_with_its_interval(results):
    text = page.page({"gowalla": results}, [], {})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| **qianmian** | .1900 [.1880, .1920] | .1516 [.1466, .1566] | 12.3 min | 5.1 GB |" in rows
    assert "| item k-NN | .1571 [.1521, .1621] | .1300 [.1250, .1350] | 4.2 s | 812 MB |" in rows
    assert "| popular | .0420 [.0370, .0470] | .0320 [.0270, .0370] |  |  |" in rows
    order = [line.split("|")[1].strip() for line in rows if "[" in line]
    assert order == ["**qianmian**", "item k-NN", "popular"], "the best first"
    assert "2 cores, a processor" in text
    assert "version 0.2.0" in text
    assert "`python benchmarks/recommenders.py --only gowalla --data DIR`" in text


def test_published_figures_are_quoted_beside_what_the_same_method_gave_here(results):
    rows = page.page({"gowalla": results}, [], {}).splitlines()
    assert (
        "| ItemCF | .1570 | .1214 | Sarwar et al. 2001; BARS leaderboard | item k-NN: .1571 (+0.1%), .1300 (+7.1%) |"
        in rows
    )
    assert "| LightGCN | .1820 | .1547 | He et al. 2020; BARS leaderboard | not rerun |" in rows


def test_a_figure_is_said_to_be_above_only_when_it_is(results):
    text = page.page({"gowalla": results}, [], {})
    assert (
        "must .1849: reached, and the whole interval is above it; aim .1920: not reached, but the interval includes it."
        in text
    )
    assert (
        "ndcg@20 of `qianmian` is .1516 [.1466, .1566]; must .1518: not reached, but the interval includes it" in text
    )
    assert "- recall@20 is .0020 short of .1920 (aim)." in text
    assert "- ndcg@20 is .0002 short of .1518 (must)." in text
    assert "- ndcg@20 of item k-NN is .1300; the published figure of ItemCF is .1214." in text
    assert (
        "In recall@20, `qianmian` is 20.9% better than item k-NN (.1571), the best other model measured here." in text
    )
    better = copy.deepcopy(results)
    better["models"]["qianmian"] |= {"recall@20": metric(0.195, 0.002), "ndcg@20": metric(0.163, 0.002)}
    better["models"]["item k-NN"]["ndcg@20"] = metric(0.1214)
    text = page.page({"gowalla": better}, [], {})
    assert "All targets are reached." in text
    assert "not reached" not in text


@pytest.mark.parametrize(
    ("value", "spread", "words"),
    [
        (0.21, 0.005, "reached, and the whole interval is above it"),
        (0.2, 0.005, "reached, but the interval extends below it"),
        (0.198, 0.005, "not reached, but the interval includes it"),
        (0.19, 0.005, "not reached, and the whole interval is below it"),
    ],
)
def test_standing(value, spread, words):
    assert page.compare_to_threshold(metric(value, spread), 0.2) == words


def test_every_figure_on_the_page_is_given_or_made_of_given_ones(results):
    """No figure is left over from other results."""
    given = copy.deepcopy(results)
    text = page.page({"gowalla": given}, [], {})
    part = text[text.index("## Gowalla") : text.index("## Ta-Feng")]
    known = {
        page.format_value(number)
        for model in given["models"].values()
        for found in model.values()
        for number in found.values()
    }
    known |= {
        page.format_value(value) for published in data.DATA["gowalla"].published for value in published.values.values()
    }
    known |= {
        page.format_value(threshold)
        for one in data.DATA["gowalla"].thresholds
        for threshold in (one.required, one.target)
    }
    known |= {
        page.format_value(threshold - given["models"]["qianmian"][one.metric]["value"])
        for one in data.DATA["gowalla"].thresholds
        for threshold in (one.required, one.target)
    }
    assert set(re.findall(r"(?<![\d])-?\.\d{4}", part)) <= known


def test_what_was_not_measured_is_not_spoken_of(results):
    text = page.page({"gowalla": results}, [], {})
    for key in ("completejourney", "tafeng"):
        assert f"## {data.DATA[key].title}\n\nNot measured yet." in text
    del results["models"]["qianmian"]
    text = page.page({"gowalla": results}, [], {})
    assert "`qianmian`, the model that ships, was not measured." in text
    assert "recall@20 was not measured; it is unknown whether it reaches .1849 (must)." in text


def test_a_failed_must_and_a_quick_run_are_said(results):
    text = page.page({"gowalla": results | {"failed": ["ndcg@20 0.1516 < 0.1518"], "quick": True}}, [], {})
    assert "- A requirement of the benchmark failed: ndcg@20 0.1516 < 0.1518." in text
    assert "This was a quick run" in text


def test_pictures_are_drawn_and_the_same_twice(results, tmp_path):
    figure_files = [figures.draw_figures({"gowalla": results}, tmp_path / name) for name in ("one", "two")][0]
    assert figure_files == {"gowalla": ["gowalla_accuracy.png", "gowalla_cost.png"]}
    assert (
        re.findall(r"\(benchmarks/(\w+\.png)\)", page.page({"gowalla": results}, [], figure_files))
        == figure_files["gowalla"]
    )
    for name in figure_files["gowalla"]:
        first, second = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert first == second
        assert len(first) > 5_000
    del results["models"]["qianmian"]["seconds"], results["models"]["item k-NN"]["seconds"]
    del results["models"]["qianmian"]["peak_mb"], results["models"]["item k-NN"]["peak_mb"]
    assert figures.cost_picture(results["models"]) is None
    figure = figures.accuracy_picture(data.DATA["gowalla"], results["models"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["popular", "item k-NN", "qianmian"]
    assert "BSPM-EM, published" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_data_set_keeps_its_figures_when_another_is_measured(results, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    recommenders = loaded("recommenders")
    recommenders.publish(tmp_path, {"gowalla": results})
    baskets = copy.deepcopy(results) | {"models": {"qianmian": {"recall@10": metric(0.16)}}}
    recommenders.publish(tmp_path, {"tafeng": baskets})
    known = json.loads((tmp_path / "benchmarks" / "results.json").read_text())
    assert set(known) == {"gowalla", "tafeng"}
    text = (tmp_path / "benchmarks.md").read_text()
    assert ".1900 [.1880, .1920]" in text
    assert ".1600 [.1550, .1650]" in text
    assert not (tmp_path / "benchmarks" / "december.csv").exists()


def test_the_peer_is_compared_in_both_months(results):
    ours = {name: metric(0.45) for name in ("recall@10", "ndcg@10", "hit_rate@10")}
    difference = {"value": 0.002, "low": -0.001, "high": 0.005, "n": 2037}
    more = {"completejourney_november": {"qianmian": {"ndcg@10_minus_peer": difference | {"value": -0.003}}}}
    shop = results | {"models": {"qianmian": ours}}
    assert "minus that of the peer" not in page.page({"completejourney": shop}, [], {})
    shop["models"]["qianmian"]["ndcg@10_minus_peer"] = difference
    text = page.page({"completejourney": shop | {"more": more}}, [], {})
    assert ".0020 [-.0010, .0050] in December 2017, -.0030 [-.0010, .0050] in November 2017." in text


def test_every_look_at_december_is_logged(results, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    recommenders = loaded("recommenders")
    ours = {
        name: metric(value, n=2037) for name, value in (("recall@10", 0.42), ("ndcg@10", 0.45), ("hit_rate@10", 0.83))
    }
    found = results | {"models": {"qianmian": ours}}
    for quick in (True, False, False):
        recommenders.publish(tmp_path, {"completejourney": found | {"quick": quick}})
    with (tmp_path / "benchmarks" / "december.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2, "a quick run does not look at December"
    assert (rows[0]["as_of"], rows[0]["households"], rows[0]["recall@10"], rows[0]["ndcg@10 low"]) == (
        "2017-12-01",
        "2037",
        "0.4200",
        "0.4450",
    )
    assert (tmp_path / "benchmarks.md").read_text().count("| 2017-12-01 |") == 2


def test_the_command_skips_what_is_not_there(tmp_path):
    command = [
        sys.executable,
        str(BENCHMARKS / "recommenders.py"),
        "--only",
        "gowalla,tafeng",
        "--docs",
        str(tmp_path / "docs"),
    ]
    done = subprocess.run(
        [*command, "--data", str(tmp_path), "--json", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"tafeng: skipped: {tmp_path} has no folder tafeng_nbr" in done.stdout
    assert json.loads((tmp_path / "found.json").read_text()) == {}
    assert not (tmp_path / "docs").exists(), "nothing measured, nothing written"
    wrong = subprocess.run([*command[:2], "--only", "netflix"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "netflix" in wrong.stderr
