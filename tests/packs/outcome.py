"""What a pack gives on its own made-up shop, from raw files to tags: run as a script it writes `expected.yaml` for a person to read over.

python -m tests.packs.outcome beauty
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.data.sources.synthetic import Synthetic
from features.definitions.pack_features import declared_features
from features.profiles.analytics import funnel
from features.profiles.purchase_process.fitting import process_of
from features.profiles.tags import TAGS, tag_values
from features.profiles.tags.declare import fit_tags
from features.profiles.tags.pack_tags import tags_for
from qianmian.config import load_settings
from qianmian.packs import load_pack
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CUSTOMERS_SHOWN = 6  # customers whose tags are all written out
BEGIN = datetime(2024, 1, 1)


def shop_of(name: str) -> Synthetic:
    """The made-up shop of a pack."""
    return Synthetic(pack=load_pack(name))


def make_lake(name: str, folder: Path) -> Lake:
    """The shop's rows as files with the trade's own event names, read as a company would have them read."""
    shop = shop_of(name)
    files = folder / "files"
    files.mkdir(parents=True)
    described = {}
    for table in ("items", "profiles", "transactions", "events"):  # without identities: an account is a customer
        rows = shop._data.tables[table]
        pq.write_table(rows, files / f"{table}.parquet")
        described[table] = {"path": f"{table}.parquet", "columns": {column: column for column in rows.column_names}}
    (files / "sources.yaml").write_text(yaml.safe_dump({"source": "shop", "tables": described}), encoding="utf-8")
    workspace = Workspace(folder / "workspace").create()
    workspace.config_file.write_text(f"pack: {name}\n", encoding="utf-8")
    report = ingest(workspace, SOURCES["files"](files / "sources.yaml", pack=load_pack(name)), Settings())
    assert report.read == report.kept, report.as_dict()
    return Lake(workspace)


def outcome(name: str, folder: Path) -> dict[str, Any]:
    """Everything `expected.yaml` states."""
    lake = make_lake(name, folder)
    settings = load_settings(lake.workspace.config_file)
    as_of = BEGIN + timedelta(days=shop_of(name).days)
    tags = [tag for tag in tags_for(settings) if tag.name not in TAGS or tag.name == "lifecycle_stage"]
    asked = {feature for tag in tags for feature in tag.inputs}
    builder = Builder(lake, declared_features(settings))
    built = builder.build(as_of, [feature for feature in declared_features(settings) if feature.name in asked])
    views = builder.views(as_of)
    fitted = fit_tags(built.table, tags, settings, process_of(views, built.table, settings.lifecycle))
    values = tag_values(built.table, tags, settings, fitted)
    users = built.table["user_id"].to_pylist()
    chosen = sorted(range(len(users)), key=lambda row: users[row])[:: max(len(users) // CUSTOMERS_SHOWN, 1)][
        :CUSTOMERS_SHOWN
    ]
    return {
        "as_of": as_of.date().isoformat(),
        "accounts": len(users),
        "tags": {tag: dict(sorted(Counter(map(_text, found)).items())) for tag, found in sorted(values.items())},
        "learnt_days": {cycle: days for cycle, (days, _) in sorted(fitted.get("replenishment_due", {}).items())},
        "people": {
            users[row]: {tag: values[tag][row] for tag in sorted(values) if values[tag][row] is not None}
            for row in chosen
        },
        "funnel": {
            per: [step.reached for step in funnel(views, per=per, window_days=91).steps]
            for per in ("customer", "session", "item")
        },
    }


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    for pack in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            found = outcome(pack, Path(temporary))
        target = Path(__file__).parents[2] / "packs" / pack / "expected.yaml"
        head = f"# What the pack must give on its made-up shop. Written by `python -m tests.packs.outcome {pack}`; read it over before committing it.\n"
        target.write_text(head + yaml.safe_dump(found, sort_keys=False, allow_unicode=True), encoding="utf-8")
