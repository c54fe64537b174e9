"""No run, artifact or model contains personal data of the source."""

from __future__ import annotations

import zipfile
from datetime import datetime
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.settings import Settings
from training import train

SECRETS = ("7700900461", "quist@post", "4929123412341234", "Wilhelmina")


def content_of(file: Path) -> str:
    """Content of a file, decompressed if it is compressed."""
    if file.suffix == ".parquet":
        return str(pq.read_table(file).to_pydict())
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            return " ".join(packed.read(name).replace(b"\0", b"").decode("latin-1") for name in packed.namelist())
    return file.read_bytes().replace(b"\0", b"").decode("latin-1")


def test_no_personal_data_reach_mlflow(shop, copy_workspace, settings, tmp_path, capsys, caplog):
    workspace = copy_workspace(shop)
    connection = Lake(workspace).connect().con
    source, user = connection.execute(
        "SELECT source, source_user_id FROM transactions WHERE source_user_id IS NOT NULL ORDER BY ts LIMIT 1"
    ).fetchone()
    (tmp_path / "identities.csv").write_text(
        "customer,kind,value,seen\n"
        + "".join(
            f"{user},{kind},{value},2024-01-03\n"
            for kind, value in (
                ("phone", "+447700900461"),
                ("email", "w.quist@post.example"),
                ("card", "4929123412341234"),
            )
        )
    )
    (tmp_path / "profiles.csv").write_text(f"id,given_name,phone\n{user},Wilhelmina,+447700900461\n")
    (tmp_path / "sources.yaml").write_text(f"""source: {source}
tables:
  identities:
    path: identities.csv
    columns: {{source_user_id: customer, id_type: kind, id_value: value, observed_at: seen}}
  profiles: {{path: profiles.csv, columns: {{source_user_id: id, given_name: given_name, phone: phone}}}}
""")
    report = ingest(workspace, FileSource(tmp_path / "sources.yaml"), Settings())
    assert report.tables["identities"].kept == 3
    assert report.tables["profiles"].kept == 1
    caplog.set_level("DEBUG")
    results = train(workspace, ["churn", "lifecycle"], clock=partial(datetime, 2025, 1, 1), settings=settings)
    assert all(result.version for result in results)
    written = [file for file in workspace.root.rglob("*") if file.is_file()]
    assert any(file.is_relative_to(workspace.root / "mlartifacts") for file in written)
    assert (workspace.root / "mlflow.db") in written
    for file in written:
        content = content_of(file)
        assert not [secret for secret in SECRETS if secret in content], file
    captured = capsys.readouterr()
    assert not [secret for secret in SECRETS if secret in captured.out + captured.err + caplog.text]
