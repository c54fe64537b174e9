"""The keys of a `sources.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from features.data.sources.base import Refunds
from features.data.sources.files.text_encodings import codec_name
from qianmian.model_settings import Section

FILE_KEYS = ("delimiter", "encoding", "header", "quote", "skip", "file_date")  # keys that say how a file is read
OWN_KEYS = {"items": ("shared", "complete", "max_vanished"), "transactions": ("refunds",)}  # of one table only
Share = Annotated[float, Field(ge=0, le=1)]
RESERVED_SOURCES = {
    "init": "`qianmian ingest init` proposes a sources.yaml",
    "events": "the source `events` holds what the server records",
}


class CurrencySettings(Section):
    """`currency` of a table: the currency of its amounts, and rates if they are in several."""

    column: str | None = Field(None, description="column or expression; default: the sign or code inside the amounts")
    to: str = Field(min_length=1, max_length=8, description="currency in which amounts are stored")
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="currency → what one unit of it is worth in `to`"
    )


class TableSettings(Section):
    """One entry of `tables` in a `sources.yaml`."""

    path: str | list[str] | None = Field(None, description="file, glob or a list of them, relative to the YAML file")
    url: str | None = Field(None, description="database instead of files: SQLAlchemy URL; ${NAME} is a variable")
    table: str | None = Field(None, description="database: table or schema.table")
    query: str | None = Field(None, description="database: SELECT instead of a table")
    watermark: str | None = Field(None, description="database: column that grows with every change; reads what is new")
    overlap: float | None = Field(
        None, ge=0, description="database: seconds or numbers before the last watermark that are read again"
    )
    columns: dict[str, str] = Field(
        min_length=1, description="canonical column → column of the file, or expression over its columns"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=4, description="CSV: by default the most frequent of , ; tab | in the header"
    )
    quote: str = Field('"', max_length=1, description="CSV: character around cells; empty: a quote is text")
    encoding: str | None = Field(None, description="CSV: any encoding that Python knows; default UTF-8, or by its BOM")
    skip: int = Field(0, ge=0, description="CSV: number of lines before the header")
    header: list[str] | None = Field(None, min_length=1, description="CSV without a header line: column names")
    fill_down: list[str] | None = Field(
        None, description="columns whose cells are filled only in the first line of an order; []: leave them empty"
    )
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
    file_date: str | None = Field(
        None, description="the date in the names of the files, e.g. people_%Y-%m.csv; their rows hold from then on"
    )
    fixed: list[str] | Literal["all"] = Field([], description="profiles: attributes that never change, or all")
    max_rejected: Share = Field(0.5, description="ingest fails if a larger share of the rows is rejected")
    shared: bool | None = Field(
        None, description="items: true if several sources share one catalogue, false if the goods are this source's own"
    )
    complete: bool | None = Field(
        None, description="items: true if the files are the full catalogue; items that it lacks are no longer offered"
    )
    max_vanished: Share = Field(0.5, description="items: ingest fails if a complete catalogue lacks a larger share")

    refunds: Refunds | None = Field(
        None,
        description="transactions: in_place if a refund is the row of its sale with another status, separate if it is "
        "a row beside the sale; default: told by the rows",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        if value is not None:
            codec_name(value)
        return value

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (files) or url (a database)")
        if self.url is not None and (self.table is None) == (self.query is None):
            raise ValueError("url needs either table or query")
        foreign = ("table", "query", "watermark", "overlap") if self.url is None else FILE_KEYS
        given = [name for name in foreign if name in self.model_fields_set]
        if given:
            raise ValueError(f"{given[0]} belongs to {'url' if self.url is None else 'path'}")
        return self


class FilesSettings(Section):
    """A `sources.yaml`; `tables` is validated entry by entry, so that all problems are reported at once."""

    source: str = Field(pattern=r"^\w[\w.\-]{0,63}$", description="name of the system; also a folder of the quarantine")
    timezone: str = "UTC"
    no_customer: list[str] = Field([], description="customer ids of walk-in, guest and test accounts: no customer")
    not_merchandise: list[str] = Field([], description="item ids of bags, deposits and shipping: never recommended")
    tables: dict[str, Any] = Field(min_length=1)

    @field_validator("source")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value.lower() in RESERVED_SOURCES:
            raise ValueError(f"the name {value} is reserved ({RESERVED_SOURCES[value.lower()]}): use another name")
        return value
