"""No run, artifact or model contains personal data of the source, and no line of a training does."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow.parquet as pq

from tests.training.personal_data import SECRETS


def content_of(file: Path) -> str:
    """Content of a file, decompressed if it is compressed."""
    if file.suffix == ".parquet":
        return str(pq.read_table(file).to_pydict())
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            return " ".join(packed.read(name).replace(b"\0", b"").decode("latin-1") for name in packed.namelist())
    return file.read_bytes().replace(b"\0", b"").decode("latin-1")


def test_no_personal_data_reach_mlflow(trained):
    assert trained.results["churn"].version
    assert trained.results["lifecycle"].version
    root = trained.workspace.root
    written = [file for file in root.rglob("*") if file.is_file()]
    assert any(file.is_relative_to(root / "mlartifacts") for file in written)
    assert (root / "mlflow.db") in written
    for file in written:
        content = content_of(file)
        assert not [secret for secret in SECRETS if secret in content], file
    assert "churn: registered in" in trained.printed
    assert not [secret for secret in SECRETS if secret in trained.printed]
