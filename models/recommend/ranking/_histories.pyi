from typing import Any

from numpy.typing import NDArray

def tables(*arrays: NDArray[Any] | None) -> tuple[int, int]: ...
