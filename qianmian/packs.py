"""Industry packs: event names, lifecycle thresholds, replenishment cycles, features and tags of one industry, as data.

A pack is a folder with a ``pack.yaml``; the built-in packs are in ``packs/``. ``pack: NAME`` in qianmian.yaml selects a
built-in pack, ``pack: ./FOLDER`` any other. The features and tags of a pack are validated in the layers that know
features and tags (`features.definitions.pack_features`, `features.profiles.tags.pack_tags`).
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, ValidationError, model_validator

from qianmian.errors import ConfigError, did_you_mean
from qianmian.model_settings import LifecycleSettings, Section
from qianmian.schema import EVENT_TYPES, TAG_CATEGORIES
from qianmian.yaml_files import read_yaml

FILE = "pack.yaml"
Scalar = str | float | bool
SnakeCaseName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


def _one_of(allowed: tuple[str, ...], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(
                f"'{value}' is not a valid {what}{did_you_mean(value, allowed)}; allowed: {', '.join(allowed)}"
            )
        return value

    return AfterValidator(check)


class LifecycleOverride(Section):
    """A lifecycle setting of the industry, with its reason."""

    value: float = Field(gt=0)
    because: str = Field(min_length=10, description="reason for the value")


class ReplenishmentCycle(Section):
    """How long the products of some categories last."""

    days: float = Field(gt=0, le=3650, description="days from a purchase until the next one is due")
    spread: float = Field(ge=0, description="standard deviation between customers, in days")
    categories: list[str] = Field(
        default_factory=list,
        description="item categories, in full as in the lake; default: the name of the cycle",
    )
    source: str = Field(min_length=10, description="source of the number")
    zh: str = Field("", description="Chinese name of what is replenished")

    @model_validator(mode="after")
    def _plausible(self) -> ReplenishmentCycle:
        if self.spread >= self.days:
            raise ValueError(
                f"the spread ({self.spread:g} days) must be below the cycle ({self.days:g} days), "
                "otherwise every purchase is due at once"
            )
        return self


class PackCondition(Section):
    """One comparison that a row must pass."""

    column: str
    operator: str = "=="
    value: Scalar | list[Scalar]


class PackFeature(Section):
    """A feature of the industry, with the fields of `features.compute.algebra.Feature`."""

    name: SnakeCaseName
    view: str
    aggregate: str
    column: str = ""
    where: list[PackCondition] = Field(default_factory=list)
    window_days: int | None = None
    over: str = ""
    default: float | str = 0.0
    unit: str = ""
    description: str = Field(min_length=1)
    grows_with_calendar: bool | None = Field(
        None, description="whether the value drifts with the date whatever the customer does; required where it may"
    )


class PackTagValue(Section):
    """A value of a tag, and the segment rule that assigns it to a customer."""

    value: Scalar
    when: dict[str, Any]


class PackTagInChinese(Section):
    """The Chinese words of a tag: its name, what it means, and its values."""

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    values: dict[str, str] = Field(default_factory=dict, description="value → its Chinese name")


class PackTag(Section):
    """A tag of the industry: its value is that of the first rule the customer passes."""

    name: SnakeCaseName
    category: Annotated[str, _one_of(TAG_CATEGORIES, "tag category")]
    description: str = Field(min_length=1)
    values: list[PackTagValue] = Field(min_length=1)
    default: Scalar | None = Field(None, description="value of customers who pass no rule; null: unknown")
    owner: str = "profile"
    ttl_days: int = Field(35, ge=1)
    zh: PackTagInChinese | None = None


class SyntheticCategory(Section):
    """A category of the synthetic shop."""

    price: float = Field(gt=0, description="typical list price")
    cycle: str | None = Field(None, description="replenishment cycle of its items")
    child_months: tuple[float, float] | None = Field(
        None, description="age range of the child during which it is bought; negative before birth"
    )


class SyntheticSegment(Section):
    """A customer segment of the synthetic shop."""

    share: float = Field(gt=0, le=1)
    gender: str
    age_band: str
    region: str
    income_band: str
    lift: float = Field(0.0, ge=-1, le=1, description="relative effect of a contact on the orders of the week")
    likes: list[str] = Field(min_length=1, description="favourite categories")


class SyntheticShopConfig(Section):
    """The synthetic shop of the industry, for `ingest synthetic` and the tests."""

    customers: int = Field(300, ge=20)
    days: int = Field(365, ge=60)
    seed: int = 0
    gap_days: tuple[float, float, float] = Field(
        (9.0, 3.0, 45.0), description="days between orders: median, minimum, maximum"
    )
    trial_items: float = Field(
        0.6,
        validation_alias=AliasChoices("trial_items", "tries"),
        ge=0,
        description="mean trial items per order, from categories without a cycle",
    )
    browsers_share: float = Field(
        0.0,
        validation_alias=AliasChoices("browsers_share", "lookers"),
        ge=0,
        lt=1,
        description="share of customers who view items and never buy",
    )
    categories: dict[str, SyntheticCategory] = Field(min_length=1)
    kinds: list[SyntheticSegment] = Field(min_length=1)
    events_per_person: dict[Annotated[str, _one_of(EVENT_TYPES, "event type")], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="mean number of events per customer, by event type, other than view and cart"
    )
    event_names: dict[str, str] = Field(
        default_factory=dict, description="event type → event name in the systems of the industry"
    )


class Pack(Section):
    """One industry pack."""

    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    events: dict[str, Annotated[str, _one_of(EVENT_TYPES, "event type")]] = Field(
        default_factory=dict, description="raw event name (case and surrounding spaces are ignored) → event type"
    )
    lifecycle: dict[
        Annotated[str, _one_of(tuple(LifecycleSettings.model_fields), "lifecycle setting")], LifecycleOverride
    ] = Field(default_factory=dict)
    replenishment: dict[SnakeCaseName, ReplenishmentCycle] = Field(default_factory=dict)
    features: list[PackFeature] = Field(default_factory=list)
    tags: list[PackTag] = Field(default_factory=list)
    synthetic: SyntheticShopConfig | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings the pack overrides, in the structure of qianmian.yaml."""
        if not self.lifecycle:
            return {}
        return {"lifecycle": {name: override.value for name, override in self.lifecycle.items()}}

    def event_type(self, expression: str) -> str:
        """SQL expression that maps a raw event name to its event type; names the pack does not define are unchanged.

        Examples
        --------
        >>> Pack(title="T", description="D", events={"Add to bag": "cart"}).event_type("kind")
        "coalesce(CASE lower(trim((kind)::VARCHAR)) WHEN 'add to bag' THEN 'cart' END, (kind)::VARCHAR)"
        """
        if not self.events:
            return expression
        cases = " ".join(f"WHEN {_literal(_normalize(raw))} THEN {_literal(kind)}" for raw, kind in self.events.items())
        return f"coalesce(CASE lower(trim(({expression})::VARCHAR)) {cases} END, ({expression})::VARCHAR)"


