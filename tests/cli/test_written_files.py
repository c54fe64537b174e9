"""Every file of customers that a command writes is in the index that an erasure follows."""

from __future__ import annotations

import click
import typer

from cli.main import app
from features.erasure.exports import TABLE, digest_of, read_exports
from qianmian.workspace import Workspace

# Each of these writes by `cli.features.write_table`, `cli.scoring.report` or `record_export`, which note the file. A
# command that is added here has to do so, too.
WRITERS = {
    "features --out",
    "score recommend --out",
    "score churn --out",
    "score churn --report",
    "score classify --out",
    "score predictions --out",
    "score value --out",
    "score tags --out",
    "score lookalike --out",
    "score content --out",
    "score lifecycle --out",
    "analytics sessions --out",
    "analytics funnel --out",
    "analytics paths --out",
    "identity link --review",
    "models export --out",
}


def writers(command: click.Command, name: str = "") -> set[str]:
    if isinstance(command, click.Group):
        return {one for key, part in command.commands.items() for one in writers(part, f"{name} {key}".strip())}
    return {
        f"{name} {option}"
        for one in command.params
        for option in one.opts
        if option in ("--out", "--review", "--report")
    }


def test_the_commands_that_write_files_are_known():
    assert writers(typer.main.get_command(app)) <= WRITERS


def test_a_written_file_is_noted_once(qianmian, fresh_shop, tmp_path):
    out, workspace = tmp_path / "sessions.parquet", Workspace(fresh_shop)
    for _ in range(2):
        assert qianmian("analytics", "sessions", "--workspace", fresh_shop, "--out", out).code == 0
    (noted,) = (export for export in read_exports(workspace) if export.path == str(out))
    assert (noted.path, noted.kind, noted.digest) == (str(out), TABLE, digest_of(out))
