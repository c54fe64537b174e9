"""The keys of a `sources.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from qianmian.settings import Section

Share = Annotated[float, Field(ge=0, le=1)]


class TableSettings(Section):
    """One entry of `tables` in a `sources.yaml`."""

    path: str | list[str] = Field(description="file, glob or a list of them, relative to the YAML file")
    columns: dict[str, str | int | float | bool] = Field(
        min_length=1, description="canonical column → column of the file, or expression over its columns"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=4, description="CSV: by default the most frequent of , ; tab | in the first line"
    )
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    header: list[str] | None = Field(None, min_length=1, description="CSV without a header line: column names")
    hashed: bool = Field(False, description="identities: the source already hashed the personal identifiers")
    max_rejected: Share = Field(0.5, description="ingest fails if a larger share of the rows is rejected")
    shared: bool | None = Field(
        None, description="items: true if several sources share one catalogue, false if the goods are this source's own"
    )
    complete: bool | None = Field(
        None, description="items: true if the files are the full catalogue; items that it lacks are no longer offered"
    )
    max_vanished: Share = Field(0.5, description="items: ingest fails if a complete catalogue lacks a larger share")


class FilesSettings(Section):
    """A `sources.yaml`; `tables` is validated entry by entry, so that all problems are reported at once."""

    source: str = Field(pattern=r"^\w[\w.\-]{0,63}$", description="name of the system; also a folder of the quarantine")
    timezone: str = "UTC"
    tables: dict[str, Any] = Field(min_length=1)
