from typing import Any

from numpy.typing import NDArray

def margins(
    rows: NDArray[Any],
    features: NDArray[Any],
    thresholds: NDArray[Any],
    gap_right: NDArray[Any],
    leaves: NDArray[Any],
    starts: NDArray[Any],
    width: int,
    depth: int,
    missing: float,
    out: NDArray[Any],
) -> None: ...
