"""What may be asked of a list beyond who it is for, as it is written in JSON, and what that means for one catalogue.

The HTTP face and batch scoring read the same words here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from models import rerank
from models.recommend.scene import Purchased, Scene
from models.rerank import Controls
from qianmian.errors import InvalidRequest
from serving.recommending.catalogue import Catalogue, Mask, both
from serving.recommending.recent import Event
from serving.requests import MAX_RESULTS, Identifier, Part, refusal

MAX_CAPS = 10
MAX_PROMOTIONS = 10
MAX_EVENTS = 1_000
FILTERS = (
    'only these items: {"category": "GROCERY", "brand": ["A", "B"]}, or nested: {"and": [{"attribute": "price", "op": "between", '
    '"value": [1, 5]}, {"not": {"brand": "A"}}]}; see docs/http.md'
)


class Diversity(Part):
    """A list that is not all alike."""

    max_per: dict[Identifier, Annotated[int, Field(ge=1, le=MAX_RESULTS)]] = Field(
        default_factory=dict,
        max_length=MAX_CAPS,
        description='at most so many items with one value of an attribute: {"category/2": 3, "brand": 2}; category/2 counts by the first two levels',
    )
    mmr: float | None = Field(
        None,
        ge=0,
        le=1,
        description="maximal marginal relevance: 1 only how good an item is, 0 only how unlike the others",
    )


class Promotion(Part):
    """Items that get a share of the places."""

    name: Identifier
    filter: dict[str, Any] = Field(description="which items, as in filters")
    percent: float = Field(gt=0, le=100, description="of the places; all promotions together at most 100")


class Exploration(Part):
    """Some places are drawn at random, each item with its probability."""

    share: float = Field(gt=0, le=1, description="of the places; a part of a place is one with that probability")
    pool: int = Field(50, ge=1, le=MAX_RESULTS, description="drawn from so many of the next best, all equally probable")
    seed: int | None = Field(None, ge=0, lt=2**63, description="default: the recommendation_id")


class ListOptions(Part):
    """What may be asked of a list, whoever it is for."""

    filters: dict[str, Any] = Field(default_factory=dict, description=FILTERS)
    purchased: Purchased | None = Field(
        None, description="items by whether the customer had them before; default what the scene is for"
    )
    diversity: Diversity | None = None
    promotions: list[Promotion] = Field(
        default_factory=list, max_length=MAX_PROMOTIONS, description="items that get a share of the places"
    )
    exploration: Exploration | None = None

    @field_validator("promotions")
    @classmethod
    def _possible(cls, promotions: list[Promotion]) -> list[Promotion]:
        names = [promotion.name for promotion in promotions]
        if len(set(names)) < len(names):
            raise ValueError("two promotions have the same name")
        if (total := sum(promotion.percent for promotion in promotions)) > 100:
            raise ValueError(f"they ask for {total:g} percent of the places together; at most 100")
        return promotions


class Context(Part):
    """What the caller knows of the moment and of a customer the model does not know."""

    attributes: dict[Identifier, str] = Field(
        default_factory=dict,
        max_length=50,
        description='profile attributes of a customer without history: {"age_band": "25-34"}',
    )
    items: list[Identifier] = Field(
        default_factory=list,
        max_length=MAX_EVENTS,
        description="what the list should go with (complement, upgrade, similar): the basket, or an item",
    )
    events: list[Event] = Field(
        default_factory=list, max_length=MAX_EVENTS, description="what the customer did since the model's as_of"
    )
    now: str | None = Field(
        None,
        max_length=40,
        description="the moment to answer for, ISO 8601; default the last event's, without events as_of",
    )


def options_of(given: Mapping[str, Any]) -> ListOptions:
    """Options from plain data.

    Raises
    ------
    InvalidRequest
        A field is wrong or unknown.
    """
    try:
        return ListOptions.model_validate(given)
    except ValidationError as error:
        raise refusal(
            error.errors(include_url=False, include_context=False, include_input=False), ListOptions
        ) from error


def controls_of(catalogue: Catalogue, asked: ListOptions) -> Controls:
    """The controls over lists of this catalogue's items.

    Raises
    ------
    InvalidRequest
        An attribute or a filter the items cannot answer; `field` says which.
    """
    diversity, promotions, exploration = asked.diversity, asked.promotions, asked.exploration
    if diversity is None and not promotions and exploration is None:
        return NO_CONTROLS
    caps: list[rerank.Cap] = []
    mmr = None
    if diversity is not None:
        caps = [catalogue.cap(name, most, f"diversity.max_per.{name}") for name, most in diversity.max_per.items()]
        mmr = diversity.mmr
    promoted = [
        rerank.Promotion(one.name, _promoted(catalogue, one.filter, f"promotions[{number}].filter"), one.percent)
        for number, one in enumerate(promotions)
    ]
    return Controls(
        tuple(caps),
        mmr,
        catalogue.similarity if mmr is not None else None,
        tuple(promoted),
        rerank.Exploration(exploration.share, exploration.pool) if exploration is not None else None,
    )


NO_CONTROLS = Controls()


def _promoted(catalogue: Catalogue, given: Any, where: str) -> Mask:
    mask, _ = catalogue.filtered(given, where)
    if mask is None:
        raise InvalidRequest(f"{where}: an empty filter says nothing", field=where, hint="name the items to promote")
    return mask


def allowed_by(catalogue: Catalogue, filters: Any, available: Mask | None = None) -> tuple[Mask | None, Mask | None]:
    """What the filters let through, and what of it can be had (by default by what was known at the fit); None for everything."""
    available = catalogue.available if available is None else available
    if not filters and available is None:
        return None, None
    passing, asks_itself = catalogue.filtered(filters)
    return passing, passing if asks_itself else both(passing, available)


def purchased_of(scene: Scene, asked: Purchased | None) -> Purchased:
    """``any``, ``only`` or ``never``: what is asked, else what the scene does.

    Raises
    ------
    InvalidRequest
        The scene has no such items.
    """
    if asked is None:
        return scene.purchased[0]
    if asked not in scene.purchased:
        raise InvalidRequest(
            f"{scene.name} is {scene.description}",
            got=f"purchased {asked}",
            allowed=", ".join(scene.purchased),
            field="purchased",
        )
    return asked
