"""When and through which channel to contact each customer: pooled patterns of the responses before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.persist import Arrays, UserArrays, load_arrays, load_json, pack_csr, save_arrays, unpack_csr
from models.pooled_patterns import LEVELS, Codes, PooledPatterns, Responses
from models.user_arrays import UserMatrix, UserRows
from qianmian.schema import CONSENT_CHANNELS, CONTACT_SLOTS, WEEKDAYS
from qianmian.workspace import write_json

TIMES, CHANNELS = "times", "channels"
CELLS = tuple((day, slot) for day in WEEKDAYS for slot in CONTACT_SLOTS)
N_CELLS = len(CELLS)
STARTS = np.array([low for low, _ in CONTACT_SLOTS.values()])


def cell_of(weekday: NDArray[Any], hour: NDArray[Any]) -> Codes:
    """Place in `CELLS` of moments by their weekday (Monday is 0) and hour, −1 where the hour is unknown (NaN).

    Examples
    --------
    >>> CELLS[cell_of(np.array([0.0]), np.array([18.0]))[0]]
    ('monday', 'evening')
    """
    unknown = ~np.isfinite(hour)
    slot = np.searchsorted(STARTS, np.where(unknown, 0, hour), side="right") - 1
    return np.where(unknown, -1, weekday.astype(np.int64) * len(CONTACT_SLOTS) + slot).astype(np.int64)


def consent_channel(name: str) -> str | None:
    """The channel of consents that a channel of the data is, however it is written; None if it is another.

    Examples
    --------
    >>> [consent_channel(name) for name in ("email", "E-Mail", " SMS", "app")]
    ['email', 'email', 'sms', None]
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain if plain in CONSENT_CHANNELS else None


@dataclass(frozen=True)
class ContactPredictions:
    """Predictions for m customers.

    Attributes
    ----------
    times : ndarray of float64, shape (m, 35), or None
        Share of each of `CELLS`; None where times tell nothing.
    time_levels : ndarray of int64, shape (m,)
        Index in `models.pooled_patterns.LEVELS` of what tells most of it.
    channels : ndarray of float64, shape (m, n_channels), or None
    channel_levels : ndarray of int64, shape (m,)
    """

    times: NDArray[np.float64] | None
    time_levels: Codes
    channels: NDArray[np.float64] | None
    channel_levels: Codes


class ContactPreferences:
    """Patterns over the 35 times of the week, and over the channels.

    Parameters
    ----------
    channel_names : sequence of str
        Columns of the channel patterns.
    times, channels : PooledPatterns or None
        Fitted patterns; None where the data tell nothing of them.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = (
        *(UserMatrix(f"{part}_{name}") for part in (TIMES, CHANNELS) for name in ("responses", "exposures")),
        *(UserRows(f"{part}_codes") for part in (TIMES, CHANNELS)),
    )

    def __init__(
        self,
        channel_names: tuple[str, ...] = (),
        times: PooledPatterns | None = None,
        channels: PooledPatterns | None = None,
    ) -> None:
        self.channel_names, self.times, self.channels = tuple(channel_names), times, channels

    def predict(self, rows: Codes) -> ContactPredictions:
        """Return the patterns of customers by their rows in the model, −1 for an unknown customer: those of all."""
        nothing = np.zeros(len(rows), dtype=np.int64)
        times = (None, nothing) if self.times is None else self.times.predict(rows)
        channels = (None, nothing) if self.channels is None else self.channels.predict(rows)
        return ContactPredictions(*times, *channels)

    def best_times(self, predictions: ContactPredictions) -> list[dict[str, Any] | None]:
        """The best time of each customer: day, slot, hours, share of the responses, and basis; None without times."""
        if predictions.times is None:
            return [None] * len(predictions.time_levels)
        best = predictions.times.argmax(axis=1)
        shares = predictions.times[np.arange(len(best)), best].round(4).tolist()
        return [
            {**described, "share": share, "basis": LEVELS[level]}
            for described, share, level in zip(
                map(_TIMES.__getitem__, best.tolist()), shares, predictions.time_levels.tolist(), strict=True
            )
        ]

    def ranked_channels(
        self, predictions: ContactPredictions, refused: NDArray[np.bool_] | None = None
    ) -> list[list[dict[str, Any]]]:
        """The channels of each customer, best first, with shares and basis; empty without channels.

        Parameters
        ----------
        refused : ndarray of bool, shape (m, n_channels), optional
            Channels that the customer refused, which are left out.
        """
        if predictions.channels is None:
            return [[] for _ in predictions.channel_levels]
        orders = np.argsort(-predictions.channels, axis=1, kind="stable").tolist()
        shares, levels = predictions.channels.round(4).tolist(), predictions.channel_levels.tolist()
        left_out = (np.zeros(predictions.channels.shape, dtype=bool) if refused is None else refused).tolist()
        return [
            [
                {"channel": self.channel_names[place], "share": share[place], "basis": LEVELS[level]}
                for place in order
                if not without[place]
            ]
            for order, share, level, without in zip(orders, shares, levels, left_out, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the patterns as npz and the parameters as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: Arrays = {}
        parts = {TIMES: self.times, CHANNELS: self.channels}
        for part, patterns in parts.items():
            if patterns is None:
                continue
            arrays |= {
                f"{part}_all": patterns.all_,
                f"{part}_segments": patterns.segments_,
                f"{part}_segment_responses": patterns.segment_responses_,
                **pack_csr(f"{part}_responses", patterns.data_.responses),
            }
            if len(patterns.codes_):
                arrays[f"{part}_codes"] = patterns.codes_
            if patterns.data_.exposures is not None:
                arrays |= pack_csr(f"{part}_exposures", patterns.data_.exposures)
        save_arrays(folder / "state.npz", arrays)
        params = {part: None if patterns is None else patterns.get_params() for part, patterns in parts.items()}
        write_json(folder / "params.json", {"channel_names": list(self.channel_names), **params})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        described, arrays = load_json(folder / "params.json"), load_arrays(folder / "state.npz")
        parts = {part: _patterns(described[part], part, arrays) for part in (TIMES, CHANNELS)}
        return cls(tuple(described["channel_names"]), parts[TIMES], parts[CHANNELS])


_TIMES = [
    {"day": day, "slot": slot, "hours": "{:02d}:00-{:02d}:00".format(*CONTACT_SLOTS[slot])} for day, slot in CELLS
]


def _patterns(params: dict[str, Any] | None, part: str, arrays: Arrays) -> PooledPatterns | None:
    if params is None:
        return None
    patterns = PooledPatterns(**params)
    patterns.all_, patterns.segments_ = arrays[f"{part}_all"], arrays[f"{part}_segments"]
    patterns.segment_responses_ = arrays[f"{part}_segment_responses"]
    patterns.codes_ = arrays.get(f"{part}_codes", np.empty(0, dtype=np.int64))
    has_exposures = f"{part}_exposures_indptr" in arrays
    exposures: sparse.csr_matrix | None = unpack_csr(f"{part}_exposures", arrays) if has_exposures else None
    patterns.data_ = Responses(unpack_csr(f"{part}_responses", arrays), exposures)
    return patterns
