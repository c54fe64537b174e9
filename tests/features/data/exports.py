"""A folder with an export and its sources.yaml, ingested into a workspace of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.data.ingest import IngestReport, ingest, preview
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.config import load_settings
from qianmian.workspace import Workspace

CASES = Path(__file__).parents[2] / "data" / "cases"
TRANSACTIONS = "{order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid}"


class Export:
    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "workspace")

    def source(self, text: str, columns: str, table: str = "transactions", keys: str = "") -> FileSource:
        """One CSV file, or another if `text` is its path, mapped onto one table."""
        (self.folder / "export.csv").write_text(text, encoding="utf-8")
        yaml = self.folder / "sources.yaml"
        yaml.write_text(
            f"source: shop\ntimezone: UTC\ntables:\n  {table}:\n    path: export.csv\n    max_rejected: 0.9\n"
            f"{keys}    columns: {columns}\n",
            encoding="utf-8",
        )
        return FileSource(yaml)

    def orders(self, *rows: str, head: str = "order,cust,sku,date,qty,paid", keys: str = "") -> IngestReport:
        return self.ingest("\n".join((head, *rows)) + "\n", TRANSACTIONS, keys=keys)

    def ingest(self, text: str, columns: str, table: str = "transactions", keys: str = "") -> IngestReport:
        return ingest(
            self.workspace, self.source(text, columns, table, keys), load_settings(self.workspace.config_file)
        )

    def preview(self, text: str, columns: str, table: str = "transactions", keys: str = "") -> IngestReport:
        return preview(
            self.workspace, self.source(text, columns, table, keys), load_settings(self.workspace.config_file)
        )

    def case(self, name: str, yaml: str = "sources.yaml") -> IngestReport:
        """Ingest one of the troublesome inputs."""
        return ingest(self.workspace, FileSource(CASES / name / yaml), load_settings(self.workspace.config_file))

    def configure(self, text: str) -> None:
        self.workspace.create()
        self.workspace.config_file.write_text(text, encoding="utf-8")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(sql).fetchall()


def warned(report: IngestReport, code: str) -> list[str]:
    """Messages of the warnings with this code."""
    return [warning.message for warning in report.warnings if warning.code == code]