def builtin_packs() -> dict[str, Path]:
    """The built-in packs: name → folder."""
    root = Path(str(importlib.resources.files("packs")))
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / FILE).is_file()}


def find_pack_file(name_or_path: str, relative_to: Path) -> Path:
    """The file of a pack, by name, or by path if the argument has a slash or begins with a dot.

    Raises
    ------
    ConfigError
        The pack does not exist.
    """
    if "/" in name_or_path or "\\" in name_or_path or name_or_path.startswith("."):
        path = (relative_to / Path(name_or_path).expanduser()).resolve()
        file = path if path.suffix in (".yaml", ".yml") else path / FILE
        if not file.is_file():
            raise ConfigError(
                [f"pack: '{name_or_path}': the file {file} does not exist"],
                where=str(relative_to),
                hint="correct the path; see docs/packs.md for how to write a pack",
            )
        return file
    packs = builtin_packs()
    if name_or_path not in packs:
        suggestion, names = did_you_mean(name_or_path, packs), ", ".join(packs)
        problem = f"pack: unknown pack '{name_or_path}'{suggestion}; allowed: {names}, or a path such as ./my-pack"
        raise ConfigError([problem], where=str(relative_to))
    return packs[name_or_path] / FILE


def load_pack(name_or_path: str, relative_to: Path = Path()) -> Pack:
    """Read a pack and validate it.

    Raises
    ------
    ConfigError
        The pack is invalid; the error lists every mistake with its path in the file and the allowed values.

    Examples
    --------
    >>> load_pack("beauty").title
    'Beauty and personal care'
    """
    file = find_pack_file(name_or_path, relative_to)
    return _read(file, file.stat().st_mtime_ns)


def pack_digest(name_or_path: str | None) -> str:
    """Digest of the contents of a pack; an empty string for no pack.

    Examples
    --------
    >>> pack_digest(None), len(pack_digest("beauty"))
    ('', 16)
    """
    return hashlib.sha256(load_pack(name_or_path).model_dump_json().encode()).hexdigest()[:16] if name_or_path else ""


