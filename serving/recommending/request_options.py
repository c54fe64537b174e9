"""Options of a list as they are written in JSON, and their meaning for one catalogue.

The HTTP API and batch scoring share these models, so both accept the same options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import FailFast, Field, ValidationError, field_validator

from models import rerank
from models.recommend.scene import PurchasedOption, Scene
from models.rerank import RerankOptions
from qianmian.errors import InvalidRequest
from serving.recommending.catalogue import Catalogue, Mask, combine_masks
from serving.recommending.recent import Event
from serving.requests import MAX_ATTRIBUTES, MAX_RESULTS, Identifier, Identifiers, RequestModel, Text, request_error

MAX_CAPS = 10
MAX_PROMOTIONS = 10
MAX_EVENTS = 1_000
FILTERS = (
    'conditions that every item must meet: {"category": "GROCERY", "brand": ["A", "B"]}, or nested: '
    '{"and": [{"attribute": "price", "op": "between", "value": [1, 5]}, {"not": {"brand": "A"}}]}; see docs/http.md'
)


class DiversityOptions(RequestModel):
    """Diversity of a list."""

    max_per: Annotated[dict[Identifier, Annotated[int, Field(ge=1, le=MAX_RESULTS)]], FailFast()] = Field(
        default_factory=dict,
        max_length=MAX_CAPS,
        description='maximum number of items per attribute value: {"category/2": 3, "brand": 2}; '
        "category/2 compares the first two levels",
    )
    mmr: float | None = Field(
        None,
        ge=0,
        le=1,
        description="λ of maximal marginal relevance: 1 is relevance only, 0 is dissimilarity only",
    )


class PromotionOptions(RequestModel):
    """Items that get a share of the slots."""

    name: Identifier
    filter: dict[str, Any] = Field(description="the promoted items; same syntax as filters")
    percent: float = Field(gt=0, le=100, description="percentage of the slots; at most 100 over all promotions")


class ExplorationOptions(RequestModel):
    """Some slots are filled at random, with known probabilities."""

    share: float = Field(
        gt=0, le=1, description="share of the slots; a fraction of a slot is rounded up with that probability"
    )
    pool: int = Field(
        50,
        ge=1,
        le=MAX_RESULTS,
        description="number of next-best items that are drawn from, all with equal probability",
    )
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="seed of the random draws; default: the recommendation_id"
    )


class ListOptions(RequestModel):
    """Options of a list that do not depend on the customer."""

    filters: dict[str, Any] = Field(default_factory=dict, description=FILTERS)
    purchased: PurchasedOption | None = Field(
        None, description="any item, only items bought before, or never those; the default depends on the scene"
    )
    diversity: DiversityOptions | None = None
    promotions: Annotated[list[PromotionOptions], FailFast()] = Field(
        default_factory=list, max_length=MAX_PROMOTIONS, description="items that get a share of the slots"
    )
    exploration: ExplorationOptions | None = None

    @field_validator("promotions")
    @classmethod
    def _possible(cls, promotions: list[PromotionOptions]) -> list[PromotionOptions]:
        names = [promotion.name for promotion in promotions]
        if len(set(names)) < len(names):
            raise ValueError("two promotions have the same name")
        if (total := sum(promotion.percent for promotion in promotions)) > 100:
            raise ValueError(f"the percentages add up to {total:g}; at most 100")
        return promotions


class RequestContext(RequestModel):
    """What the caller knows about the customer and the moment."""

    attributes: Annotated[dict[Identifier, Text], FailFast()] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        description='profile attributes of a customer without history: {"age_band": "25-34"}',
    )
    items: Identifiers = Field(
        default_factory=list,
        max_length=MAX_EVENTS,
        description="items the list should go with (complement, upgrade, similar): the basket, or one item",
    )
    events: Annotated[list[Event], FailFast()] = Field(
        default_factory=list, max_length=MAX_EVENTS, description="events of the customer after the as_of of the model"
    )
    now: str | None = Field(
        None,
        max_length=40,
        description="moment of the list, ISO 8601; default: time of the last event, or as_of without events",
    )


def parse_list_options(raw: Mapping[str, Any]) -> ListOptions:
    """Parse options from plain data.

    Raises
    ------
    InvalidRequest
        If a field is invalid or unknown.
    """
    try:
        return ListOptions.model_validate(raw)
    except ValidationError as error:
        raise request_error(error, ListOptions) from error


def rerank_options_for(catalogue: Catalogue, options: ListOptions) -> RerankOptions:
    """Translate request options into re-ranking options over the items of a catalogue.

    Raises
    ------
    InvalidRequest
        If the items do not support an attribute or a filter; `field` names it.
    """
    diversity, promotions, exploration = options.diversity, options.promotions, options.exploration
    if diversity is None and not promotions and exploration is None:
        return NO_RERANKING
    caps: list[rerank.Cap] = []
    mmr = None
    if diversity is not None:
        caps = [catalogue.cap(name, limit, f"diversity.max_per.{name}") for name, limit in diversity.max_per.items()]
        mmr = diversity.mmr
    promoted = [
        rerank.PromotedItems(
            promotion.name,
            _promotion_mask(catalogue, promotion.filter, f"promotions[{number}].filter"),
            promotion.percent,
        )
        for number, promotion in enumerate(promotions)
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
        raise InvalidRequest(f"{where}: the filter is empty", field=where, hint="name the items to promote")
    return mask


def allowed_items(catalogue: Catalogue, filters: Any, available: Mask | None = None) -> tuple[Mask | None, Mask | None]:
    """Return the items that pass the filters, and those of them that are available.

    Parameters
    ----------
    catalogue : Catalogue
        Items of the recommender.
    filters : mapping
        Filter expression as in a request; availability is not checked if it names ``available`` itself.
    available : ndarray of bool, shape (n_items,), optional
        Available items; default: those of the catalogue.

    Returns
    -------
    filter_mask, allowed : ndarray of bool, shape (n_items,), or None
        None means all items.
    """
    available = catalogue.available if available is None else available
    if not filters and available is None:
        return None, None
    filter_mask, filters_availability = catalogue.parse_filter(filters)
    return filter_mask, filter_mask if filters_availability else combine_masks(filter_mask, available)


def resolve_purchased(scene: Scene, purchased: PurchasedOption | None) -> PurchasedOption:
    """Return the option of the request, or the default of the scene.

    Raises
    ------
    InvalidRequest
        If the scene does not support the option.
    """
    if purchased is None:
        return scene.purchased[0]
    if purchased not in scene.purchased:
        raise InvalidRequest(
            f"the scene {scene.name} does not support this value of purchased: it shows {scene.description}",
            got=purchased,
            allowed=", ".join(scene.purchased),
            field="purchased",
        )
    return purchased
