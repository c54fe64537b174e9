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
    file_date: str | None = Field(
        None, description="the date in the names of the files, e.g. people_%Y-%m.csv; their rows hold from then on"
    )
    fixed: list[str] | Literal["all"] = Field([], description="profiles: attributes that never change, or all")
    max_rejected: Share = Field(0.5, description="ingest fails if a larger share of the rows is rejected")


class FilesSettings(Section):
    """A `sources.yaml`; `tables` is validated entry by entry, so that all problems are reported at once."""

    source: str = Field(pattern=r"^\w[\w.\-]{0,63}$", description="name of the system; also a folder of the quarantine")
    timezone: str = "UTC"
    no_customer: list[str] = Field([], description="customer ids of walk-in, guest and test accounts: no customer")
    not_merchandise: list[str] = Field([], description="item ids of bags, deposits and shipping: never recommended")
    tables: dict[str, Any] = Field(min_length=1)