def merge_pack_defaults(user_settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Merge the settings of a pack into those of qianmian.yaml; keys set by the user take precedence, key by key.

    Parameters
    ----------
    user_settings : mapping of str to object
        Parsed contents of qianmian.yaml.
    folder : Path
        Folder of that file; the path of a pack is relative to it.

    Raises
    ------
    ConfigError
        The pack does not exist or is invalid.
    """
    name_or_path = user_settings.get("pack")
    if not isinstance(name_or_path, str):
        return dict(user_settings)
    pack, file = load_pack(name_or_path, folder), find_pack_file(name_or_path, folder)
    path = str(file.parent if file.name == FILE else file)
    merged: dict[str, Any] = {**user_settings, "pack": name_or_path if name_or_path in builtin_packs() else path}
    for section, values in pack.settings.items():
        own = user_settings.get(section) or {}
        merged[section] = {**values, **own} if isinstance(own, dict) else own
    return merged


@lru_cache(maxsize=32)
def _read(file: Path, changed: int) -> Pack:
    try:
        pack = Pack.model_validate(read_yaml(file) or {})
    except ValidationError as error:
        raise ConfigError(
            [f"{file}: {_error_line(found)}" for found in error.errors()], where="the pack", hint=f"correct {file}"
        ) from error
    problems = [f"{file}: {problem}" for problem in _consistency_errors(pack)]
    if problems:
        raise ConfigError(problems, where="the pack", hint=f"correct {file}")
    return pack


def _error_line(found: Any) -> str:
    path = ".".join(str(part) for part in found["loc"] if part != "[key]") or "(whole file)"
    if found["type"] == "extra_forbidden":
        allowed = _keys_at(found["loc"][:-1])
        return f"{path}: unknown key{did_you_mean(str(found['loc'][-1]), allowed)}; allowed: {', '.join(allowed)}"
    return f"{path}: {str(found['msg']).removeprefix('Value error, ')}"


def _keys_at(path: Iterable[str | int]) -> list[str]:
    """The keys allowed at a path of a pack: the fields of the model found there, through lists and mappings."""
    kind: Any = Pack
    for part in path:
        is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
        kind = kind.model_fields[str(part)].annotation if is_model else get_args(kind)[-1]  # list[X], dict[K, X]
        models = [option for option in get_args(kind) if isinstance(option, type) and issubclass(option, BaseModel)]
        if type(None) in get_args(kind) and models:  # X | None
            kind = models[0]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _consistency_errors(pack: Pack) -> Iterable[str]:
    """Mistakes that involve more than one part of a pack."""
    plain: dict[str, str] = {}
    for raw in pack.events:
        if _normalize(raw) in plain:
            yield f"events.{raw}: the same name as '{plain[_normalize(raw)]}' (case and surrounding spaces are ignored)"
        plain[_normalize(raw)] = raw
    try:
        LifecycleSettings.model_validate(pack.settings.get("lifecycle", {}))
    except ValidationError as error:
        yield from (f"lifecycle.{found['loc'][0]}.value: {found['msg']}" for found in error.errors())
    owner: dict[str, str] = {}
    for name, cycle in pack.replenishment.items():
        for category in cycle.categories or [name]:
            if category in owner:
                yield f"replenishment.{name}.categories: '{category}' already belongs to the cycle {owner[category]}"
            owner[category] = name
        if len({"/" in category for category in cycle.categories}) > 1:
            yield f"replenishment.{name}.categories: full categories (with /) and top-level ones cannot be mixed"
    for kind, names in (("features", [one.name for one in pack.features]), ("tags", [one.name for one in pack.tags])):
        for number, name in enumerate(names):
            if name in names[:number]:
                yield f"{kind}.{number}.name: '{name}' is declared twice"
    if pack.synthetic is not None:
        yield from _shop_errors(pack, pack.synthetic)


def _shop_errors(pack: Pack, shop: SyntheticShopConfig) -> Iterable[str]:
    cycles, categories = ", ".join(pack.replenishment) or "none", ", ".join(shop.categories)
    for name, category in shop.categories.items():
        if category.cycle is not None and category.cycle not in pack.replenishment:
            yield f"synthetic.categories.{name}.cycle: unknown cycle '{category.cycle}'; allowed: {cycles}"
    for number, kind in enumerate(shop.kinds):
        for liked in kind.likes:
            if liked not in shop.categories:
                yield f"synthetic.kinds.{number}.likes: unknown category '{liked}'; allowed: {categories}"
    total_share = sum(kind.share for kind in shop.kinds)
    if abs(total_share - 1) > 1e-6:
        yield f"synthetic.kinds: the shares add up to {total_share:g}, not to 1"
    meaning = {_normalize(raw): kind for raw, kind in pack.events.items()}
    for kind_, raw in shop.event_names.items():
        if meaning.get(_normalize(raw)) != kind_:
            yield f"synthetic.event_names.{kind_}: the events of the pack do not map '{raw}' to {kind_}"
    if not shop.gap_days[1] <= shop.gap_days[0] <= shop.gap_days[2] or shop.gap_days[1] <= 0:
        yield "synthetic.gap_days: must be median, minimum and maximum, with 0 < minimum ≤ median ≤ maximum"


def _normalize(raw: str) -> str:
    return raw.strip().lower()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
