"""What may be asked of a list beyond who it is for, as it is written in JSON, and what that means for one catalogue.

The HTTP face and batch scoring read the same words here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from models import rerank
from models.recommend.scene import PurchasedOption, Scene
from models.rerank import RerankOptions
from qianmian.errors import InvalidRequest
from serving.recommending.catalogue import Catalogue, Mask, combine_masks
from serving.recommending.recent import Event
from serving.requests import MAX_RESULTS, Identifier, RequestModel, request_error

MAX_CAPS = 10
MAX_PROMOTIONS = 10
MAX_EVENTS = 1_000
FILTERS = (
    'only these items: {"category": "GROCERY", "brand": ["A", "B"]}, or nested: {"and": [{"attribute": "price", "op": "between", '
    '"value": [1, 5]}, {"not": {"brand": "A"}}]}; see docs/http.md'
)


class DiversityOptions(RequestModel):
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


class PromotionOptions(RequestModel):
    """Items that get a share of the places."""

    name: Identifier
    filter: dict[str, Any] = Field(description="which items, as in filters")
    percent: float = Field(gt=0, le=100, description="of the places; all promotions together at most 100")


class ExplorationOptions(RequestModel):
    """Some places are drawn at random, each item with its probability."""

    share: float = Field(gt=0, le=1, description="of the places; a part of a place is one with that probability")
    pool: int = Field(50, ge=1, le=MAX_RESULTS, description="drawn from so many of the next best, all equally probable")
    seed: int | None = Field(None, ge=0, lt=2**63, description="default: the recommendation_id")


class ListOptions(RequestModel):
    """What may be asked of a list, whoever it is for."""

    filters: dict[str, Any] = Field(default_factory=dict, description=FILTERS)
    purchased: PurchasedOption | None = Field(
        None, description="items by whether the customer had them before; default what the scene is for"
    )
    diversity: DiversityOptions | None = None
    promotions: list[PromotionOptions] = Field(
        default_factory=list, max_length=MAX_PROMOTIONS, description="items that get a share of the places"
    )
    exploration: ExplorationOptions | None = None

    @field_validator("promotions")
    @classmethod
    def _possible(cls, promotions: list[PromotionOptions]) -> list[PromotionOptions]:
        names = [promotion.name for promotion in promotions]
        if len(set(names)) < len(names):
            raise ValueError("two promotions have the same name")
        if (total := sum(promotion.percent for promotion in promotions)) > 100:
            raise ValueError(f"they ask for {total:g} percent of the places together; at most 100")
        return promotions


class RequestContext(RequestModel):
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


def parse_list_options(raw: Mapping[str, Any]) -> ListOptions:
    """Options from plain data.

    Raises
    ------
    InvalidRequest
        A field is wrong or unknown.
    """
    try:
        return ListOptions.model_validate(raw)
    except ValidationError as error:
        raise request_error(
            error.errors(include_url=False, include_context=False, include_input=False), ListOptions
        ) from error


def rerank_options_for(catalogue: Catalogue, request_options: ListOptions) -> RerankOptions:
    """The controls over lists of this catalogue's items.

    Raises
    ------
    InvalidRequest
        An attribute or a filter the items cannot answer; `field` says which.
    """
    diversity, promotions, exploration = (
        request_options.diversity,
        request_options.promotions,
        request_options.exploration,
    )
    if diversity is None and not promotions and exploration is None:
        return NO_RERANKING
    caps: list[rerank.Cap] = []
    mmr = None
    if diversity is not None:
        caps = [catalogue.cap(name, most, f"diversity.max_per.{name}") for name, most in diversity.max_per.items()]
        mmr = diversity.mmr
    promoted = [
        rerank.PromotedItems(
            one.name, _promotion_mask(catalogue, one.filter, f"promotions[{number}].filter"), one.percent
        )
        for number, one in enumerate(promotions)
    ]
    return RerankOptions(
        tuple(caps),
        mmr,
        catalogue.similarity if mmr is not None else None,
        tuple(promoted),
        rerank.ExplorationPolicy(exploration.share, exploration.pool) if exploration is not None else None,
    )


NO_RERANKING = RerankOptions()


def _promotion_mask(catalogue: Catalogue, raw: Any, where: str) -> Mask:
    mask, _ = catalogue.parse_filter(raw, where)
    if mask is None:
        raise InvalidRequest(f"{where}: an empty filter says nothing", field=where, hint="name the items to promote")
    return mask


def allowed_items(catalogue: Catalogue, filters: Any, available: Mask | None = None) -> tuple[Mask | None, Mask | None]:
    """What the filters let through, and what of it can be had (by default by what was known at the fit); None for everything."""
    available = catalogue.available if available is None else available
    if not filters and available is None:
        return None, None
    filter_mask, filters_availability = catalogue.parse_filter(filters)
    return filter_mask, filter_mask if filters_availability else combine_masks(filter_mask, available)


def resolve_purchased(scene: Scene, request_options: PurchasedOption | None) -> PurchasedOption:
    """``any``, ``only`` or ``never``: what is asked, else what the scene does.

    Raises
    ------
    InvalidRequest
        The scene has no such items.
    """
    if request_options is None:
        return scene.purchased[0]
    if request_options not in scene.purchased:
        raise InvalidRequest(
            f"{scene.name} is {scene.description}",
            got=f"purchased {request_options}",
            allowed=", ".join(scene.purchased),
            field="purchased",
        )
    return request_options
