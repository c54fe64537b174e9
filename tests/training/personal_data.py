"""Personal data of a customer, to be looked for in what a training writes and prints."""

from __future__ import annotations

from pathlib import Path

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.settings import Settings
from qianmian.workspace import Workspace

SECRETS = ("7700900461", "quist@post", "4929123412341234", "Wilhelmina")


def plant(workspace: Workspace, folder: Path) -> None:
    """Ingest a name, a phone, an email address and a card of one customer of the workspace from files in a folder."""
    folder.mkdir()
    connection = Lake(workspace).connect().con
    source, user = connection.execute(
        "SELECT source, source_user_id FROM transactions WHERE source_user_id IS NOT NULL ORDER BY ts LIMIT 1"
    ).fetchone()
    (folder / "identities.csv").write_text(
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
    (folder / "profiles.csv").write_text(f"id,given_name,phone\n{user},Wilhelmina,+447700900461\n")
    (folder / "sources.yaml").write_text(f"""source: {source}
tables:
  identities:
    path: identities.csv
    columns: {{source_user_id: customer, id_type: kind, id_value: value, observed_at: seen}}
  profiles: {{path: profiles.csv, columns: {{source_user_id: id, given_name: given_name, phone: phone}}}}
""")
    report = ingest(workspace, FileSource(folder / "sources.yaml"), Settings())
    assert report.tables["identities"].kept == 3
    assert report.tables["profiles"].kept == 1
