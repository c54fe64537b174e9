"""Choosing a pack in one line of the settings: what it changes, that the user's own keys win, and every mistake of a pack at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.definitions import FEATURES
from features.definitions.pack_features import features_for, replenishment_cycles
from features.profiles.building import ensure_snapshot
from features.profiles.tags.pack_tags import tags_for
from features.profiles.tags.tagging import tags_digest
from qianmian.config import load_settings
from qianmian.errors import ConfigError
from qianmian.model_settings import LifecycleSettings
from qianmian.packs import builtin_packs, load_pack
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.packs.outcome import BEGIN

SMALL = {"title": "Mine", "description": "my own trade"}


def write(folder: Path, settings: str, pack: dict | None = None) -> Path:
    file = folder / "qianmian.yaml"
    file.write_text(settings, encoding="utf-8")
    if pack is not None:
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine" / "pack.yaml").write_text(
            yaml.safe_dump({**SMALL, **pack}, allow_unicode=True), encoding="utf-8"
        )
    return file


def problems(folder: Path, pack: dict) -> list[str]:
    file = write(folder, "pack: ./mine\n", pack)
    with pytest.raises(ConfigError) as caught:
        tags_for(load_settings(file))
    assert caught.value.exit_code == 2
    return caught.value.problems


# ---- choosing --------------------------------------------------------------------------------------------------------


def test_one_line_changes_thresholds_tags_and_cycles(tmp_path):
    settings = load_settings(write(tmp_path, "pack: beauty\n"))
    assert settings.lifecycle == LifecycleSettings(new_days=45, loyal_orders=6, min_gap_days=14, max_gap_days=90)
    assert "skin_or_makeup" in {tag.name for tag in tags_for(settings)}
    assert replenishment_cycles(settings)["serum"].days == 60
    assert replenishment_cycles(Settings()) == {}
    assert features_for(Settings()) == ()


def test_the_users_own_keys_win(tmp_path):
    settings = load_settings(write(tmp_path, "pack: beauty\nlifecycle: {new_days: 10}\n"))
    assert (settings.lifecycle.new_days, settings.lifecycle.loyal_orders) == (10, 6)


def test_a_pack_of_ones_own_lies_beside_the_settings(tmp_path, monkeypatch):
    file = write(
        tmp_path, "pack: ./mine\n", {"lifecycle": {"lost_below": {"value": 0.2, "because": "we have seen it so"}}}
    )
    monkeypatch.chdir("/")  # relative to the file that names it, not to where the command runs
    settings = load_settings(file)
    assert settings.lifecycle.lost_below == 0.2
    assert tags_for(settings) == tags_for(Settings())


def test_an_edited_pack_is_read_again_and_makes_other_tags(tmp_path):
    tag = {
        "name": "big",
        "category": "transaction",
        "description": "d",
        "values": [{"value": "yes", "when": {"feature": "amount_total", "operator": ">", "value": 9}}],
    }
    digests = []
    for limit in (9, 10):
        tag["values"][0]["when"]["value"] = limit
        file = write(tmp_path, "pack: ./mine\n", {"tags": [tag], "title": "M" * limit})
        digests.append(tags_digest(load_settings(file), Workspace(tmp_path)))
    assert digests[0] != digests[1] != tags_digest(Settings(), Workspace(tmp_path))


def test_the_pack_of_the_guide_is_a_pack(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "packs.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in guide.split("```yaml\n")[1:]]
    assert load_settings(write(tmp_path, blocks[0])).pack == "beauty"
    file = write(tmp_path, "pack: ./mine\n", yaml.safe_load(blocks[1]))
    assert {"celebrates", "replenishment_due"} <= {tag.name for tag in tags_for(load_settings(file))}
    for name in builtin_packs():
        assert f"| `{name}` | {len(load_pack(name).events)} |" in guide
        assert all(tag.name in guide for tag in load_pack(name).tags)


@pytest.mark.parametrize("chosen", ["beuty", "./nowhere", "../beauty"])
def test_a_pack_that_is_not_there_is_refused_with_the_other_mistakes(tmp_path, chosen):
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, f"pack: {chosen}\nchurn: {{horizon_days: 0}}\n"))
    assert len(caught.value.problems) == 2
    assert chosen in caught.value.problems[0]
    assert "did you mean beauty" in caught.value.problems[0] or "pack.yaml" in caught.value.problems[0]


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_pack_come_together(tmp_path):
    found = problems(
        tmp_path,
        {
            "events": {"Add": "crat"},
            "lifecycle": {
                "new_day": {"value": 1, "because": "long enough"},
                "lost_below": {"value": -1, "because": "long enough"},
            },
            "replenishment": {
                "soap": {"days": 0, "spread": 1, "source": "long enough"},
                "tea": {"days": 9, "spread": 9, "source": "long enough"},
            },
            "tags": [{"name": "A B", "category": "life", "description": "d", "values": []}],
            "colour": "green",
            "synthetic": {"categories": {"a": {"price": -1, "sise": 2}}, "kinds": []},
        },
    )
    text = "\n".join(found)
    for said in (
        "events.Add: 'crat' is not a valid event type (did you mean cart?); allowed: view, cart,",
        "lifecycle.new_day: 'new_day' is not a valid lifecycle setting",
        "lifecycle.lost_below.value",
        "replenishment.soap.days",
        "replenishment.tea: the spread (9 days) must be below the cycle (9 days)",
        "tags.0.name",
        "tags.0.category: 'life' is not a valid tag category (did you mean lifecycle?)",
        "tags.0.values",
        "colour: unknown key; allowed: title, description, events",
        "synthetic.categories.a.price",
        "synthetic.categories.a.sise: unknown key (did you mean price?)",
        "synthetic.kinds",
    ):
        assert said.replace(" (did you mean price?)", "") in text.replace(" (did you mean price?)", ""), said
    assert all("mine/pack.yaml" in problem for problem in found)


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        ({"events": {"Add": "cart", " add ": "view"}}, "(case and surrounding spaces are ignored)"),
        (
            {
                "replenishment": {
                    "a": {"days": 9, "spread": 1, "source": "long enough", "categories": ["x/y"]},
                    "b": {"days": 9, "spread": 1, "source": "long enough", "categories": ["x/y"]},
                }
            },
            "already belongs to the cycle a",
        ),
        (
            {"replenishment": {"a": {"days": 9, "spread": 1, "source": "long enough", "categories": ["x/y", "z"]}}},
            "cannot be mixed",
        ),
        (
            {"features": [{"name": "orders_28d", "view": "orders", "aggregate": "count", "description": "d"}]},
            "'orders_28d' is a feature already",
        ),
        (
            {"features": [{"name": "mine", "view": "lins", "aggregate": "cuont", "description": "d"}]},
            "unknown aggregate 'cuont'",
        ),
        (
            {
                "tags": [
                    {
                        "name": "t",
                        "category": "basic",
                        "description": "d",
                        "values": [{"value": 1, "when": {"feature": "orders_29d", "operator": ">", "value": 1}}],
                    }
                ]
            },
            "there is no feature 'orders_29d' (did you mean",
        ),
        (
            {
                "tags": [
                    {
                        "name": "t",
                        "category": "basic",
                        "description": "d",
                        "values": [{"value": 1, "when": {"feature": "orders_28d", "operator": "~", "value": 1}}],
                    }
                ]
            },
            "unknown operator '~'",
        ),
        (
            {
                "tags": [
                    {
                        "name": "lifecycle_stage",
                        "category": "basic",
                        "description": "d",
                        "values": [{"value": 1, "when": {"feature": "orders_28d", "operator": ">", "value": 1}}],
                    }
                ]
            },
            "is the name of a built-in tag or another tag",
        ),
        (
            {
                "synthetic": {
                    "categories": {"a": {"price": 1, "cycle": "soap"}},
                    "event_names": {"view": "Look"},
                    "kinds": [
                        {
                            "share": 0.5,
                            "gender": "f",
                            "age_band": "a",
                            "region": "north",
                            "income_band": "i",
                            "likes": ["b"],
                        }
                    ],
                }
            },
            "unknown cycle 'soap'",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_mistake_is_told_with_its_path_and_what_is_allowed(tmp_path, pack, said):
    assert any(said in problem for problem in problems(tmp_path, pack)), problems(tmp_path, pack)


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_event_names_of_the_trade_are_read_and_unknown_ones_refused(tmp_path):
    (tmp_path / "events.csv").write_text(
        "user,ts,what\nu1,2024-01-01,Add to Bag\nu1,2024-01-02, 收藏 \nu1,2024-01-03,view\nu1,2024-01-04,it's dancing\n",
        encoding="utf-8",
    )
    (tmp_path / "sources.yaml").write_text(
        "source: app\ntables:\n  events:\n    path: events.csv\n    max_rejected: 1\n    columns: {source_user_id: user, ts: ts, event_type: what}\n",
        encoding="utf-8",
    )
    for name, kept in (("beauty", ["cart", "favourite", "view"]), (None, ["view"])):
        workspace = Workspace(tmp_path / f"workspace {name}")
        report = ingest(
            workspace, SOURCES["files"](tmp_path / "sources.yaml", pack=load_pack(name) if name else None), Settings()
        )
        rows = Lake(workspace).connect().con.execute("SELECT event_type FROM events ORDER BY ts").fetchall()
        assert [row[0] for row in rows] == kept
        assert report.tables["events"].quarantined == 4 - len(kept)


def test_a_snapshot_holds_the_tags_of_its_pack_and_is_made_again_when_another_is_chosen(tmp_path):
    workspace = Workspace(tmp_path / "workspace").create()
    workspace.config_file.write_text("pack: beauty\n", encoding="utf-8")
    ingest(
        workspace,
        SOURCES["synthetic"](customers=40, days=120, pack=load_pack("beauty")),
        load_settings(workspace.config_file),
    )
    as_of = BEGIN.replace(month=4)
    first = ensure_snapshot(workspace, as_of, load_settings(workspace.config_file))
    assert {"skin_or_makeup", "replenishment_due"} <= set(first.tags)
    assert "serum_orders" in first.spec.names
    assert ensure_snapshot(workspace, as_of, load_settings(workspace.config_file)).tags == first.tags
    workspace.config_file.unlink()
    second = ensure_snapshot(workspace, as_of, load_settings(workspace.config_file))
    assert "skin_or_makeup" not in second.tags
    assert "serum_orders" not in second.spec.names
    assert Builder(Lake(workspace), FEATURES).supported(as_of=as_of)[0] == second.spec.features


@pytest.mark.parametrize(
    ("name", "default", "said"),
    [
        ("user_id", None, "tags.user_id: is the name of a column of the files with tags"),
        ("mixed", "no", "its values and default are of several kinds (bool, text); one is required"),
    ],
)
def test_a_tag_that_no_file_can_hold_is_refused(tmp_path, name, default, said):
    when = {"feature": "amount_total", "operator": ">", "value": 9}
    tag = {"name": name, "category": "basic", "description": "d", "values": [{"value": True, "when": when}]}
    file = write(tmp_path, "pack: ./mine\n", {"tags": [tag | ({"default": default} if default else {})]})
    with pytest.raises(ConfigError) as caught:
        tags_for(load_settings(file))
    assert any(said in problem for problem in caught.value.problems)
