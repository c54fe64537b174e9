"""The part of the contract of recommenders about planned promotions: whether a model reads them, and from where."""

from __future__ import annotations

from features.promotions import ItemPromotions


class ReadsPromotions:
    """What a model and its submodels read of planned promotions; a model that reads some overrides both."""

    @property
    def submodels(self) -> tuple[ReadsPromotions, ...]:
        """The fitted models that this model is composed of."""
        return ()

    @property
    def reads_promotions(self) -> bool:
        """Whether the fitted model or one of its submodels reads planned promotions."""
        return any(part.reads_promotions for part in self.submodels)

    def update_promotions(self, promotions: ItemPromotions | None) -> None:
        """Let the model and its submodels read other promotions than those of the fit, with days before its `as_of`.

        They may have become known after the fit: of these, a call reads what is known at its moment.
        """
        for part in self.submodels:
            part.update_promotions(promotions)
