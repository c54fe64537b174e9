"""`qianmian tags`: list, audit and value on a small synthetic shop."""

from __future__ import annotations

import json
import shutil

import pytest

from features.profiles.governance.audit import AUDIT_RULES
from features.profiles.tags import TAGS


def test_list(qianmian, published_shop):
    done = qianmian("tags", "list", "--workspace", published_shop, "--json")
    assert done.code == 0
    entries = {entry["name"]: entry for entry in done.json["tags"]}
    assert list(entries) == list(TAGS)
    assert entries["gender"]["coverage"] == 1.0
    assert entries["value_tier"]["how"] == "statistic"
    assert entries["churn_risk"]["lacks"] == ["not published by a model yet"]
    shown = qianmian("tags", "list", "--category", "basic", "--workspace", published_shop)
    assert shown.code == 0
    assert "gender" in shown.out
    assert "value_tier" not in shown.out
    assert "first_visit_source: first_referrer, first_visit_channel" in shown.out


def test_list_in_chinese(qianmian, published_shop):
    entries = {
        entry["name"]: entry for entry in qianmian("tags", "list", "--workspace", published_shop, "--json").json["tags"]
    }
    segment = entries["rfm_segment"]
    assert (segment["name_zh"], segment["values_zh"]["important_value"]) == ("RFM 分群", "重要价值客户")
    assert segment["description"] == TAGS["rfm_segment"].description
    shown = qianmian("tags", "list", "--lang", "zh", "--category", "transaction", "--workspace", published_shop)
    assert shown.code == 0
    for text in ("rfm_segment", "RFM 分群", "交易", "覆盖率", "按近 365 天消费金额把客户三等分"):
        assert text in shown.out
    assert TAGS["value_tier"].description in qianmian("tags", "list", "--workspace", published_shop).out


def test_profiles_of_an_earlier_date_are_not_published(qianmian, published_shop):
    done = qianmian("tags", "list", "--as-of", "2024-02-01", "--workspace", published_shop, "--json")
    assert (done.code, done.json["as_of"]) == (0, "2024-02-01T00:00:00")
    assert qianmian("tags", "list", "--workspace", published_shop, "--json").json["as_of"] == "2024-03-31T00:00:00"


def test_audit(qianmian, published_shop):
    done = qianmian("tags", "audit", "--workspace", published_shop, "--json")
    assert done.code == 0
    rules = {finding["rule"] for finding in done.json["findings"]}
    assert rules <= set(AUDIT_RULES)
    assert {"expired", "never_used"} <= rules  # the data end in 2024, and the workspace has no rules
    assert all(finding[part] for finding in done.json["findings"] for part in ("tags", "what", "why", "mend"))
    shown = qianmian("tags", "audit", "--strict", "--workspace", published_shop)
    assert shown.code == 3
    assert "fix:" in shown.out
    loose = qianmian("tags", "audit", "--threshold", "0.5", "--workspace", published_shop, "--json")
    assert len(loose.json["findings"]) > len(done.json["findings"])


def test_audit_reads_the_rules_of_the_workspace(qianmian, published_shop, tmp_path):
    place = tmp_path / "workspace"
    shutil.copytree(published_shop, place)
    (place / "segments").mkdir()
    (place / "segments" / "vip.json").write_text(json.dumps({"tag": "value_tier", "operator": "==", "value": "high"}))
    found = qianmian("tags", "audit", "--workspace", place, "--json").json["findings"]
    unused = {finding["tags"][0] for finding in found if finding["rule"] == "never_used"}
    assert unused == set(TAGS) - {"value_tier"}


def test_value(qianmian, tmp_path):
    place, target = tmp_path / "shop", "clv"
    assert qianmian("ingest", "synthetic", "--customers", "250", "--days", "120", "--workspace", place).code == 0
    done = qianmian("tags", "value", "--target", target, "--horizon-days", "14", "--workspace", place, "--json")
    assert done.code == 0, done.err
    assert (done.json["as_of"], done.json["target"], sum(done.json["outcome"].values())) == (
        "2024-04-16T00:00:00",
        target,
        done.json["customers"],
    )
    tags = done.json["tags"]
    assert [tag["bits"] for tag in tags] == sorted((tag["bits"] for tag in tags), reverse=True)
    assert done.json["keep"] == [
        tag["name"] for tag in sorted((tag for tag in tags if tag["picked"]), key=lambda tag: tag["picked"])
    ]
    assert done.json["keep"]
    best = tags[0]["customers"]
    assert best["most"]["mean"] > done.json["overall"] > best["least"]["mean"]
    assert best["lift"] == pytest.approx(best["most"]["mean"] / done.json["overall"])
    shown = qianmian("tags", "value", "--target", target, "--horizon-days", "14", "--top", "3", "--workspace", place)
    assert shown.code == 0
    assert f"keep: {', '.join(done.json['keep'])}" in shown.out
    assert f"for example {tags[0]['name']}: the 10 % of the customers" in shown.out
    assert f"overall paid {done.json['overall']:,.2f} on average" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list", "--category", "odd"], 2, "basic, behaviour"),
        (["list", "--as-of", "someday"], 2, "YYYY-MM-DD"),
        (["value", "--target", "love"], 2, "churn, purchase, clv"),
        (["value", "--as-of", "2024-03-30"], 3, "data ends before the end"),
        (["value"], 3, "too few customers"),
        (["audit", "--threshold", "2"], 2, "threshold"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_are_rejected(qianmian, published_shop, arguments, code, message):
    done = qianmian("tags", *arguments, "--workspace", published_shop)
    assert done.code == code
    assert message in done.err
