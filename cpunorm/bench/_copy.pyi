from typing import Any

from numpy.typing import NDArray

can_stream: bool

def copy(y: NDArray[Any], x: NDArray[Any], threads: int, streaming: bool) -> None: ...
