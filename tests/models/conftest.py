"""Small training sets made by hand; nothing here needs a lake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from features.compute.algebra import Feature
from features.compute.spec import FeatureSpec, UserFeatures
from features.interactions import Interactions, TrainingSet

AS_OF = datetime(2024, 6, 1)
ADULT = Feature("profile_band", "profiles", "attribute", "age_band", default="", description="age band")
ORDERS = Feature("orders_total", "orders", "count", description="orders")


def arrays_of(value: Any) -> list[np.ndarray]:
    """Every array inside a dataclass, a dict or a tuple of them."""
    if isinstance(value, np.ndarray):
        return [value]
    if is_dataclass(value):
        return [array for field in fields(value) for array in arrays_of(getattr(value, field.name))]
    if isinstance(value, dict):
        return [array for part in value.values() for array in arrays_of(part)]
    return []


def make(
    pairs: list[tuple[int, int, float]],
    n_users: int,
    n_items: int,
    *,
    bands: list[int] | None = None,
    categories: list[str] | None = None,
    item_ids: list[str] | None = None,
    user_ids: list[str] | None = None,
    frozen: bool = True,
) -> TrainingSet:
    """A training set of (user, item, age in days); `bands` are the codes of a profile attribute, −1 unknown."""
    users, items, ages = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else (np.empty(0),) * 3
    names = np.array(user_ids or [f"u{i:04d}" for i in range(n_users)], dtype=np.str_)
    codes = np.array(bands if bands is not None else [-1] * n_users, dtype=np.float32)
    counts = np.bincount(users.astype(int), minlength=n_users).astype(np.float32)
    features = UserFeatures(
        names, np.column_stack([codes, counts]), AS_OF, FeatureSpec((ADULT, ORDERS), (("18-24", "65+"), ()))
    )
    attributes = {
        "category": np.array(categories or [f"c{i % 3}/d{i % 5}" for i in range(n_items)], dtype=np.str_),
        "brand": np.array([f"b{i % 2}" if i % 4 else "" for i in range(n_items)], dtype=np.str_),
    }
    attributes["price"] = np.linspace(1.0, 4.0, n_items, dtype=np.float32)
    data = Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        ages.astype(np.float32),
        np.ones(len(pairs), np.float32),
        (n_users, n_items),
    )
    ids = np.array(item_ids or [f"i{i:04d}" for i in range(n_items)], dtype=np.str_)
    train = TrainingSet(names, ids, data, attributes, features, AS_OF)
    if frozen:
        for array in arrays_of(train):
            array.flags.writeable = False
    return train


def make_shop(seed: int = 0, n_users: int = 40, n_items: int = 25, lines: int = 400) -> TrainingSet:
    """Customers of two age bands with different tastes; the last four have a profile and no history, the very last not even that."""
    rng = np.random.default_rng(seed)
    bands = rng.integers(0, 2, n_users)
    bands[-1] = -1
    users = rng.integers(0, n_users - 4, lines)
    weights = np.exp(-0.12 * np.arange(n_items))
    liked = np.array([np.where(np.arange(n_items) % 2 == band, weights, 0.15 * weights) for band in (0, 1)])
    liked /= liked.sum(axis=1, keepdims=True)
    items = [int(rng.choice(n_items, p=liked[bands[user]])) for user in users]
    return make(
        list(zip(users.tolist(), items, rng.uniform(1, 200, lines).tolist(), strict=True)),
        n_users,
        n_items,
        bands=bands.tolist(),
    )


@pytest.fixture(scope="session")
def training_set_of() -> Callable[..., TrainingSet]:
    return make


@pytest.fixture(scope="session")
def shop_of() -> Callable[..., TrainingSet]:
    return make_shop


@pytest.fixture(scope="session")
def shop() -> TrainingSet:
    """40 customers, 25 items; its arrays cannot be written to."""
    return make_shop()


@pytest.fixture(scope="session")
def all_arrays() -> Callable[[Any], list[np.ndarray]]:
    return arrays_of
