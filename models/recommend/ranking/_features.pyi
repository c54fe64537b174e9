from typing import Any

from numpy.typing import NDArray

def features(*arrays: NDArray[Any] | None) -> None: ...
