"""The settings as frozen Pydantic models: every key with its default. `qianmian.config` loads them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from qianmian.model_settings import (
    ChurnSettings,
    ClustersSettings,
    ContactSettings,
    DemandSettings,
    GateSettings,
    LeftSettings,
    LifecycleSettings,
    ListsSettings,
    LookalikeSettings,
    MonitoringSettings,
    PropensitySettings,
    RecommendSettings,
    Section,
    UpliftSettings,
    ValueSettings,
)
from qianmian.timezones import UTC_ZONE, timezone_problem


class IdType(Section):
    """How one type of identifier links records.

    Examples
    --------
    >>> IdType(type="table_number", priority=95, max_customers=2).strong
    False
    """

    type: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="value of `identities.id_type`")
    priority: int = Field(100, ge=1, description="the smaller number wins if two identifiers contradict each other")
    max_customers: int | None = Field(
        3, ge=2, description="a value of more customers than this is shared and links no records; null: no limit"
    )
    expires_days: float | None = Field(
        None, gt=0, description="two sightings of one value further apart do not link; null: no limit"
    )
    strong: bool = Field(
        False, description="a customer has only one value: customers with different values are never merged"
    )
    pii: bool = Field(False, description="values are stored only as a salted keyed hash")
    counts_as: str | None = Field(None, description="the values are also values of this other type")


ID_TYPES: tuple[IdType, ...] = (
    IdType(type="login", priority=10, max_customers=10, strong=True, pii=True),
    IdType(type="unionid", priority=20, max_customers=10, strong=True),
    IdType(type="phone_verified", priority=30, max_customers=10, strong=True, pii=True, counts_as="phone"),
    IdType(type="card", priority=40, max_customers=3, pii=True),
    IdType(type="openid", priority=50, max_customers=3),
    IdType(type="email", priority=60, max_customers=3, expires_days=1095, pii=True),
    IdType(type="phone", priority=70, max_customers=5, expires_days=730, pii=True),
    IdType(type="anonymous_id", priority=75, max_customers=2),
    IdType(type="device", priority=80, max_customers=3, expires_days=180),
    IdType(type="cookie", priority=90, max_customers=3, expires_days=90),
)


class IdentitySettings(Section):
    """Settings of `qianmian identity`: the identifier types, and which records each may link."""

    shared_account_share: float = Field(
        0.02,
        gt=0,
        le=1,
        description="a customer with more of all order lines may be a shared account, such as a till's; 1: never",
    )

    id_types: tuple[IdType, ...] = Field(
        ID_TYPES, description="one entry per type; an entry changes or adds a type, the other types keep their defaults"
    )
    phone_country: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,3}$",
        coerce_numbers_to_str=True,
        description="calling code of telephone numbers without one, such as 86; null: they match no number with one",
    )

    @model_validator(mode="before")
    @classmethod
    def _merge_default_id_types(cls, raw: Any) -> Any:
        """Complete entries with the defaults of their type, so that an entry states only what it changes."""
        entries = raw.get("id_types") if isinstance(raw, dict) else None
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, dict) for entry in entries):
            return raw
        merged: dict[Any, dict[str, Any]] = {kind.type: kind.model_dump() for kind in ID_TYPES}
        for entry in entries:
            merged[entry.get("type")] = {**merged.get(entry.get("type"), {}), **entry}
        return {**raw, "id_types": list(merged.values())}

    @model_validator(mode="after")
    def _check_counts_as(self) -> Self:
        known = {kind.type: kind for kind in self.id_types}
        for kind in self.id_types:
            if kind.counts_as is None:
                continue
            other = known.get(kind.counts_as)
            if other is None or other.type == kind.type or other.counts_as or other.pii != kind.pii:
                raise ValueError(
                    f"{kind.type}: counts_as must name another declared type with the same pii, not {kind.counts_as!r}"
                )
        return self


AttributeUse = Literal["auto", "always", "never"]


class ProfilesSettings(Section):
    """Settings of profile attributes."""

    allow_undated: tuple[str, ...] = Field(
        (),
        description="attributes that models learn from although their past values are unknown: the first known value "
        "is taken for every earlier date",
    )
    in_models: AttributeUse = Field(
        "auto",
        description="whether churn, lifecycle and lookalike learn from profile attributes; auto: where they make the "
        "model better beyond noise on a validation period",
    )


class LinkingSettings(Section):
    """Settings of `qianmian identity link`: record linkage of records without a common identifier."""

    threshold: float = Field(0.9, gt=0, le=1, description="pairs with at least this match probability are one customer")
    review_low: float = Field(
        0.2, ge=0, lt=1, description="pairs from here up to the threshold are left to manual review"
    )
    max_block_records: int = Field(500, ge=2, description="a blocking key shared by more records is ignored")
    max_pairs: int = Field(50_000_000, ge=1, description="a run with more candidate pairs is rejected")

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.review_low > self.threshold:
            raise ValueError("review_low must not be above threshold")
        return self


RATE_PATTERN = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"


class ServingSettings(Section):
    """Settings of `qianmian serve`."""

    stale_after_days: float = Field(
        7.0,
        gt=0,
        description="responses based on older data say stale: true; older profiles are computed anew up to the last "
        "event of a customer instead of up to now",
    )
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="larger request bodies are rejected")
    most_waiting: int = Field(
        16, ge=0, description="slow requests of a route that wait in a process; further ones get a 429"
    )
    kept_lists: int = Field(
        20_000, ge=0, description="lists a process keeps for the next request of the customer, about 2.5 KB each"
    )
    event_identity_days: float = Field(
        30.0, ge=0, description="days for which a repeated event is recognised after it has left the event log"
    )
    kept_events: int = Field(
        20_000,
        ge=0,
        description="accepted events a process keeps for the next request of the customer, about 1 KB each",
    )
    fresh_profiles: bool = Field(
        True,
        description="tags and scores of customers with accepted events are computed anew, with the online state of the "
        "profiles in the memory of each process: about 250 bytes for each order line in it",
    )
    reload_seconds: float = Field(
        1.0, ge=0, description="time between two looks at whether champions or profiles have moved; 0: never reloaded"
    )
    drain_seconds: float = Field(
        1.0, ge=0, description="after SIGTERM, connections are still accepted for so long; /readyz says 503"
    )
    shutdown_seconds: float = Field(
        20.0, gt=0, description="after SIGTERM, requests in flight are answered for so long, then cut"
    )
    log_format: Literal["text", "json"] = Field("text", description="form of the lines that `qianmian serve` logs")
    log_requests: Literal["errors", "slow", "all"] = Field(
        "slow", description="requests with a line in the log: errors of the server, also slow ones, or all"
    )
    slow_seconds: float = Field(1.0, gt=0, description="requests that take so long are logged as slow")
    online_store: str | None = Field(
        None, min_length=1, description="where accepted events are: a file of the workspace, or a redis:// URL"
    )
    max_clock_skew_seconds: float = Field(
        300.0, ge=0, le=86_400, description="events whose time is further in the future are rejected"
    )
    rate_limit: str | None = Field(
        None,
        pattern=RATE_PATTERN,
        description="requests of one API key, such as 100/second, that each process answers; of one client address "
        "without keys; null: as many as it can",
    )
    allowed_hosts: tuple[str, ...] | None = Field(
        None, min_length=1, description="names in the Host header that are answered, without the port; null: any"
    )
    max_head_bytes: int = Field(
        32_768, ge=1_024, description="requests with a longer head are refused, from twice as many bytes on in any case"
    )
    head_seconds: float = Field(10.0, gt=0, description="time until the head of a request is complete")
    body_seconds: float = Field(60.0, gt=0, description="time until the body of a request begins to arrive")
    unread_seconds: float = Field(10.0, gt=0, description="time that a client may take nothing of its response")
    request_seconds: float = Field(60.0, gt=0, description="time that the response to a slow request may take")


class Settings(Section):
    """All settings with their defaults. `qianmian.yaml` in the workspace may override any of them."""

    seed: int = 0
    timezone: str | None = Field(
        None,
        description="IANA time zone of the customers' days and hours; null: UTC, with a warning",
    )
    pack: str | None = Field(
        None, description="name or path of the industry pack; the settings here override those of the pack"
    )
    database_memory_gb: float = Field(
        1.5,
        ge=0.5,
        description="memory of DuckDB in ingest and features; more is written to temporary files",
    )
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)
    churn: ChurnSettings = Field(default_factory=ChurnSettings)
    left: LeftSettings = Field(default_factory=LeftSettings)
    lifecycle: LifecycleSettings = Field(default_factory=LifecycleSettings)
    value: ValueSettings = Field(default_factory=ValueSettings)
    propensity: PropensitySettings = Field(default_factory=PropensitySettings)
    uplift: UpliftSettings = Field(default_factory=UpliftSettings)
    lookalike: LookalikeSettings = Field(default_factory=LookalikeSettings)
    contact: ContactSettings = Field(default_factory=ContactSettings)
    demand: DemandSettings = Field(default_factory=DemandSettings)
    clusters: ClustersSettings = Field(default_factory=ClustersSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    lists: ListsSettings = Field(default_factory=ListsSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)
    identity: IdentitySettings = Field(default_factory=IdentitySettings)
    linking: LinkingSettings = Field(default_factory=LinkingSettings)
    profiles: ProfilesSettings = Field(default_factory=ProfilesSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)

    @field_validator("timezone")
    @classmethod
    def _one_certain_zone(cls, name: str | None) -> str | None:
        problem = None if name is None else timezone_problem(name)
        if problem:
            raise ValueError(problem)
        return name

    @property
    def calendar_timezone(self) -> str:
        """The time zone of days and hours: `timezone`, or UTC."""
        return self.timezone or UTC_ZONE


def with_tune_seconds(settings: Settings, seconds: int) -> Settings:
    """The settings with one time budget for the `--tune` of every job.

    Examples
    --------
    >>> with_tune_seconds(Settings(), 30).churn.tune_seconds
    30
    """
    sections = {name: getattr(settings, name) for name in ("recommend", "churn", "propensity", "value")}
    return settings.model_copy(
        update={name: section.model_copy(update={"tune_seconds": seconds}) for name, section in sections.items()}
    )


def problems_of(error: ValidationError) -> list[str]:
    """The errors found by Pydantic, one line each, beginning with the dotted path."""
    return [
        f"{'.'.join(str(part) for part in found['loc']) or '(whole file)'}: {found['msg']}" for found in error.errors()
    ]
