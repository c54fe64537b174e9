"""The keys of a `sources.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from qianmian.settings import Section

Share = Annotated[float, Field(ge=0, le=1)]


class CurrencySettings(Section):
    """`currency` of a table: the currency of its amounts, and rates if they are in several."""

    column: str | None = Field(None, description="column or expression; default: the sign or code inside the amounts")
    to: str = Field(min_length=1, max_length=8, description="currency in which amounts are stored")
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="currency → what one unit of it is worth in `to`"
    )


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
    decimal: Literal[".", ","] | None = Field(
        None, description="decimal separator of numbers in text; default: told by the values of each column"
    )
    currency: str | CurrencySettings | None = Field(
        None, description="currency of the amounts, such as EUR; or column, to and rates if there are several"
    )
    private: list[str] = Field(default_factory=list, description="profiles: attributes to store as hashes")
    readable: list[str] = Field(
        default_factory=list, description="profiles: attributes to store as they are although they look personal"
    )
    hashed: bool = Field(False, description="identities: the source already hashed the personal identifiers")
    max_rejected: Share = Field(0.5, description="ingest fails if a larger share of the rows is rejected")


class FilesSettings(Section):
    """A `sources.yaml`; `tables` is validated entry by entry, so that all problems are reported at once."""

    source: str = Field(pattern=r"^\w[\w.\-]{0,63}$", description="name of the system; also a folder of the quarantine")
    timezone: str = "UTC"
    tables: dict[str, Any] = Field(min_length=1)
